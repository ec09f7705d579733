"""Who acts: an exported policy, a person at the controls, or a policy under a person's eyes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from onestride.deploy.adaptive import AdaptivePolicy, time_for_inference
from onestride.deploy.contract import Contract, parse_contract
from onestride.deploy.controller import Controller
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import PolicyRuntime, ThreadedInference, runtime_identity
from onestride.deploy.teleop.mapping import load_mapping
from onestride.deploy.teleop.operator import Operator
from onestride.deploy.teleop.supervised import NoPolicy, SupervisedController
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.realtime import Realtime
from onestride_controller.parameters import Settings
from onestride_controller.report import Report, TimedPolicy


@dataclass(frozen=True)
class Pilot:
    """A verified contract and who acts by it.

    Attributes:
        contract: what is observed and commanded.
        sha256: of the policy's file, or of the demonstration's contract.
        nfe: network evaluations per action; None without a policy.
        inference: where chunks come from.
        operator: the person; None without one.
        adaptive: takes fewer evaluations where it has to; None where it may not.
    """

    contract: Contract
    sha256: str
    nfe: int | None
    inference: ThreadedInference | NoPolicy
    operator: Operator | None
    adaptive: AdaptivePolicy | None = None

    def __str__(self) -> str:
        policy = "" if self.nfe is None else f", NFE {self.nfe}"
        person = "" if self.operator is None else f", a person by {self.operator.device}"
        return f"{self.contract.policy.name}{policy}, sha256 {self.sha256[:12]}{person}"

    @property
    def runtime(self) -> str:
        """What its inference runs on; empty without a policy."""
        return runtime_identity(self.inference.policy.provider) if isinstance(self.inference, ThreadedInference) else ""

    @property
    def device(self) -> str:
        """By which a person acts; empty without one."""
        return "" if self.operator is None else self.operator.device

    def controller(self, robot: RobotDescription, forward: ForwardKinematics, **options: Any) -> Controller:
        """The control law.

        Raises:
            OneStrideError: the contract is for another robot.
        """
        if self.operator is None:
            return Controller(self.contract, robot, forward, self.inference, **options)
        return SupervisedController(self.contract, robot, forward, self.inference, self.operator, **options)


def load_pilot(settings: Settings, forward: ForwardKinematics, report: Report, realtime: Realtime) -> Pilot:
    """Load and verify what the parameters name; its inference runs as `realtime` wants.

    Raises:
        OneStrideError: the policy, the contract or the mapping is refused, or nobody acts.
    """
    if settings.policy is None:
        contract, sha256 = _demonstration(settings)
        return Pilot(contract, sha256, None, NoPolicy(), _operator(settings, contract, forward))
    policy = _policy(settings, settings.nfe)
    operator = _operator(settings, policy.contract, forward) if settings.teleop else None
    adaptive = _adaptive(settings, policy) if settings.adaptive_nfe else None
    inference = ThreadedInference(TimedPolicy(adaptive or policy, report), realtime.follow)
    return Pilot(policy.contract, policy.sha256, policy.nfe, inference, operator, adaptive)


def _policy(settings: Settings, nfe: int | None) -> PolicyRuntime:
    if settings.policy is None:
        raise OneStrideError("parameter policy: expected a path, got none")
    return PolicyRuntime(settings.policy, contract=settings.contract, nfe=nfe, seed=settings.seed)


def _adaptive(settings: Settings, policy: PolicyRuntime) -> AdaptivePolicy:
    budget = time_for_inference(policy.contract.execution, settings.chunk_blend)
    return AdaptivePolicy.load(policy, budget, lambda nfe: _policy(settings, nfe))


def _demonstration(settings: Settings) -> tuple[Contract, str]:
    path = settings.contract
    if path is None or not settings.teleop:
        raise OneStrideError("parameter contract: expected teleop with it, for without a policy a person acts")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise OneStrideError(f"contract: cannot read {path}: {error.strerror}") from None
    return parse_contract(text, str(path)), hashlib.sha256(text).hexdigest()


def _operator(settings: Settings, contract: Contract, forward: ForwardKinematics) -> Operator:
    mapping = load_mapping(settings.teleop_mapping, contract)
    if settings.teleop_stale:
        mapping = mapping.model_copy(update={"stale": settings.teleop_stale})
    device: Any = settings.teleop  # refused by name where it is not one
    return Operator(contract, mapping, forward, device, supervises=settings.policy is not None)

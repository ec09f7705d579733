"""`onestride import-contract`: the contract of a policy that another trainer wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from onestride.hardware.errors import OneStrideError


@dataclass
class ImportContract:
    """Write a contract file for an ONNX policy, from its own metadata (rsl_rl, mjlab) or a unitree_rl_lab deploy.yaml.

    What the files leave open is refused by name, and has to be said here.
    """

    policy: tyro.conf.Positional[Path]
    """ONNX file of the policy."""
    robot: str
    """Robot description that it is for, by id or YAML file; with the gains that it was trained with."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Contract file to write."""
    deploy: Path | None = None
    """The deploy.yaml that unitree_rl_lab wrote; default the metadata in the policy's file."""
    policy_rate: float | None = None
    """Actions per second in Hz, where the metadata does not say."""
    control_rate: float | None = None
    """Commands per second in Hz, a multiple of the policy's rate; default what policy and robot allow up to 200."""
    base_velocity: Literal["estimator", "odometry"] | None = None
    """Where the base's linear velocity comes from, if the policy observes it."""
    command_limits: tuple[float, float, float] | None = None
    """Largest velocity command that the policy was trained with: vx, vy in m/s, wz in rad/s."""
    history_order: Literal["step_major", "term_major"] | None = None
    """Layout of a history of observations, where the file does not state it."""
    unscaled: bool = False
    """The observations are neither scaled nor clipped, where the metadata does not say."""
    force: bool = False
    """Write over a file that exists."""

    def __call__(self) -> int:
        """Import, check against the graph, and write."""
        from rich.console import Console

        from onestride.deploy.foreign import load_policy
        from onestride.deploy.importers import import_contract
        from onestride.deploy.importers.drafting import as_yaml
        from onestride.deploy.importers.names import Answers
        from onestride.hardware.description import load_robot

        if self.output.exists() and not self.force:
            raise OneStrideError(f"{self.output} exists; --force writes over it")
        answers = Answers(
            policy_rate=self.policy_rate,
            control_rate=self.control_rate,
            base_velocity=self.base_velocity,
            unscaled=self.unscaled,
            command=self.command_limits,
            history_order=self.history_order,
        )
        contract = import_contract(self.policy, load_robot(self.robot), answers, self.deploy)
        origin = self.policy.name if self.deploy is None else f"{self.policy.name} and {self.deploy.name}"
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.output.write_text(as_yaml(contract, origin), encoding="utf-8")
        load_policy(self.policy, self.output)
        Console().print(
            f"{self.output}: read it, then onestride check {self.policy} --contract {self.output} --robot {self.robot}",
            highlight=False,
            soft_wrap=True,
        )
        return 0

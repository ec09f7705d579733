"""The control law of a policy on a robot: observe, infer, execute the chunk, certify, command.

No clock, no thread and no ROS of its own: a caller ticks it at the control rate with the newest measurement and
sends what it answers. The node, the in-process runner, replay and the tests all run this one object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from onestride.deploy.actions import ActionMapper
from onestride.deploy.activation import first_command, refuse_pose
from onestride.deploy.chunks import ChunkExecutor, Interpolator
from onestride.deploy.contract import Contract
from onestride.deploy.estimator import BaseVelocityEstimator
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.observe import Observer
from onestride.deploy.runtime import Prediction
from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.stop import DecelerateAndHold, safe_stop
from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array, Measurement

#: Share of a control period for which a tick may wait for a chunk that is being computed.
PATIENCE = 0.2


class Inference(Protocol):
    """Where chunks come from; see `InlineInference` and `ThreadedInference`."""

    def request(self, observation: Array, at: int) -> None:
        """Ask for a chunk."""
        ...

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        """The finished prediction, once."""
        ...

    def reset(self, seed: int | None = None) -> None:
        """Drop what is pending."""
        ...


class Mode(Enum):
    """What the controller is doing."""

    IDLE = "idle"
    """Not activated: there is nothing to send."""
    ACTIVE = "active"
    """Following the policy."""
    HOLDING = "holding"
    """Brought to rest on request, holding."""
    FAULT = "fault"
    """Safe stop after a fault; latched until `rearm`."""


class Actor(Enum):
    """Who acts in a policy step, where a person is at the controls; see `teleop.supervised`."""

    POLICY = "policy"
    OPERATOR = "operator"
    NOBODY = "nobody"
    """The robot holds its last sent command."""


@dataclass(frozen=True)
class Tick:
    """What one control tick decided.

    Attributes:
        mode: after the tick.
        command: joint targets to send (n,) [rad]; None when idle.
        nominal: joint targets before the filters; None unless active.
        certified: the filters' answer; None unless active.
        observation: the observation of a policy step that began with this tick.
        action: the nominal action of that step (Da,): the policy's, unless a person is at the controls.
        reason: why the mode is FAULT.
        actor: who acts; None without a person at the controls.
        policy_action: the policy's action of the running step (Da,), whoever acts, in the tick that learns of it.
        damping: the robot shall be damped: no stiffness, whatever `command` says.
        velocity: of the base, as the estimator has it (3,) [m/s]; None without one, or unless active.
    """

    mode: Mode
    command: Array | None = None
    nominal: Array | None = None
    certified: Certified | None = None
    observation: Array | None = None
    action: Array | None = None
    reason: str = ""
    actor: Actor | None = None
    policy_action: Array | None = None
    damping: bool = False
    velocity: Array | None = None


class Controller:
    """Runs a contract's policy on a robot.

    Args:
        contract: of the policy that `inference` runs.
        robot: the robot found.
        forward: its kinematics.
        inference: where chunks come from.
        chain: filters; default those that the robot declares.
        soft_start: time over which the speed limits open after activation [s]; drives that take impedance have no
            such limits: over this time, their targets go from where they are to what the policy wants.
        chunk_blend: policy steps before the end of a chunk at which the next is asked for, and over which it is gone
            over to; 0 asks at the end and changes at once.

    Raises:
        OneStrideError: the contract is for another robot, or a rate is not offered.
    """

    def __init__(
        self,
        contract: Contract,
        robot: RobotDescription,
        forward: ForwardKinematics,
        inference: Inference,
        *,
        chain: Chain | None = None,
        soft_start: float = 0.2,
        chunk_blend: int = 0,
    ) -> None:
        self.contract, self.robot = contract, robot
        self.period = 1.0 / _accepted_rate(contract, robot)
        self.estimator = BaseVelocityEstimator(robot, forward) if contract.needs_estimator else None
        self.observer = Observer(contract, forward, self.estimator)
        self.chain = chain or build_chain(contract, robot, forward)
        self._inference, self._mapper = inference, ActionMapper(contract, forward)
        self._executor = ChunkExecutor(contract.execution, chunk_blend)
        self._interpolator = Interpolator(contract.execution)
        self._stop, self._soft_start = safe_stop(robot, self.period), soft_start
        self._halt, self._halting = DecelerateAndHold(robot, self.period, hard=True), False
        self._ticks_per_step = contract.execution.ticks_per_step
        self.mode, self.reason = Mode.IDLE, ""

    def activate(self, now: float, measurement: Measurement, seed: int | None = None) -> None:
        """Begin from the measured pose.

        Args:
            now: monotonic clock [s].
            measurement: the newest.
            seed: start the policy's noise sequence anew.

        Raises:
            OneStrideError: a fault is latched, the robot is moving, a stream is missing or stale, or the pose is
                refused.
        """
        if self.mode is Mode.FAULT:
            raise OneStrideError(f"a fault is latched: {self.reason}; rearm first")
        if not self.at_rest:
            raise OneStrideError(f"cannot activate: the controller is {self.mode.value} and not at rest; hold first")
        missing = self.observer.missing_sources(measurement)
        if missing:
            raise OneStrideError(f"no live source for: {', '.join(missing)}")
        start = first_command(self.robot, measurement)
        state = ControlState(now, self.period, measurement, start)
        self.chain.begin(state)
        certified = self.chain.certify(state, start)
        if not certified.feasible:
            raise OneStrideError(f"cannot activate: {certified.reason}")
        refuse_pose(self.robot, measurement)
        self._begin(now, start, seed)

    def _begin(self, now: float, start: Array, seed: int | None) -> None:
        self.observer.reset()
        if self.estimator is not None:
            self.estimator.reset()
        self._executor.reset()
        self._inference.reset(seed)
        self.chain.counters.clear()
        self._sent, self._velocity, self._acceleration = start, np.zeros_like(start), np.zeros_like(start)
        self._interpolator.hold(start)
        self._start, self._halting = start, False
        self._ticks, self._activated = 0, now
        self._due_since: float | None = None
        self._requested = False
        self._inferences, self._monitored = 0, dict[str, float]()
        self.mode, self.reason = Mode.ACTIVE, ""

    def deactivate(self) -> None:
        """Go idle. A latched fault stays latched."""
        if self.mode is not Mode.FAULT:
            self.mode = Mode.IDLE

    def hold(self) -> None:
        """Bring the robot to rest and hold it."""
        if self.mode is Mode.ACTIVE:
            self._begin_stop()
            self.mode = Mode.HOLDING

    def fault(self, reason: str) -> None:
        """Latch a fault found outside the tick, such as a second writer on the command topic."""
        if self.mode in (Mode.ACTIVE, Mode.HOLDING):
            if self.mode is Mode.ACTIVE:
                self._begin_stop()
            self.mode, self.reason = Mode.FAULT, reason

    def rearm(self) -> None:
        """Clear a latched fault; the controller is idle afterwards and must be activated anew.

        Without a latched fault nothing happens: a running robot is not let go.

        Raises:
            OneStrideError: the safe stop has not come to rest yet.
        """
        if self.mode is Mode.FAULT:
            if not self.at_rest:
                raise OneStrideError("cannot rearm: the robot is still being brought to rest")
            self.mode, self.reason = Mode.IDLE, ""

    @property
    def at_rest(self) -> bool:
        """Whether the safe stop has come to rest."""
        return self.mode is Mode.IDLE or (self.mode is not Mode.ACTIVE and self._stop.at_rest)

    def tick(self, now: float, measurement: Measurement) -> Tick:
        """One control period.

        Args:
            now: monotonic clock [s].
            measurement: the newest of every stream.
        """
        if self.mode is Mode.IDLE:
            return Tick(Mode.IDLE)
        error = self._keep_account(lambda: self.chain.observe(self._state(now, measurement)))
        if self.mode is not Mode.ACTIVE:
            return self._stopping(now, measurement)
        if error:
            return self._faulted(now, measurement, error)
        try:
            if self.estimator is not None:
                self.estimator.follow(measurement)
            return self._following(now, measurement)
        except OneStrideError as error:
            return self._faulted(now, measurement, str(error))
        except Exception as error:  # whatever it is, the robot must be stopped
            return self._faulted(now, measurement, f"{type(error).__name__}: {error}")

    def _following(self, now: float, measurement: Measurement) -> Tick:
        error, observation, action = self._policy_step(now, measurement)
        if error:
            return self._faulted(now, measurement, error)
        state = self._state(now, measurement, observation)
        nominal = self._blended(self._nominal(), state.speed_scale)
        certified = self.chain.certify(state, nominal)
        if not certified.feasible:
            return self._faulted(now, measurement, certified.reason)
        velocity = None if self.estimator is None else self.estimator.velocity(measurement)
        self.chain.sent(state, certified.action)  # last of what may fail: what is remembered goes out
        self._remember(certified.action)
        return Tick(Mode.ACTIVE, certified.action, nominal, certified, observation, action, velocity=velocity)

    def _aim(self, target: Array) -> None:
        """Have the nominal command reach `target` (n,) [rad] by the end of the policy step."""
        self._interpolator.aim(target)
        self._halting = False

    def _hold_here(self) -> None:
        """Have the nominal command come to rest as soon as the joints' limits allow, until it is aimed again."""
        self._halt.begin(self._sent, self._velocity, self._acceleration)
        self._halting = True

    def _nominal(self) -> Array:
        if self._halting:
            self._interpolator.hold(self._halt.next())
        return self._interpolator.nominal()

    def _blended(self, nominal: Array, share: float) -> Array:
        """For drives that take impedance: on the way from the first command to `nominal` (n,) in the soft start."""
        if share == 1.0 or self.robot.command_mode != "impedance":
            return nominal
        return self._start + share * (nominal - self._start)

    def _state(self, now: float, measurement: Measurement, observation: Array | None = None) -> ControlState:
        waiting = 0.0 if self._due_since is None else now - self._due_since
        elapsed = now - self._activated + self.period
        scale = min(1.0, elapsed / self._soft_start) if self._soft_start > 0 else 1.0
        return ControlState(
            now,
            self.period,
            measurement,
            self._sent,
            waiting,
            scale,
            self._velocity,
            self._acceleration,
            observation,
            inferences=self._inferences,
            monitored=self._monitored,
        )

    def _policy_step(self, now: float, measurement: Measurement) -> tuple[str, Array | None, Array | None]:
        """Begin a policy step if one is due: an error, or the observation and action of the step begun."""
        if self._ticks > 0:
            self._ticks -= 1
            return "", None, None
        observation = None
        if self._due_since is None:
            observation = self.observer.build(measurement)
            if not np.isfinite(observation).all():
                return f"observation is not finite: {self._not_finite(observation)}", None, None
        error = self._renew_chunk(now, observation)
        if error or self._executor.empty:
            return error, observation, None
        action = self._executor.next()
        if not np.isfinite(action).all():
            return "policy action is not finite", observation, action
        self._aim(self._mapper.target(measurement, action, self._sent))
        self.observer.acted(action)
        self._ticks = self._ticks_per_step - 1
        return "", observation, action

    def _renew_chunk(self, now: float, observation: Array | None) -> str:
        """Ask for the next chunk when it is due, and take it when it has come; an error, if there is one."""
        if self._executor.due and not self._requested and observation is not None:
            self._inference.request(observation, self._executor.consumed)
            self._requested = True
        if self._executor.empty and self._due_since is None:
            self._due_since = now
        return self._take_chunk() if self._requested else ""

    def _take_chunk(self) -> str:
        prediction = self._inference.poll(PATIENCE * self.period if self._executor.empty else 0.0)
        if prediction is None:
            return ""
        self._due_since, self._requested = None, False
        if prediction.chunk is None:
            return f"inference failed: {prediction.error}"
        expected = (self.contract.execution.horizon, self.contract.action_size)
        if prediction.chunk.shape != expected:
            return f"inference failed: expected a chunk of shape {expected}, got {prediction.chunk.shape}"
        self._executor.load(prediction.chunk.astype(np.float64), prediction.requested_at)
        self._inferences += 1
        self._monitored = {reading.name: reading.value for reading in prediction.readings}
        return ""

    def _not_finite(self, observation: Array) -> str:
        names, order = self.contract.observation_names, self.contract.flat_order
        return names[order[int(np.argmin(np.isfinite(observation)))] % len(names)]

    def _faulted(self, now: float, measurement: Measurement, reason: str) -> Tick:
        self.fault(reason)
        return self._stopping(now, measurement)

    def _begin_stop(self) -> None:
        self._stop.begin(self._sent, self._velocity, self._acceleration)

    def _stopping(self, now: float, measurement: Measurement) -> Tick:
        command = self._stop.next()
        self._keep_account(lambda: self.chain.sent(self._state(now, measurement), command))
        self._remember(command)
        return Tick(self.mode, command, reason=self.reason, damping=self._stop.damping)

    def _keep_account(self, tell: Callable[[], None]) -> str:
        """Tell the chain something; what went wrong, if anything, which keeps no command of a stop from going out."""
        try:
            tell()
        except Exception as error:  # whatever it is, the robot must be stopped
            return f"{type(error).__name__}: {error}"
        return ""

    def _remember(self, command: Array) -> None:
        velocity = (command - self._sent) / self.period
        self._acceleration = (velocity - self._velocity) / self.period
        self._sent, self._velocity = command, velocity


def _accepted_rate(contract: Contract, robot: RobotDescription) -> float:
    differences = contract.differences(robot)
    if differences:
        raise OneStrideError(f"the policy does not fit robot {robot.id}: {'; '.join(differences)}")
    rate = contract.execution.control_rate
    low, high = robot.control_rates
    if rate is None or not low <= rate <= high:
        raise OneStrideError(f"robot {robot.id} takes commands at {low:g} to {high:g} Hz, the contract wants {rate}")
    return rate

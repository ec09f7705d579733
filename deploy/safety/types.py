"""What a filter is given and what it answers.

Two shapes of one idea. A `Filter` judges the action of one control tick. A `RowSource` states a claim as half-spaces
of commands, `matrix @ command <= bound`, computed for a whole batch of states at once: the node asks for one, the
tests that attack it for ten thousand. One filter, the projection, gathers every source's rows in one problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from onestride.deploy.sources import JOINTS
from onestride.hardware.state import Array, Measurement


@dataclass(frozen=True)
class Motion:
    """What rows are computed from; every array is (B, n), in the robot's joint order.

    Attributes:
        period: time until the next command [s].
        position: measured [rad].
        velocity: measured [rad/s].
        sent: the last command sent [rad], or [Nm] for a robot that takes efforts.
        sent_velocity: of the commands sent, over the last period [rad/s].
        sent_acceleration: of the commands sent, over the last two periods [rad/s^2].
        effort: measured [Nm]; None where the robot does not report it.
        speed_scale: fraction of the speed limits in force, below 1 during the soft start.
        now: the controller's monotonic clock [s].
        sampled: when `position` and the other measured values came, on that clock [s]; None = in this tick.
    """

    period: float
    position: Array
    velocity: Array
    sent: Array
    sent_velocity: Array
    sent_acceleration: Array
    effort: Array | None = None
    speed_scale: float = 1.0
    now: float = 0.0
    sampled: float | None = None


class Yield(IntEnum):
    """Which rows give way where not all can be kept: the highest first, `NEVER` not at all."""

    NEVER = 0
    TASK = 1
    ACCELERATION = 2
    JERK = 3


class Rows(NamedTuple):
    """A claim as half-spaces: `matrix @ command <= bound` for each row.

    Attributes:
        names: of the rules, one per row (m,).
        matrix: (B, m, n); rows of zeros with an infinite bound ask for nothing.
        bound: (B, m).
        yields: when these rows give way.
    """

    names: tuple[str, ...]
    matrix: Array
    bound: Array
    yields: Yield = Yield.NEVER


class Box(NamedTuple):
    """A claim as bounds on each joint's command: `low <= command <= high`.

    Attributes:
        name: of the rule.
        low: (B, n); -inf where there is none.
        high: (B, n); inf where there is none.
        yields: when these bounds give way.
        lasting: whether they stay where they are while the robot moves, as position limits do. How far a command is
            from them is worth reporting; how far it is from what one period allows is not.
    """

    name: str
    low: Array
    high: Array
    yields: Yield = Yield.NEVER
    lasting: bool = False


class RowSource(Protocol):
    """One safety idea as rows. It neither prints nor raises for a state it dislikes.

    `observe` and `sent` keep what the idea must remember (an energy tank, the last force); they are called once per
    control tick each, in every mode, also while the robot is brought to rest. `rows` changes nothing: it may be
    called any number of times in between.
    """

    @property
    def name(self) -> str:
        """Name in counters and reports."""
        ...

    def reset(self, motion: Motion) -> None:
        """Begin anew from this state, as at an activation."""
        ...

    def observe(self, motion: Motion) -> None:
        """See the state of a new tick, before anything is asked about it."""
        ...

    def rows(self, motion: Motion) -> tuple[Rows | Box, ...]:
        """The claim at this state; a state in which it cannot be kept gives contradictory rows."""
        ...

    def sent(self, motion: Motion, command: Array) -> None:
        """Learn which command (B, n) went out in this tick."""
        ...

    def readings(self) -> Mapping[str, float]:
        """What people watch, such as the energy left; of the batch's first state."""
        ...


@dataclass(frozen=True)
class ControlState:
    """What a filter may know at one control tick.

    Attributes:
        now: the controller's monotonic clock [s].
        period: time until the next command [s].
        measurement: the newest measurement of every stream.
        last_sent: the last command that went out (n,) [rad].
        waiting: how long a chunk has been due and missing [s].
        speed_scale: fraction of the speed limits in force, below 1 during the soft start.
        sent_velocity: of the commands sent, over the last period (n,) [rad/s]; None = at rest.
        sent_acceleration: of the commands sent, over the last two periods (n,) [rad/s^2]; None = none.
        observation: what the policy is asked with (To * Do,), in the ticks in which a policy step begins.
        inferences: chunks received since activation.
        monitored: what the policy computed beside the newest of them, by name.
    """

    now: float
    period: float
    measurement: Measurement
    last_sent: Array
    waiting: float = 0.0
    speed_scale: float = 1.0
    sent_velocity: Array | None = None
    sent_acceleration: Array | None = None
    observation: Array | None = None
    inferences: int = 0
    monitored: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def is_sound(self) -> bool:
        """Whether joint positions and velocities are numbers, one per joint."""
        position, velocity, shape = self.measurement.position, self.measurement.velocity, self.last_sent.shape
        if np.shape(position) != shape or np.shape(velocity) != shape:
            return False
        return bool(np.count_nonzero(np.isfinite(position) & np.isfinite(velocity)) == len(position))

    @cached_property
    def motion(self) -> Motion:
        """The same as a batch of one."""
        velocity, acceleration = self.sent_velocity, self.sent_acceleration
        velocity = np.zeros_like(self.last_sent) if velocity is None else velocity
        acceleration = np.zeros_like(self.last_sent) if acceleration is None else acceleration
        measured = self.measurement
        return Motion(
            self.period,
            measured.position[None],
            measured.velocity[None],
            self.last_sent[None],
            velocity[None],
            acceleration[None],
            None if measured.effort is None else measured.effort[None],
            self.speed_scale,
            self.now,
            measured.received.get(JOINTS.name),
        )


class Certified(NamedTuple):
    """A filter's answer.

    Attributes:
        action: the command that keeps the claim (n,) [rad]; meaningless unless `feasible`.
        feasible: whether the claim can be kept; if not, the controller goes to its safe stop.
        active: names of the rules that changed the nominal action.
        margin: smallest distance left to a limit, in that limit's unit; infinite where none applies.
        reason: why it is not feasible, for people.
        readings: what people watch, by name, such as `tank.energy`.
        warnings: names of what was found or done without a claim's need; counted as rules are, no intervention.
    """

    action: Array
    feasible: bool = True
    active: tuple[str, ...] = ()
    margin: float = float("inf")
    reason: str = ""
    readings: Mapping[str, float] = MappingProxyType({})
    warnings: tuple[str, ...] = ()


class Filter(Protocol):
    """One safety idea. It neither prints nor raises: what it cannot keep, it says in its answer."""

    @property
    def name(self) -> str:
        """Name in counters and reports."""
        ...

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """The closest action to `nominal` (n,) that keeps this filter's claim."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """A filter with a memory of earlier ticks. `certify` may be asked several times in a tick, and must not count."""

    def reset(self) -> None:
        """Forget, as at an activation."""
        ...


@runtime_checkable
class Follows(Protocol):
    """A filter that keeps account of the robot in every mode, also while it is brought to rest.

    `observe` and `sent` are called once per control tick each; not in a tick whose measurement is no state at all.
    """

    def begin(self, state: ControlState) -> None:
        """Begin anew from this state, as at an activation."""
        ...

    def observe(self, state: ControlState) -> None:
        """See the state of a new tick, before anything is asked about it."""
        ...

    def sent(self, state: ControlState, command: Array) -> None:
        """Learn which command (n,) went out in this tick."""
        ...

"""The two ports that an energy tank meters: of a robot that takes efforts, and of one that takes positions.

Both answer the same questions: what was delivered since the last tick, within which box the next command delivers no
more than is left whatever happens, and whether an assumption of that answer was seen broken. They hold parameters
only, so that one port serves any batch of states.

Between two joint samples any way may have been gone. So what several commands delivered is the most of all ways that
fit the samples, and what they may have delivered since the newest sample is taken off the next command's budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.safety.energy import (
    effort_reach,
    efforts_delivered,
    impedance_delivered,
    impedance_reach,
    impedance_stored,
    impedance_swing,
    shares,
)
from onestride.deploy.safety.held import Held
from onestride.deploy.safety.reach import stoppable_step
from onestride.deploy.safety.types import Box, Motion, Yield
from onestride.hardware.state import Array

#: Of a box: its low and its high end.
SIDES = np.array([-1.0, 1.0]).reshape(2, 1, 1)


@dataclass(frozen=True)
class Members:
    """Which joints belong to which port.

    Attributes:
        of: 1 where a joint belongs to a port (p, n); no joint belongs to two.
        weight: of each joint in what its port may spend freely (n,); a port's weights add up to 1.
        error: of a measured position, at most [rad].
        lateness: share of a period by which the next command may come late, and a sample with it.
    """

    of: Array
    weight: Array
    error: float = 0.0
    lateness: float = 0.0

    @cached_property
    def unmetered(self) -> Array:
        """What is added to a bound: infinity for joints that belong to no port, otherwise 0 (n,)."""
        return np.where(self.of.any(axis=0), 0.0, np.inf)

    @cached_property
    def unbounded(self) -> Array:
        """The same for the low and the high end of a box (2, 1, n)."""
        return np.where(self.of.any(axis=0), 0.0, SIDES * np.inf)


class Port(Protocol):
    """How energy leaves through a kind of drive."""

    @property
    def members(self) -> Members:
        """Its joints."""
        ...

    def delivered(self, held: Held, before: Array, after: Array) -> Array:
        """The most that each joint delivered under some commands between two measured positions (B, n) [J]."""
        ...

    def boxes(self, motion: Motion, held: Held, budget: Array) -> tuple[Box, ...]:
        """Commands that deliver no more than `budget` (B, p) [J], whatever happens.

        Args:
            motion: whose position is that of the newest sample.
            held: commands in force since that sample, of which it knows nothing.
            budget: left at that sample.
        """
        ...

    def effort(self, command: Array, motion: Motion) -> Array:
        """What the drive should apply (B, n) [Nm]."""
        ...

    def too_fast(self, velocity: Array, displacement: Array, seconds: float) -> NDArray[np.bool_] | bool:
        """Which joints moved faster than the claim allows (B, n): their speed, or the way between two samples."""
        ...


@dataclass(frozen=True)
class EffortPort:
    """Efforts held over the period.

    Claim: no command delivers more than is left before the next, at speeds up to `velocity`. Braking is reserved:
    what drives a joint may not use the energy with which every joint can be braked. A brake is charged only if the
    joint turns back within the period, and it is allowed no more effort than `damping` times the speed, so that a
    slow joint cannot be driven out of the reserve.

    Attributes:
        members: its joints.
        velocity: no joint ever moves faster (n,) [rad/s].
        braking: effort that must always be there to brake (n,) [Nm].
        damping: braking effort per speed, up to `braking` (n,) [Nm s/rad].
    """

    members: Members
    velocity: Array
    braking: Array
    damping: Array

    def delivered(self, held: Held, before: Array, after: Array) -> Array:
        """Effort times displacement; of several efforts, with what turning in between may have added (B, n) [J]."""
        return efforts_delivered(held.commands, self.velocity * held.seconds, after - before, self.members.error)

    def boxes(self, motion: Motion, held: Held, budget: Array) -> tuple[Box, ...]:
        """Each joint's share of the budget over its farthest travel, as efforts."""
        travel = self.velocity * (motion.period * (1.0 + self.members.lateness))
        unseen = (np.abs(held.commands) * (self.velocity * held.seconds)).sum(axis=0)
        budget = budget - unseen @ self.members.of.T
        free, whole = shares(budget, self.braking * travel, self.members.weight, self.members.of)
        present = np.minimum(self.braking, self.damping * np.abs(motion.velocity)) * travel
        drive = effort_reach(free, travel) + self.members.unmetered
        brake = effort_reach(free + np.minimum(whole - free, present), travel) + self.members.unmetered
        low = -np.where(motion.velocity > 0.0, brake, drive)
        return (Box("tank.energy", low, np.where(motion.velocity < 0.0, brake, drive)),)

    def effort(self, command: Array, motion: Motion) -> Array:  # noqa: ARG002  (an effort needs no state)
        """The command itself (B, n) [Nm]."""
        return command

    def too_fast(self, velocity: Array, displacement: Array, seconds: float) -> NDArray[np.bool_]:
        """Measured speed, or the way between two samples, beyond what the box reckons with; also if not a number."""
        near = np.abs(displacement) <= self.velocity * seconds + 2.0 * self.members.error
        return np.asarray(~(near & (np.abs(velocity) <= self.velocity)))


@dataclass(frozen=True)
class ImpedancePort:
    """Targets of springs with dampers, as position-controlled drives hold them.

    Claim: what the springs store once a command is set is no more than what is left. It holds at any speed, and as
    long as the command is held: a tank that allows a command allows it for as long as it stays. Held commands keep
    their share, so that stopping at once is always among what is allowed; stopping with the declared deceleration
    is so too, unless the robot is carried away from its command meanwhile.

    Before the next sample, a command that changes can be taken advantage of by a joint that swings out and back; only
    the damper limits by how much. Without damping, commands therefore stay as they are until the position is known.

    Attributes:
        members: its joints.
        stiffness: (n,) [Nm/rad].
        damping: of the joint's own speed, no more than the drive really has (n,) [Nm s/rad].
        deceleration: of commands, at a stop (n,) [rad/s^2].
    """

    members: Members
    stiffness: Array
    damping: Array
    deceleration: Array

    def delivered(self, held: Held, before: Array, after: Array) -> Array:
        """The springs' difference of potential, less what the dampers took at least (B, n) [J]."""
        (mean, variance), total = held.moments(), held.total
        swing = impedance_swing(self.stiffness, self.damping, total)
        direct = impedance_delivered(mean, before, after, self.stiffness, self.damping / total, self.members.error)
        return np.asarray(direct + 0.5 * self.stiffness * swing * variance)

    def boxes(self, motion: Motion, held: Held, budget: Array) -> tuple[Box, ...]:
        """As far around the measured position as the energy allows, and slow enough to stop in there."""
        members, sent = self.members, motion.sent
        mean, variance = held.moments()
        swing = impedance_swing(self.stiffness, self.damping, held.total)
        unseen = 0.5 * self.stiffness * swing * ((sent - mean) ** 2 + variance)
        stored = impedance_stored(sent - motion.position, self.stiffness, members.error) + unseen
        _, whole = shares(budget, stored, members.weight, members.of)
        ends = self._ends(motion, mean, swing, impedance_reach(whole, self.stiffness) ** 2 - swing * variance)
        stoppable = sent + stoppable_step(ends - sent, self.deceleration * motion.period**2)
        (low, high), (slowest, fastest) = ends + members.unbounded, stoppable + members.unbounded
        return Box("tank.energy", low, high), Box("tank.braking", slowest, fastest, Yield.ACCELERATION)

    def _ends(self, motion: Motion, mean: Array, swing: Array, most: Array) -> Array:
        """Commands for which `(c - position)^2 + swing * (c - mean)^2 <= most` (B, n) [rad^2], at both ends (2, B, n).

        Where there are none, only the command is left that comes closest to it; or where the error of the position
        makes several as good, that of them which is nearest to the last one.
        """
        share, error = 1.0 / (1.0 + swing), self.members.error
        away, hidden = motion.position - mean, share * error
        middle = mean + share * away
        left = share * (most - swing * share * (np.abs(away) + error) ** 2)
        reach = np.sqrt(np.maximum(left, 0.0)) - hidden
        least = np.minimum(np.maximum(motion.sent, middle - hidden), middle + hidden)
        return np.asarray(np.where((left >= 0.0) & (reach >= 0.0), middle + SIDES * reach, least))

    def effort(self, command: Array, motion: Motion) -> Array:
        """Spring and damper at a measured state (B, n) [Nm]."""
        return np.asarray(self.stiffness * (command - motion.position) - self.damping * motion.velocity)

    def too_fast(self, velocity: Array, displacement: Array, seconds: float) -> bool:  # noqa: ARG002  (no speed is)
        """Never: the claim holds at any speed."""
        return False

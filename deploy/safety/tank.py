"""Claim: the net energy through each metered port stays below what was declared, for any policy and surroundings.

A tank begins with `initial` energy at each activation. What a port delivers is drawn from it, by measured
displacement; what the surroundings put in is added, up to the capacity. The row allows a command only if the tank
stays above `minimum` whatever happens until the next one. Ticks that see no new joint sample meter nothing: what the
commands since the last one may have delivered is held back from the next. So from one activation to the next,

    energy delivered <= initial - minimum + refills

Assumes that commands are applied as metered from one tick to the next, that positions were so when they came, to the
declared error, and what the ports assume (`ports`). Gravity compensation lies outside the ports. What is seen to break
an assumption voids the claim: contradictory rows then name the port and ask for the safe stop, until the next reset.

Reference: arXiv:2503.00287 (passivity-ensured deployment); the metering and the worst-case row are our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.safety.energy import SMALLEST, effort_delivered
from onestride.deploy.safety.held import Held, Sent
from onestride.deploy.safety.ports import EffortPort, ImpedancePort, Members, Port
from onestride.deploy.safety.types import Box, Motion, Rows
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.energy import TankPort, TankRow
from onestride.hardware.state import Array

#: Energy [J] that a tank is taken to hold when a measurement was not a number: none, whatever is refilled.
UNKNOWN = -1e12

#: Different commands without a joint sample in between that are kept account of; after more, the claim is void.
MOST_UNSEEN = 200


class Refill(NamedTuple):
    """Energy that is granted again and again."""

    amount: Array
    """Of one (p,) [J]."""
    every: Array
    """How long after the one before, or after the reset (p,) [s]."""
    at_most: Array
    """How many between two resets (p,)."""

    def granted(self, elapsed: float) -> Array:
        """All that has been granted since the reset (p,) [J]."""
        return np.asarray(self.amount * np.minimum(np.floor(elapsed / self.every + 1e-9), self.at_most))


@dataclass(frozen=True)
class Budget:
    """What each port may spend.

    Attributes:
        names: of the ports (p,).
        initial: energy at a reset (p,) [J].
        minimum: that always remains (p,) [J].
        capacity: energy above it is lost (p,) [J].
        refill: declared grants; none by default.
    """

    names: tuple[str, ...]
    initial: Array
    minimum: Array
    capacity: Array
    refill: Refill | None = None

    @property
    def bound(self) -> Array:
        """The most that may ever be delivered between two resets (p,) [J]."""
        granted = 0.0 if self.refill is None else self.refill.amount * self.refill.at_most
        return np.asarray(self.initial - self.minimum + granted)

    def allowed(self, elapsed: float) -> Array:
        """The most that may be delivered within so much time from a reset (p,) [J]."""
        granted = 0.0 if self.refill is None else self.refill.granted(elapsed)
        return np.asarray(self.initial - self.minimum + granted)


class EnergyTank:
    """Meters the ports and bounds the commands; a `RowSource`.

    Args:
        port: how energy leaves.
        budget: how much may.
        measured: whether what was delivered is metered by the measured efforts: by the dearer of the two samples
            around a displacement. Otherwise by what the drive should have applied.
        tolerance: how far measured efforts may be from what the drive should apply [Nm]; None = not watched.
    """

    name = "tank"

    def __init__(self, port: Port, budget: Budget, *, measured: bool = False, tolerance: float | None = None) -> None:
        self.port, self.budget = port, budget
        self._measured, self._tolerance = measured, tolerance
        self._of = port.members.of
        self.energy = budget.initial[None]

    def reset(self, motion: Motion) -> None:
        """Fill the tanks for this batch of states; the command in force is the last one sent."""
        self.energy = np.repeat(self.budget.initial[None], len(motion.position), axis=0)
        self._before, self._seen, self._clock = motion, motion, 0.0
        self._seen_at = -_age(motion)
        self._sent = Sent(motion.sent, motion.period * self.port.members.lateness)
        self._elapsed, self._granted = 0.0, np.zeros_like(self.budget.initial)
        self._too_fast, self._not_applied, self._unseen = (np.zeros(motion.position.shape, bool) for _ in range(3))

    def observe(self, motion: Motion) -> None:
        """Draw what was delivered since the last joint sample, and see whether the claim still stands."""
        self._clock += max(motion.now - self._before.now, self._before.period)
        left = self.energy + self._grant(motion.period)
        if _is_newer(motion, self._seen):
            left -= self._drawn(motion) @ self._of.T
        self.energy = np.fmax(np.minimum(left, self.budget.capacity), UNKNOWN)
        self._before = motion

    def rows(self, motion: Motion) -> tuple[Rows | Box, ...]:
        """Commands that the tanks can pay whatever happens; contradictory where the claim is void."""
        if motion.position is not self._seen.position:
            motion = replace(motion, position=self._seen.position)
        held = self._sent.between(self._seen_at, self._clock)
        boxes = self.port.boxes(motion, held, self.energy - self.budget.minimum)
        seen = self._too_fast.any() or self._not_applied.any() or self._unseen.any()
        return (*boxes, self._void_rows()) if seen else boxes

    def sent(self, motion: Motion, command: Array) -> None:  # noqa: ARG002  (`observe` has seen the state)
        """The command (B, n) that is in force until the next tick."""
        if len(self._sent) > MOST_UNSEEN:
            self._unseen[:] = True
            self._sent.forget(self._clock)
        self._sent.add(command, self._clock)

    def readings(self) -> Mapping[str, float]:
        """Energy left in each port's tank [J]."""
        return {f"tank.{name}": float(energy) for name, energy in zip(self.budget.names, self.energy[0], strict=True)}

    @property
    def void(self) -> NDArray[np.bool_]:
        """Which states' claim is void (B,), as booleans."""
        seen = self._too_fast | self._not_applied | self._unseen
        return np.asarray((seen & (self._of > 0.0).any(axis=0)).any(axis=1))

    def _drawn(self, motion: Motion) -> Array:
        """What each joint delivered from the last sample to this one, at most (B, n) [J]."""
        before, now = self._seen_at, self._clock - _age(motion)
        start = min(before, now - self._before.period)  # samples that came in one bunch were not taken in one
        held, lateness = self._sent.between(start, now), self._before.period * self.port.members.lateness
        self._watch(motion, held, now - start + lateness)
        drawn = self._delivered(motion, held)
        self._seen, self._seen_at = motion, now
        self._sent.forget(now - motion.period)
        return drawn

    def _delivered(self, motion: Motion, held: Held) -> Array:
        if self._measured and len(held.commands) == 1:
            return self._measured_work(motion)
        delivered = self.port.delivered(held, self._seen.position, motion.position)
        return np.maximum(delivered, self._measured_work(motion)) if self._measured else delivered

    def _measured_work(self, motion: Motion) -> Array:
        displacement, error = motion.position - self._seen.position, self.port.members.error
        now, before = self._reported(motion), self._reported(self._seen)
        dearer = np.maximum(effort_delivered(now, displacement, error), effort_delivered(before, displacement, error))
        return np.asarray(dearer)

    def _reported(self, motion: Motion) -> Array:
        return np.full_like(motion.position, np.nan) if motion.effort is None else motion.effort

    def _grant(self, period: float) -> Array | float:
        if self.budget.refill is None:
            return 0.0
        self._elapsed += period
        before, self._granted = self._granted, self.budget.refill.granted(self._elapsed)
        return self._granted - before

    def _watch(self, motion: Motion, held: Held, seconds: float) -> None:
        self._too_fast |= self.port.too_fast(motion.velocity, motion.position - self._seen.position, seconds)
        if self._measured or self._tolerance is not None:
            allowed = np.inf if self._tolerance is None else self._tolerance
            applied = np.abs(self._reported(motion) - self.port.effort(held.commands, motion)).min(axis=0)
            self._not_applied |= ~(applied <= allowed)  # also where nothing is reported

    def _void_rows(self) -> Rows:
        found = (self._too_fast, self._not_applied, self._unseen)
        causes = np.concatenate([joints @ self._of.T for joints in found], axis=1)
        seen = ("too_fast", "effort_not_as_metered", "unseen")
        names = [f"tank.{name}.{cause}" for cause in seen for name in self.budget.names]
        nothing = np.zeros((*causes.shape, self._of.shape[1]))
        return Rows(tuple(names), nothing, np.where(causes > 0.0, -1.0, np.inf))


def _age(motion: Motion) -> float:
    """Of a state's sample [s]."""
    return 0.0 if motion.sampled is None else max(motion.now - motion.sampled, 0.0)


def _is_newer(motion: Motion, than: Motion) -> bool:
    """Whether a state has another sample than an earlier one."""
    return motion.sampled is None or than.sampled is None or motion.sampled > than.sampled


def make_tank(row: TankRow, robot: RobotDescription) -> EnergyTank:
    """The tank that a robot declares.

    Raises:
        OneStrideError: a joint is not the robot's, or one whose speed is not limited shall be metered by its effort.
    """
    indices = [robot.indices(port.joints) for port in row.ports]
    of = np.zeros((len(row.ports), len(robot.joints)))
    for members, joints in zip(of, indices, strict=True):
        members[joints] = 1.0
    makes = _effort_port if row.drive == "effort" else _impedance_port
    tolerance, measured = row.effort_tolerance, row.meter == "measured"
    return EnergyTank(makes(row, robot, of), _budget(row.ports), measured=measured, tolerance=tolerance)


def _effort_port(row: TankRow, robot: RobotDescription, of: Array) -> EffortPort:
    speed = np.where(of.any(axis=0), robot.velocity_limits, 1.0)
    if not np.isfinite(speed).all():
        joint = robot.joint_names[int(np.argmax(~np.isfinite(speed)))]
        raise OneStrideError(f"tank: expected a speed limit of {joint}, which is metered by its effort; got none")
    braking = _by_joint(row.ports, robot, [port.braking for port in row.ports])
    damping = _by_joint(row.ports, robot, [port.braking_damping for port in row.ports])
    weights = _by_joint(row.ports, robot, [port.weights for port in row.ports], usual=braking * speed)
    return EffortPort(_members(row, of, weights), speed, braking, damping)


def _impedance_port(row: TankRow, robot: RobotDescription, of: Array) -> ImpedancePort:
    weights = _by_joint(row.ports, robot, [port.weights for port in row.ports], usual=np.ones(of.shape[1]))
    stiffness = np.array([joint.stiffness for joint in robot.joints])
    damping = np.array([joint.damping for joint in robot.joints]) * (row.damping == "credited")
    return ImpedancePort(
        _members(row, of, weights), stiffness, damping, np.full_like(stiffness, robot.safe_stop.deceleration)
    )


def _members(row: TankRow, of: Array, weights: Array) -> Members:
    weights = weights * of.any(axis=0)
    return Members(of, weights / np.maximum(weights @ of.T @ of, SMALLEST), row.position_error, row.lateness)


def _by_joint(
    ports: tuple[TankPort, ...],
    robot: RobotDescription,
    values: list[tuple[float, ...] | None],
    usual: Array | None = None,
) -> Array:
    """Values of the ports' joints in the robot's order (n,); the usual ones where a port states none."""
    by_joint = np.zeros(len(robot.joints)) if usual is None else np.array(usual, dtype=float)
    for port, stated in zip(ports, values, strict=True):
        if stated is not None:
            by_joint[robot.indices(port.joints)] = stated
    return by_joint


def _budget(ports: tuple[TankPort, ...]) -> Budget:
    energies = np.array([(port.initial, port.minimum, port.capacity) for port in ports]).T
    granted = np.array([(r.amount, r.every, r.at_most) if (r := port.refill) else (0.0, 1.0, 0) for port in ports]).T
    refill = Refill(*granted) if any(port.refill for port in ports) else None
    initial, minimum, capacity = energies
    return Budget(tuple(port.name for port in ports), initial, minimum, capacity, refill)

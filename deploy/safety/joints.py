"""Claim: every command sent keeps the joints' position, speed, acceleration and jerk limits, and the way to stop.

All of them are limits of the commands, as differences of those sent. A command is permitted if the declared safe
stop, begun right after it, ends inside the position limits; the stop's own next command is therefore always
permitted, whatever was sent before, and no row of a joint contradicts another. Assumes that commands are sent once a
period and that the drives follow them: the measured joint may lag, what is bounded is the command.

Where other claims leave no such command, jerk gives way first, then acceleration. Position, speed and a stop that
brakes at once with the declared deceleration are kept in any case; the declared stop then keeps its deceleration, and
its jerk as far as that leaves the room.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.safety.braking import Worst
from onestride.deploy.safety.reach import Limits, largest_change, stoppable_step, stopping_change, stopping_distance
from onestride.deploy.safety.types import Box, Motion, Rows, Yield
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array


def joint_limits(robot: RobotDescription, period: float) -> Limits:
    """What the robot's joints may do in one period.

    A joint without a limit gets one so large that it never binds: its whole range in one step, and from one extreme
    to the other in the derivatives of that.
    """
    lower, upper = robot.position_limits
    moves = np.isfinite(robot.velocity_limits)
    speed = np.minimum(robot.velocity_limits * period, upper - lower)
    acceleration = np.minimum(robot.acceleration_limits * period**2, 2.0 * speed)
    braking = np.where(moves, np.minimum(robot.safe_stop.deceleration * period**2, acceleration), acceleration)
    return Limits(speed, acceleration, braking, np.minimum(robot.jerk_limits * period**3, 2.0 * acceleration))


class Reserve(NamedTuple):
    """From where on limits must be reckoned with; further away they cannot bind, which is cheap to see.

    Attributes:
        speed: change of speed that letting go of the largest acceleration takes (n,) [rad]; -inf without that limit.
        distance: the longest way of one step and the stop after it (n,) [rad]; -inf without a speed limit.
        stop: a bound on that way for any step.
        unlimited: infinity for a joint without a speed limit, otherwise 0 (n,) [rad].
    """

    speed: Array
    distance: Array
    stop: Worst
    unlimited: Array

    @classmethod
    def of(cls, limits: Limits, robot: RobotDescription) -> Reserve:
        """The reserve that these limits of a robot need."""
        periods = limits.acceleration / limits.jerk + 1.0
        stop = stopping_distance(limits.speed, np.zeros_like(limits.speed), limits)
        return cls(
            np.where(np.isfinite(robot.acceleration_limits), limits.acceleration * periods, -np.inf),
            np.where(np.isfinite(robot.velocity_limits), (periods + 2.0) * limits.speed + stop, -np.inf),
            Worst.of(limits),
            np.where(np.isfinite(robot.velocity_limits), 0.0, np.inf),
        )

    def tight(self, room: Array, step: Array, change: Array) -> NDArray[np.bool_]:
        """Where a step, `change` longer than the last, may lead out of `room` before it is stopped, all (..., n)."""
        ahead = np.maximum(step, 0.0)
        return (room < self.distance) & (room < ahead + self.stop.overshoot(ahead, change))


def jerk_box(room: Array | None, v: Array, a: Array, limits: Limits, reserve: Reserve) -> tuple[Array, Array]:
    """The changes of step that keep jerk and acceleration, now and until the joint has stopped.

    Only the joints, and of them the sides, that come near a limit are looked at closely. One that is held at its
    limit is not: its stop's change is 0, and no larger one than what is left of the room can be permitted.

    Args:
        room: distances to the lower and to the upper position limit (2, B, n) [rad]; None where both are far.
        v: the last step (B, n) [rad].
        a: the last change of step (B, n) [rad].
        limits: of the joints.
        reserve: from where on position and speed limits are reckoned with.

    Returns:
        Least and largest change (B, n) [rad]; the stop's own change is always between them.
    """
    v, a = SIDES * v, SIDES * a
    ends = np.minimum(a + limits.jerk, limits.acceleration)
    close = (v + reserve.speed > limits.speed) | (np.abs(a) > limits.acceleration)
    if room is not None:
        tight = reserve.tight(room, v + ends, ends)
        if np.count_nonzero(tight):
            held = (room <= HELD) & (v == 0.0) & (a == 0.0)
            np.copyto(ends, 0.0, where=held & tight)
            tight &= ~held
        room, close = room if np.count_nonzero(tight) else None, close | tight
    if np.count_nonzero(close):
        _closely(np.flatnonzero(close), room, (v, a, ends), limits)
    return -ends[0], ends[1]


def _closely(which: NDArray[np.intp], room: Array | None, sides: tuple[Array, Array, Array], limits: Limits) -> None:
    """Shorten the largest changes (2, B, n) [rad], the last of `sides`, where it matters."""
    some = Limits(*(limit[which % limits.speed.size] for limit in limits))
    v, a, most = (one.ravel()[which] for one in sides)
    sides[-1].ravel()[which] = _largest(None if room is None else room.ravel()[which], v, a, most, some)


def _largest(room: Array | None, v: Array, a: Array, most: Array, limits: Limits) -> Array:
    """The largest change upwards (k,) [rad], `most` or less, after which speed and position limits can be kept."""
    stop = stopping_change(v, a, limits)
    most = np.maximum(np.minimum(most, stoppable_step(limits.speed - v, limits.jerk)), stop)
    return most if room is None else largest_change(room, v, stop, most, limits)


#: Signs of the lower and the upper side (2, 1, 1).
SIDES = np.array([-1.0, 1.0]).reshape(2, 1, 1)

#: A joint at rest with no more room than this [rad] is held at its limit.
HELD = 1e-15


class JointLimits:
    """States the joints' limits as boxes of commands."""

    name = "joints"
    claim = "position, speed, acceleration and jerk of commands, and the way to stop (proved for the commands)"

    def __init__(self, robot: RobotDescription) -> None:
        self._robot = robot
        self._lower, self._upper = robot.position_limits
        self._lowest, self._highest = self._lower[None], self._upper[None]
        self._edges = np.stack([-self._lowest, self._highest])
        self._accelerations = bool(np.isfinite(robot.acceleration_limits).any())
        self._jerks = bool(np.isfinite(robot.jerk_limits).any())
        self._period = 0.0

    def reset(self, motion: Motion) -> None:
        """Nothing is remembered: the state knows what was sent."""

    def observe(self, motion: Motion) -> None:
        """Nothing is remembered."""

    def sent(self, motion: Motion, command: Array) -> None:
        """Nothing is remembered."""

    def readings(self) -> Mapping[str, float]:
        """Nothing to watch."""
        return {}

    def rows(self, motion: Motion) -> tuple[Rows | Box, ...]:
        """Position, speed and stopping; acceleration and jerk where they are declared."""
        limits, sent = self._limits_of(motion), motion.sent
        room = self._edges - SIDES * sent
        near = np.count_nonzero(room < self._reserve.distance) > 0
        boxes = [
            Box("position", *self._positions(len(sent)), lasting=True),
            Box("velocity", sent - limits.speed, sent + limits.speed),
        ]
        if near:  # the steps to either side (2, B, n) from which braking ends in time
            down, up = stoppable_step(room, limits.braking) + self._reserve.unlimited
            boxes.append(Box("stopping", sent - down, sent + up))
        if self._accelerations:
            boxes.extend(self._comfort(motion, limits, room if near else None))
        return tuple(boxes)

    def _comfort(self, motion: Motion, limits: Limits, room: Array | None) -> list[Box]:
        """Acceleration and jerk, which give way to other claims; `room` as `jerk_box` has it."""
        period = motion.period
        v, a = motion.sent_velocity * period, motion.sent_acceleration * period**2
        ahead = motion.sent + v
        boxes = [Box("acceleration", ahead - limits.acceleration, ahead + limits.acceleration, Yield.ACCELERATION)]
        if self._jerks:
            least, most = jerk_box(room, v, a, limits, self._reserve)
            boxes.append(Box("jerk", ahead + least, ahead + most, Yield.JERK))
        return boxes

    def _limits_of(self, motion: Motion) -> Limits:
        if motion.period != self._period:
            self._period, self._full = motion.period, joint_limits(self._robot, motion.period)
            self._reserve = Reserve.of(self._full, self._robot)
        if motion.speed_scale == 1.0:
            return self._full
        return self._full._replace(speed=self._full.speed * motion.speed_scale)

    def _positions(self, batch: int) -> tuple[Array, Array]:
        if len(self._lowest) != batch:
            self._lowest, self._highest = (np.tile(limit, (batch, 1)) for limit in (self._lower, self._upper))
        return self._lowest, self._highest

"""No claim of its own: makes nominal commands reachable, so that limits of acceleration and jerk do no harm.

A command that is merely clipped to such limits flies past a nominal command that stops, turns round too late again,
and swings for ever. Here a joint that cannot be where it should be comes nearer as fast as it can still stop beside
the nominal command, which is taken to go on as it has moved in the last two periods. A joint that is where it should
be, and can be where it should be next, is passed on untouched. As no claim is kept by it, it is counted
(`approach.slowed`), but no intervention.
"""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.braking import Worst
from onestride.deploy.safety.joints import Reserve, jerk_box, joint_limits
from onestride.deploy.safety.reach import Limits, largest_change, rest, stopping_change
from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array

#: Nearer than this [rad] a command is where its nominal is.
THERE = 1e-7


class Approach:
    """Nears nominal commands without overshooting them, where a joint's acceleration is limited."""

    name = "approach"
    claim = "none: it makes nominal commands reachable"

    def __init__(self, robot: RobotDescription) -> None:
        self._robot = robot
        self._limited = np.isfinite(robot.acceleration_limits)
        self._needed = bool(self._limited.any())
        self._lower, self._upper = robot.position_limits
        self._period = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget the nominal commands so far."""
        self._state: ControlState | None = None
        self._inside: Array | None = None
        self._moved: Array | None = None

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """`nominal` (n,), or on the way to it."""
        if not self._needed or state is self._state:
            return Certified(nominal)  # asked again, about what will be sent
        before, moved = self._inside, self._moved
        if before is None or moved is None:
            before, moved = state.last_sent, np.zeros_like(nominal)
        inside = np.minimum(np.maximum(nominal, self._lower), self._upper)  # further it cannot come
        self._state, self._inside, self._moved = state, inside, inside - before
        self._prepare(state)
        nearer = None
        if not self._in_reach(state, before, inside):
            nearer = self._nearer(state, before, inside, _steady(moved, self._moved))
        return Certified(nominal) if nearer is None else Certified(nearer, warnings=("slowed",))

    def _prepare(self, state: ControlState) -> None:
        if state.period != self._period:
            limits, self._period = joint_limits(self._robot, state.period), state.period
            self._full = limits._replace(braking=limits.acceleration)
            self._reserve = Reserve.of(self._full, self._robot)
        self._limits = self._full
        if state.speed_scale != 1.0:
            self._limits = self._full._replace(speed=self._full.speed * state.speed_scale)

    def _in_reach(self, state: ControlState, before: Array, nominal: Array) -> bool:
        """Whether every joint plainly is where it should be and can be where it should be next: almost always."""
        limits, period = self._limits, state.period
        v, a = state.motion.sent_velocity[0] * period, state.motion.sent_acceleration[0] * period**2
        wanted = nominal - state.last_sent - v
        reachable = (np.abs(wanted - a) <= limits.jerk) & (np.abs(wanted) <= limits.acceleration)
        there = (np.abs(before - state.last_sent) <= THERE) & (np.abs(v) + self._reserve.speed <= limits.speed)
        return bool(np.count_nonzero(reachable & there) == v.size)

    def _nearer(self, state: ControlState, before: Array, nominal: Array, moving: Array) -> Array | None:
        """A command on the way to `nominal` (n,), which was `before` and is `moving`; None where it is in reach."""
        motion, limits, period = state.motion, self._limits, state.period
        v, a = motion.sent_velocity * period, motion.sent_acceleration * period**2
        least, most = jerk_box(None, v, a, limits, self._reserve)
        wanted = nominal - motion.sent - v
        there = (np.abs(before - motion.sent) <= THERE) & (wanted >= least - THERE) & (wanted <= most + THERE)
        far = (self._limited & ~there)[0].nonzero()[0]
        if not len(far):
            return None
        some, seen = Limits(*(limit.take(far) for limit in limits)), (motion.sent, v, a, least, most)
        sent, v, a, least, most = (one[0].take(far) for one in seen)
        moving = np.minimum(np.maximum(moving.take(far), -some.speed), some.speed)
        change = approaching(nominal.take(far) - moving - sent, v - moving, a, (least, most), some)
        nearer = nominal.copy()
        nearer[far] = sent + v + change
        return nearer


def approaching(room: Array, v: Array, a: Array, ends: tuple[Array, Array], limits: Limits) -> Array:
    """The change of step between two ends after which a stop comes to rest at `room`, all as seen from there (k,).

    Where the bound of `braking` already says that no stop comes as far as `room`, whatever else is permitted, the
    end on that side is the answer, and the stop itself need not be worked out.

    Args:
        room: to where the joint shall come to rest (k,) [rad].
        v: the last step (k,) [rad].
        a: the last change of step (k,) [rad].
        ends: least and largest change permitted (k,) [rad].
        limits: of the joints.
    """
    least, most = ends
    side = np.copysign(1.0, room)
    end, away, worst = np.where(room > 0.0, most, -least), np.abs(room), Worst.of(limits)
    ahead = side * v + end
    nearer = np.maximum(np.maximum(ahead, 0.0) + worst.overshoot(ahead, end), worst.overshoot(v, a))
    if np.count_nonzero(nearer < away) == away.size:
        return np.asarray(side * end)
    stop = np.minimum(np.maximum(stopping_change(v, a, limits), least), most)
    side = np.where(room >= rest(v, a, limits), 1.0, -1.0)
    end = np.where(side > 0.0, most, -least)
    return side * largest_change(side * room, side * v, side * stop, end, limits)


def _steady(before: Array, now: Array) -> Array:
    """What two motions (n,) have in common: a jump is none."""
    return np.where(before * now > 0.0, np.sign(now) * np.minimum(np.abs(before), np.abs(now)), 0.0)

"""A stream of joint targets for a driver that takes trajectories: short ones, each replaced before it has ended.

Every period sends one of two points. The first lies ahead of now by more than a period, where the target will be if it
keeps its speed, *with* that speed; so the spline that the joint_trajectory_controller puts through it does not slow
down before the next one replaces it. The second brings the joints to rest, because the controller refuses
trajectories that end in motion; it is reached only when nothing replaces it any more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

import numpy as np

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

#: How far the first point lies ahead, in periods: one may be late by half a period without the joints slowing down.
AHEAD = 1.5

#: A target that comes later than this many periods after the last begins a new stream: its joints stand still, because
#: nobody knows how they moved in the meantime.
GAP = 3.0

#: Intervals by which the rate of the targets is measured, and how far it may be from the declared one.
INTERVALS, OFF = 20, 1.25


@dataclass(frozen=True)
class Point:
    """One point of a trajectory.

    Attributes:
        positions: of every joint (k,) [rad].
        velocities: of every joint (k,) [rad/s].
        time_from_start: after the trajectory's beginning [s].
    """

    positions: Array
    velocities: Array
    time_from_start: float


@dataclass(frozen=True)
class Trajectory:
    """What goes into a `trajectory_msgs/msg/JointTrajectory` whose stamp is zero: it begins when it arrives.

    Attributes:
        joints: all joints of the controller, named.
        points: in order of time.
    """

    joints: tuple[str, ...]
    points: tuple[Point, ...]


class TrajectoryStream:
    """Makes trajectories of successive targets.

    Args:
        robot: whose joints.
        joints: those of the controller, in its order.
        period: between two targets [s].

    Raises:
        OneStrideError: a joint is not the robot's, or has no limits of speed and braking to come to rest by.
    """

    def __init__(self, robot: RobotDescription, joints: tuple[str, ...], period: float) -> None:
        if not period > 0.0:
            raise OneStrideError(f"expected a period > 0 s, got {period}")
        at = robot.indices(joints)
        self._joints, self._period = joints, period
        self._lower, self._upper = (limits[at] for limits in robot.position_limits)
        self._speed = robot.velocity_limits[at]
        if not (np.isfinite(self._speed).all() and np.isfinite(robot.safe_stop.deceleration)):
            raise OneStrideError(f"robot {robot.id}: expected joints with limits of speed and braking, got {joints}")
        self._braking = robot.safe_stop.deceleration
        self._last, self._heard = np.zeros(len(at)), float("-inf")
        self._intervals: deque[float] = deque(maxlen=INTERVALS)

    def next(self, target: Array, now: float) -> Trajectory:
        """The trajectory to send for a target (k,) [rad], in the controller's order, that came at `now` [s].

        Raises:
            OneStrideError: it has another length, is not finite, or is further from the last one than the joints may
                move. Then nothing is sent: the joints come to rest, until targets come back or begin anew.
        """
        since, self._heard = now - self._heard, now
        if np.shape(target) != self._lower.shape or not np.isfinite(target).all():
            raise OneStrideError(
                f"expected {len(self._joints)} finite joint targets, got {np.asarray(target).tolist()}"
            )
        if since > GAP * self._period:
            self._last, elapsed = np.array(target), self._period
        else:
            elapsed = self._period * max(1, round(since / self._period))  # some targets may have been lost
        step, self._last = self._step(target, elapsed), np.array(target)
        self._intervals.append(since)
        return self._trajectory(target, np.clip(step / elapsed, -self._speed, self._speed))

    def _step(self, target: Array, elapsed: float) -> Array:
        """How far the target has moved (k,) [rad]; refused where that takes longer, with a period for lateness."""
        step: Array = target - self._last
        far = np.abs(step) > self._speed * (elapsed + self._period)
        if far.any():
            joint = int(far.argmax())
            raise OneStrideError(
                f"expected targets that move no faster than the joints may, got {self._joints[joint]} "
                f"{step[joint]:+.3f} rad in {elapsed:g} s; a new stream begins {GAP:g} periods after the last target"
            )
        return step

    @property
    def disagreement(self) -> str:
        """What is wrong with the declared period, by when the targets came; empty where it is right."""
        if len(self._intervals) < INTERVALS:
            return ""
        ratio = median(self._intervals) / self._period
        if 1 / OFF < ratio < OFF:
            return ""
        return f"expected {1 / self._period:g} targets per second, got {1 / (ratio * self._period):.0f}"

    def _trajectory(self, target: Array, speed: Array) -> Trajectory:
        ahead = AHEAD * self._period
        moving = self._point(target + ahead * speed, speed, ahead)
        stopping = float(np.abs(moving.velocities).max(initial=0.0)) / self._braking
        if stopping == 0.0:
            return Trajectory(self._joints, (moving,))
        rest = moving.positions + 0.5 * stopping * moving.velocities
        return Trajectory(self._joints, (moving, self._point(rest, np.zeros_like(speed), ahead + stopping)))

    def _point(self, positions: Array, velocities: Array, time: float) -> Point:
        """A point inside the position limits; a joint that would have left them stands at its limit."""
        inside = np.clip(positions, self._lower, self._upper)
        return Point(inside, np.where(inside == positions, velocities, 0.0), time)

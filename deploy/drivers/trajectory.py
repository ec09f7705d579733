"""A stream of joint targets for a driver that takes trajectories: short ones, each replaced before it has ended.

Every period sends one of two points. The first lies ahead of now by more than a period, where the target will be if it
keeps its speed, *with* that speed; so the spline that the joint_trajectory_controller puts through it does not slow
down before the next one replaces it. The second brings the joints to rest, because the controller refuses
trajectories that end in motion; it is reached only when nothing replaces it any more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

#: How far the first point lies ahead, in periods: one may be late by half a period without the joints slowing down.
AHEAD = 1.5


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
        self._last: Array | None = None

    def reset(self) -> None:
        """Forget the last target: the next one is taken to stand still."""
        self._last = None

    def next(self, target: Array) -> Trajectory:
        """The trajectory to send for a target (k,) [rad], in the controller's order.

        Raises:
            OneStrideError: it has another length or is not finite.
        """
        if np.shape(target) != self._lower.shape or not np.isfinite(target).all():
            raise OneStrideError(
                f"expected {len(self._joints)} finite joint targets, got {np.asarray(target).tolist()}"
            )
        last = target if self._last is None else self._last
        self._last = np.array(target)
        speed = np.clip((target - last) / self._period, -self._speed, self._speed)
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

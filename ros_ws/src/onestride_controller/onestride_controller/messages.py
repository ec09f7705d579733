"""What messages say: one reader for each kind of stream, from ROS conventions to this project's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64, Float64MultiArray

from onestride.deploy import sources
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import unknown
from onestride.hardware.state import Array, Inertial, Pose

#: The frame that poses of objects are in, as messages name it.
WORLD = "world"

#: The forces on the feet, which not every robot reports.
FEET = sources.Stream("vector", "foot_forces", required=False)

Read = Callable[[Any], Any]
"""Turns a message into a value; raises `ValueError` with the reason for one that is not to be taken."""


def endpoint(stream: sources.Stream, robot: RobotDescription) -> tuple[Any, str, Read]:
    """Message type, usual topic and reader of a stream.

    Raises:
        OneStrideError: nothing is known of that vector.
    """
    if stream.kind == "vector":
        return _vector(stream.name, robot)
    known: dict[str, tuple[Any, str, Read]] = {
        "joints": (JointState, "joint_states", JointReader(robot.joint_names)),
        "imu": (Imu, "imu", partial(_inertial, None if robot.base is None else robot.base.imu_frame)),
        "object": (PoseStamped, f"objects/{stream.name}/pose", _pose),
        "scalar": (Float64, stream.name, _scalar),
    }
    return known[stream.kind]


def _vector(name: str, robot: RobotDescription) -> tuple[Any, str, Read]:
    feet = 0 if robot.base is None else len(robot.base.feet)
    known: dict[str, tuple[Any, str, Read]] = {
        sources.ODOMETRY.name: (TwistStamped, "odometry/twist", _base_velocity),
        sources.COMMAND.name: (Twist, "cmd_vel", _velocity_command),
        FEET.name: (Float64MultiArray, "foot_forces", partial(_forces, feet)),
    }
    if name not in known:
        raise unknown("vector", name, known)
    return known[name]


class JointReader:
    """Position, velocity and effort of the robot's joints, by name, from whatever order the driver publishes."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._wanted, self._seen = names, [""]
        self._order: list[int] = []

    def __call__(self, message: Any) -> tuple[Array, Array, Array | None]:
        """Positions (n,) [rad], velocities (n,) [rad/s] and efforts (n,) [Nm] in the robot's order.

        Efforts are None where the driver reports none: no numbers at all, or some that are none, as
        joint_state_broadcaster has them for joints without a sensor.

        Raises:
            ValueError: names are missing, or there is not one position and velocity per name.
        """
        if message.name != self._seen:
            self._order = self._places(message.name)
            self._seen = list(message.name)
        if not len(message.position) == len(message.velocity) == len(self._seen):
            raise ValueError("not one position and velocity per name")
        return np.array(message.position)[self._order], np.array(message.velocity)[self._order], self._effort(message)

    def _effort(self, message: Any) -> Array | None:
        if len(message.effort) != len(self._seen):
            return None
        effort = np.array(message.effort)[self._order]
        return effort if np.isfinite(effort).all() else None

    def _places(self, names: list[str]) -> list[int]:
        if not names:
            raise ValueError("empty name")
        missing = [name for name in self._wanted if names.count(name) != 1]
        if missing:
            raise ValueError(f"expected once each: {', '.join(missing)}")
        return [names.index(name) for name in self._wanted]


def _inertial(frame: str | None, message: Any) -> Inertial:
    """An inertial sensor; quaternions are xyzw on ROS topics and wxyz inside.

    Args:
        frame: that its axes are expected to be those of; None is not checked.
        message: `sensor_msgs/Imu`.

    Raises:
        ValueError: it is said to be in another frame, or to have no orientation (REP 145). One that names no frame is
            taken to be in the expected one.
    """
    if frame is not None and message.header.frame_id not in ("", frame):
        raise ValueError(f"frame {message.header.frame_id}, expected {frame}")
    if message.orientation_covariance[0] == -1.0:
        raise ValueError("without orientation")
    q, w, a = message.orientation, message.angular_velocity, message.linear_acceleration
    return Inertial(np.array([q.w, q.x, q.y, q.z]), np.array([w.x, w.y, w.z]), np.array([a.x, a.y, a.z]))


def _base_velocity(message: Any) -> Array:
    v = message.twist.linear
    return np.array([v.x, v.y, v.z])


def _velocity_command(message: Any) -> Array:
    """Forward, to the left, turning to the left; a command that is not finite is none.

    Raises:
        ValueError: a number is not finite.
    """
    command = np.array([message.linear.x, message.linear.y, message.angular.z])
    if not np.isfinite(command).all():
        raise ValueError("not finite")
    return command


def _forces(count: int, message: Any) -> Array:
    """One force for each foot [N].

    Raises:
        ValueError: there are more or fewer.
    """
    if len(message.data) != count:
        raise ValueError(f"not {count} forces")
    return np.array(message.data, dtype=np.float64)


def _pose(message: Any) -> Pose:
    """A pose in the world; quaternions are xyzw on ROS topics and wxyz inside.

    Raises:
        ValueError: it is said to be in another frame. One that says nothing is taken to be in the world's.
    """
    if message.header.frame_id not in ("", WORLD):
        raise ValueError(f"frame {message.header.frame_id}, expected {WORLD}")
    p, q = message.pose.position, message.pose.orientation
    return Pose(np.array([p.x, p.y, p.z]), np.array([q.w, q.x, q.y, q.z]))


def _scalar(message: Any) -> float:
    return float(message.data)

"""All that is recorded beside the ticks: joints, base, objects, scalars and commands, as they were on the wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from rclpy.node import Node
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64, Float64MultiArray

from onestride.deploy.recorded import EFFORTS, JOINTS, command_stream, object_stream, observed, scalar_stream
from onestride.deploy.recorded_base import FEET, base_streams, inertial_row
from onestride.deploy.sources import COMMAND, IMU, ODOMETRY
from onestride.deploy.ticks import TickLayout
from onestride.hardware.state import Array, Inertial
from onestride_recorder.topics import EVERY, SENSOR, Topic

Values = dict[str, Any]
Rows = dict[str, Values]
"""What one message becomes: a row of each of one or more streams."""

Take = Callable[[str, Values, int], None]
"""Takes a stream's name, a row of it and its timestamp [ns]."""


class Surroundings:
    """Hears what a controller hears, and its commands.

    Args:
        node: owns the subscriptions.
        layout: what the controller announced.
    """

    def __init__(self, node: Node, layout: TickLayout) -> None:
        self._base = base_streams(layout.contract, legged=bool(layout.feet))
        self.topics = {JOINTS: Topic(node, JointState, "joint_states", SENSOR, JointRows(layout.joints))}
        self.topics.update(self._sensors(node, layout))
        for group in layout.commands:
            row = RowOf(command_stream(group.topic), partial(_targets, len(group.joints)))
            self.topics[command_stream(group.topic)] = Topic(node, Float64MultiArray, group.topic, EVERY, row)

    def _sensors(self, node: Node, layout: TickLayout) -> Iterator[tuple[str, Topic]]:
        objects, scalars = observed(layout.contract)
        for name in self._base.all:
            kind, usual, read = _base_endpoint(name, layout)
            yield name, Topic(node, kind, layout.topics.get(name, usual), SENSOR, read)
        for name in objects:
            stream = object_stream(name)
            yield stream, Topic(node, PoseStamped, f"objects/{name}/pose", SENSOR, RowOf(stream, _pose))
        for name in scalars:
            stream = scalar_stream(name)
            yield stream, Topic(node, Float64, name, SENSOR, RowOf(stream, _scalar))

    def drain(self, take: Take) -> None:
        """Hand over every message that waits."""

        def give(rows: Rows, stamp: int) -> None:
            for stream, values in rows.items():
                take(stream, values, stamp)

        for topic in self.topics.values():
            topic.drain(give)

    def not_taken(self) -> dict[str, dict[str, int]]:
        """Messages that could not be recorded, by stream and reason."""
        counts = {stream: topic.counts - Counter(taken=topic.counts["taken"]) for stream, topic in self.topics.items()}
        return {stream: dict(reasons) for stream, reasons in counts.items() if reasons}

    @property
    def silent(self) -> list[str]:
        """Sensor streams without a message so far that every such robot has."""
        sensors = [name for name in self.topics if not name.startswith("command.") and name not in self._base.optional]
        return [name for name in sensors if not self.topics[name].counts["taken"]]

    def close(self) -> None:
        """Unsubscribe from everything."""
        for topic in self.topics.values():
            topic.close()


class RowOf:
    """Rows of a stream that has one feature, named as the stream."""

    def __init__(self, name: str, read: Callable[[Any], Any]) -> None:
        self._name, self._read = name, read

    def __call__(self, message: Any) -> Rows:
        """The message as a row.

        Raises:
            ValueError: it has another length, or a number is not finite.
        """
        return {self._name: {self._name: _finite(self._read(message))}}


class JointRows:
    """Rows of joint states, in the robot's order whatever the driver's is, and of efforts where it reports them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._seen: list[str] | None = None
        self._order: list[int] = []

    def __call__(self, message: Any) -> Rows:
        """The message as rows of one stream or two.

        Raises:
            ValueError: joints are missing or named twice, there is not one value per name, or one is not finite.
        """
        if message.name != self._seen:
            self._order, self._seen = _places(self._names, list(message.name)), list(message.name)
        if not len(message.position) == len(message.velocity) == len(message.name):
            raise ValueError("not one position and velocity per name")
        position, velocity = (np.array(values)[self._order] for values in (message.position, message.velocity))
        joints = {"joint_position": _finite(position), "joint_velocity": _finite(velocity)}
        return {JOINTS: joints, **self._efforts(message)}

    def _efforts(self, message: Any) -> Rows:
        if len(message.effort) != len(message.name):
            return {}
        effort = np.array(message.effort)[self._order]
        return {EFFORTS: {EFFORTS: effort}} if np.isfinite(effort).all() else {}


def _places(wanted: tuple[str, ...], names: list[str]) -> list[int]:
    missing = [name for name in wanted if names.count(name) != 1]
    if missing:
        raise ValueError(f"expected once each: {', '.join(missing)}")
    return [names.index(name) for name in wanted]


def _base_endpoint(stream: str, layout: TickLayout) -> tuple[Any, str, Callable[[Any], Rows]]:
    """Message type, usual topic and reader of a base's stream; the topics are those of the controller."""
    known: dict[str, tuple[Any, str, Callable[[Any], Rows]]] = {
        IMU.name: (Imu, "imu", partial(_inertial, layout.imu_frame)),
        FEET: (Float64MultiArray, "foot_forces", RowOf(FEET, partial(_forces, len(layout.feet)))),
        ODOMETRY.name: (TwistStamped, "odometry/twist", RowOf(ODOMETRY.name, _base_velocity)),
        COMMAND.name: (Twist, "cmd_vel", RowOf(COMMAND.name, _velocity_command)),
    }
    return known[stream]


def _inertial(frame: str | None, message: Any) -> Rows:
    """An inertial sensor; quaternions are xyzw on ROS topics and wxyz inside.

    Raises:
        ValueError: it is said to be in another frame than the controller takes, or a number is not finite.
    """
    if frame is not None and message.header.frame_id not in ("", frame):
        raise ValueError(f"frame {message.header.frame_id}, expected {frame}")
    q, w, a = message.orientation, message.angular_velocity, message.linear_acceleration
    imu = Inertial(np.array([q.w, q.x, q.y, q.z]), np.array([w.x, w.y, w.z]), np.array([a.x, a.y, a.z]))
    return {IMU.name: {name: _finite(values) for name, values in inertial_row(imu).items()}}


def _base_velocity(message: Any) -> Array:
    v = message.twist.linear
    return np.array([v.x, v.y, v.z])


def _velocity_command(message: Any) -> Array:
    return np.array([message.linear.x, message.linear.y, message.angular.z])


def _forces(count: int, message: Any) -> Array:
    if len(message.data) != count:
        raise ValueError(f"not {count} forces")
    return np.array(message.data, dtype=np.float64)


def _pose(message: Any) -> Array:
    """Position and orientation; quaternions are xyzw on ROS topics and wxyz inside."""
    p, q = message.pose.position, message.pose.orientation
    return np.array([p.x, p.y, p.z, q.w, q.x, q.y, q.z])


def _scalar(message: Any) -> float:
    return float(message.data)


def _targets(count: int, message: Any) -> Array:
    """Joint targets (count,) [rad]; an impedance command begins with them.

    Raises:
        ValueError: the message has another length.
    """
    if len(message.data) not in (count, 5 * count):
        raise ValueError(f"not {count} joint targets")
    return np.array(message.data[:count], dtype=np.float64)


def _finite(values: Any) -> Any:
    if not np.isfinite(values).all():
        raise ValueError("not finite")
    return values

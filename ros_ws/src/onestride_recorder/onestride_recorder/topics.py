"""Topics as rows: every message since the last look, with the time it was measured.

No executor serves these subscriptions: at two thousand messages a second that would cost more than the recording.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray

from onestride.deploy.recorded import JOINTS, command_stream, object_stream, observed, scalar_stream
from onestride.deploy.ticks import TickLayout
from onestride.hardware.state import Array

#: One second of a 500 Hz topic may wait here.
SENSOR = QoSProfile(depth=500, reliability=ReliabilityPolicy.BEST_EFFORT)
EVERY = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)

Values = dict[str, Any]
Take = Callable[[str, Values, int], None]
"""Takes a stream's name, a row of it and its timestamp [ns]."""


class Polled(CallbackGroup):
    """Subscriptions that no executor serves."""

    def can_execute(self, entity: Any) -> bool:
        """Never by an executor."""
        del entity
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never by an executor."""
        del entity
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing was begun."""


class Topic:
    """One topic, drained when asked.

    Args:
        node: owns the subscription.
        kind: message type.
        name: of the topic.
        qos: of the subscription.
        read: turns a message into a row; raises `ValueError` with the reason for one that cannot be recorded.

    Attributes:
        counts: messages `taken`, and not taken by reason.
    """

    def __init__(self, node: Node, kind: Any, name: str, qos: QoSProfile, read: Callable[[Any], Any]) -> None:
        self._node, self._read, self._depth, self.name = node, read, qos.depth, name
        self._subscription = node.create_subscription(kind, name, _nothing, qos, callback_group=Polled())
        self.counts: Counter[str] = Counter()

    @property
    def published(self) -> bool:
        """Whether anybody publishes on it."""
        return bool(self._node.count_publishers(self.name))

    def drain(self, take: Callable[[Any, int], None]) -> None:
        """Hand over every message that waits, read and with its timestamp [ns]."""
        for _ in range(self._depth):
            with self._subscription.handle:
                taken = self._subscription.handle.take_message(self._subscription.msg_type, self._subscription.raw)
            if taken is None:
                return
            try:
                row = self._read(taken[0])
            except ValueError as error:
                self.counts[str(error)] += 1
                continue
            self.counts["taken"] += 1
            take(row, _stamp(*taken))

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)


class Surroundings:
    """All that is recorded beside the ticks: joint states, objects, scalars and commands.

    Args:
        node: owns the subscriptions.
        layout: what the controller announced.
    """

    def __init__(self, node: Node, layout: TickLayout) -> None:
        objects, scalars = observed(layout.contract)
        self.topics = {JOINTS: Topic(node, JointState, "joint_states", SENSOR, JointRows(layout.joints))}
        for name in objects:
            row = RowOf(object_stream(name), _pose)
            self.topics[object_stream(name)] = Topic(node, PoseStamped, f"objects/{name}/pose", SENSOR, row)
        for name in scalars:
            row = RowOf(scalar_stream(name), _scalar)
            self.topics[scalar_stream(name)] = Topic(node, Float64, name, SENSOR, row)
        for group in layout.commands:
            row = RowOf(command_stream(group.topic), partial(_targets, len(group.joints)))
            self.topics[command_stream(group.topic)] = Topic(node, Float64MultiArray, group.topic, EVERY, row)

    def drain(self, take: Take) -> None:
        """Hand over every message that waits."""
        for stream, topic in self.topics.items():
            topic.drain(partial(take, stream))

    def not_taken(self) -> dict[str, dict[str, int]]:
        """Messages that could not be recorded, by stream and reason."""
        counts = {stream: topic.counts - Counter(taken=topic.counts["taken"]) for stream, topic in self.topics.items()}
        return {stream: dict(reasons) for stream, reasons in counts.items() if reasons}

    @property
    def silent(self) -> list[str]:
        """Sensor streams without a message so far."""
        return [
            name for name, one in self.topics.items() if not name.startswith("command.") and not one.counts["taken"]
        ]

    def close(self) -> None:
        """Unsubscribe from everything."""
        for topic in self.topics.values():
            topic.close()


class RowOf:
    """Rows of a stream that has one feature, named as the stream."""

    def __init__(self, name: str, read: Callable[[Any], Any]) -> None:
        self._name, self._read = name, read

    def __call__(self, message: Any) -> Values:
        """The message as a row.

        Raises:
            ValueError: a number is not finite.
        """
        return {self._name: _finite(self._read(message))}


class JointRows:
    """Rows of joint states, in the robot's order whatever the driver's is."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._seen: list[str] | None = None
        self._order: list[int] = []

    def __call__(self, message: Any) -> Values:
        """The message as a row.

        Raises:
            ValueError: joints are missing or named twice, there is not one value per name, or one is not finite.
        """
        if message.name != self._seen:
            self._order, self._seen = _places(self._names, list(message.name)), list(message.name)
        if not len(message.position) == len(message.velocity) == len(message.name):
            raise ValueError("not one position and velocity per name")
        position, velocity = (np.array(values)[self._order] for values in (message.position, message.velocity))
        return {"joint_position": _finite(position), "joint_velocity": _finite(velocity)}


def _places(wanted: tuple[str, ...], names: list[str]) -> list[int]:
    missing = [name for name in wanted if names.count(name) != 1]
    if missing:
        raise ValueError(f"expected once each: {', '.join(missing)}")
    return [names.index(name) for name in wanted]


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


def _stamp(message: Any, info: dict[str, int]) -> int:
    """When it was measured; for messages that do not say, when they were published [ns]."""
    if hasattr(message, "header"):
        stamp = int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
        if stamp:
            return stamp
    return int(info["source_timestamp"]) or time.time_ns()


def _nothing(message: Any) -> None:
    """Never called: see `Polled`."""

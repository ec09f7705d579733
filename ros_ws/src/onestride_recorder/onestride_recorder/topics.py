"""Topics as rows: every message since the last look, with the time it was measured.

No executor serves these subscriptions: at two thousand messages a second that would cost more than the recording.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

#: One second of a 500 Hz topic may wait here.
SENSOR = QoSProfile(depth=500, reliability=ReliabilityPolicy.BEST_EFFORT)
EVERY = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)


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


def _stamp(message: Any, info: dict[str, int]) -> int:
    """When it was measured; for messages that do not say, when they were published [ns]."""
    if hasattr(message, "header"):
        stamp = int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
        if stamp:
            return stamp
    return int(info["source_timestamp"]) or time.time_ns()


def _nothing(message: Any) -> None:
    """Never called: see `Polled`."""

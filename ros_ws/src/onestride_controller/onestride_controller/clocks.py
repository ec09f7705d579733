"""Whose time the control loop keeps: the wall clock's, or that of `/clock` under `use_sim_time`."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage

from onestride.hardware.errors import OneStrideError
from onestride_controller.streams import LeftToTheControlThread

TOPIC = "/clock"
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)

#: How long the first message is waited for, and how often one is looked for [s].
FIRST, LOOK = 2.0, 0.0005


class Clock(Protocol):
    """What a control loop keeps its deadlines by.

    Attributes:
        slowest: wall-clock seconds that one of its seconds may take where something is waited for.
    """

    slowest: float

    def now(self) -> float:
        """[s]."""
        ...

    def sleep_until(self, deadline: float, since: float, stopping: threading.Event) -> None:
        """Sleep until `deadline`; where it may stand still, until `stopping`, or it is earlier than `since` [s]."""
        ...


class WallClock:
    """This machine's monotonic clock."""

    slowest = 1.0
    now = staticmethod(time.monotonic)

    def sleep_until(self, deadline: float, since: float, stopping: threading.Event) -> None:
        """Sleep; the clock never stands still nor goes back, so nothing else is looked at."""
        del since, stopping
        left = deadline - time.monotonic()
        if left > 0:
            time.sleep(left)


class SimulatedClock:
    """The newest time on `/clock`, taken by whoever asks: no executor has to be free for it.

    Args:
        node: owns the subscription.
    """

    slowest = 10.0

    def __init__(self, node: Node) -> None:
        self._node, self._lock, self._now = node, threading.Lock(), 0.0
        self._subscription = node.create_subscription(
            ClockMessage, TOPIC, lambda _: None, NEWEST, callback_group=LeftToTheControlThread()
        )

    def begin(self) -> None:
        """Wait for the first message.

        Raises:
            OneStrideError: nobody publishes the time.
        """
        deadline = time.monotonic() + FIRST
        while not self.now():
            if time.monotonic() > deadline:
                raise OneStrideError(f"use_sim_time: expected the time on {TOPIC} within {FIRST:g} s, heard nothing")
            time.sleep(LOOK)

    def now(self) -> float:
        """[s]; 0 before the first message."""
        with self._lock, self._subscription.handle:
            taken = self._subscription.handle.take_message(self._subscription.msg_type, self._subscription.raw)
            if taken is not None:
                stamp = taken[0].clock
                self._now = stamp.sec + stamp.nanosec * 1e-9
            return self._now

    def sleep_until(self, deadline: float, since: float, stopping: threading.Event) -> None:
        """Look for the time until it has come, or `stopping` is set: the clock may stand still for ever.

        A simulation that begins anew sets it back behind `since`, from where it would be long until `deadline`.
        """
        while since <= self.now() < deadline and not stopping.is_set():
            time.sleep(LOOK)

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

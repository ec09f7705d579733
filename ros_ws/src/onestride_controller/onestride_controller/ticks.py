"""Every tick for those who record: published from the control thread, after its command, while somebody listens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray, String

from onestride.deploy.controller import Tick
from onestride.deploy.ticks import Moment, TickLayout

#: Ticks that wait for a slow listener: two seconds at 200 Hz. Older ones are dropped; publishing never waits.
TICKS = QoSProfile(depth=400, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

#: Numbers of activations, over all sessions of this process.
_ACTIVATIONS = itertools.count(1)


class Ticks:
    """Publishes `~/ticks`, and on `~/tick_layout` once how they are laid out.

    Args:
        node: owns the publishers.
        layout: of the controller's ticks.
        always: publish even while nobody listens.
        clock: that ticks are timed by.

    Attributes:
        failures: ticks that could not be published.
    """

    def __init__(
        self, node: Node, layout: TickLayout, *, always: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._node, self._layout, self._always, self._clock = node, layout, always, clock
        self._publisher = node.create_publisher(Float64MultiArray, "~/ticks", TICKS)
        self._announcer = node.create_publisher(String, "~/tick_layout", LATCHED)
        self._announcer.publish(String(data=layout.model_dump_json()))
        self._message = Float64MultiArray(data=[0.0] * layout.size)
        self._values = np.frombuffer(self._message.data)  # the message's own array
        self._activation = self._index = self._seed = self.failures = 0
        self.look()

    def look(self) -> None:
        """See whether anybody listens; not from the control thread."""
        self._wanted = self._always or self._publisher.get_subscription_count() > 0

    def begin(self, seed: int) -> None:
        """An activation begins."""
        self._activation, self._index, self._seed = next(_ACTIVATIONS), 0, seed
        self.look()

    def tick(self, tick: Tick, now: float, late: float, joints_received: float) -> None:
        """One tick that began at `now`, `late` after its deadline, and has sent its command [s]. Never raises."""
        index, self._index = self._index, self._index + 1
        if not self._wanted:
            return
        elapsed = self._clock() - now
        stamp = time.time_ns() - int(elapsed * 1e9)
        age = now - joints_received
        try:
            moment = Moment(self._activation, index, self._seed, stamp, late, elapsed, age)
            self._layout.pack(self._values, tick, moment)
            self._publisher.publish(self._message)
        except Exception:  # whatever it is, a recording is not worth a fault; the recorder sees the gap
            self.failures += 1

    def close(self) -> None:
        """Take the publishers down."""
        publishers: tuple[Any, ...] = (self._publisher, self._announcer)
        for publisher in publishers:
            self._node.destroy_publisher(publisher)

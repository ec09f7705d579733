"""What the robot reports: the newest sample of every stream, taken from DDS when the control thread wants it.

The subscriptions keep one sample each (best effort, depth 1), so DDS itself is the latest-value buffer, and no
executor thread competes with the control thread for the interpreter. DDS notes when each sample arrived, and by its
stamp a sample that came later than others of its stream counts as older.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from onestride.deploy import sources
from onestride.deploy.arrivals import Arrivals
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Measurement
from onestride_controller.messages import FEET, Read, endpoint
from onestride_controller.wire import reader_of

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
JOINTS = sources.JOINTS.name
Now = Callable[[], float]
"""A clock [s]."""


class LeftToTheControlThread(CallbackGroup):
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


class Stream:
    """One topic's newest sample.

    Args:
        node: owns the subscription.
        kind: message type.
        topic: its name.
        read: turns a message into a value; raises `ValueError` with the reason for one that is not to be taken.
        unstamped: take messages whose stamp is zero, in the order in which they arrive.
        clock: that arrivals are timed by; delays are not seen by a simulated one, of which stamps need not be.

    Attributes:
        value: the newest value; None before the first.
        received: when it arrived, or would have arrived without a delay that others did not have, on its clock [s].
        counts: messages `taken`, and not taken by reason.
    """

    def __init__(
        self, node: Node, kind: Any, topic: str, read: Read, *, unstamped: bool = False, clock: Now = time.monotonic
    ) -> None:
        self._node, self._read, self._stamped, self._clock = node, read, hasattr(kind, "header"), clock
        self._unstamped, self._from_bytes, self._arrivals = unstamped, reader_of(kind), Arrivals()
        self._delays = clock is time.monotonic
        self._subscription = node.create_subscription(
            kind, topic, _nothing, SENSOR, callback_group=LeftToTheControlThread()
        )
        self.counts: Counter[str] = Counter()
        self.value: Any = None
        self.forget()

    @property
    def topic(self) -> str:
        """Its full name."""
        return str(self._subscription.topic_name)

    @property
    def kind(self) -> Any:
        """Message type."""
        return self._subscription.msg_type

    def forget(self) -> None:
        """Drop the sample: only one that arrives from now on counts."""
        self.value, self.received, self._stamp = None, float("-inf"), -1
        self._arrivals.forget()
        self._take()
        self._polled = self._clock()

    def forget_stamp(self) -> None:
        """Take the next message whatever its stamp: a publisher that was restarted may count from an earlier clock."""
        self._stamp = -1
        self._arrivals.forget()

    def poll(self, now: float) -> None:
        """Look for a newer sample; `now` is the clock [s]."""
        taken = self._take()
        if taken is not None:
            message = taken[0] if self._from_bytes is None else self._from_bytes(taken[0])
            self._accept(message, self._arrival(taken[1], now))
        self._polled = now

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _take(self) -> Any:
        raw = self._from_bytes is not None
        with self._subscription.handle:
            return self._subscription.handle.take_message(self._subscription.msg_type, raw)

    def _arrival(self, info: dict[str, int], now: float) -> float:
        """When DDS received it; a jump of the system clock cannot move it outside the time since the last look."""
        age = (time.time_ns() - info["received_timestamp"]) * 1e-9
        return min(max(now - age, self._polled), now)

    def _accept(self, message: Any, received: float) -> None:
        stamp = _nanoseconds(message.header.stamp) if self._stamped else 0
        ordered = self._stamped and not (self._unstamped and stamp == 0)
        if ordered and stamp <= self._stamp:
            self.counts["stamp not newer"] += 1
            return
        try:
            self.value = self._read(message)
        except ValueError as error:
            self.counts[str(error)] += 1
            return
        if ordered and self._delays:
            received = self._arrivals.received(received, stamp * 1e-9)
        self.received, self._stamp = received, max(stamp, self._stamp)
        self.counts["taken"] += 1


class Streams:
    """All streams that a policy and its guards read, as measurements.

    Args:
        node: owns the subscriptions.
        robot: whose joints are read, and where it has a floating base, also the inertial sensor and the feet.
        wanted: what has to be heard, see `Contract.streams`; the joints are always heard.
        topics: of streams that have another than their usual one, by the stream's name.
        clock: that arrivals are timed by.
    """

    def __init__(
        self,
        node: Node,
        robot: RobotDescription,
        wanted: Iterable[sources.Stream],
        topics: Mapping[str, str] | None = None,
        clock: Now = time.monotonic,
    ) -> None:
        self._clock = clock
        legs = () if robot.base is None else (sources.IMU, FEET)
        heard = {stream.name: stream for stream in (sources.JOINTS, *legs, *wanted)}
        self.all: dict[str, Stream] = {}
        for name, stream in heard.items():
            kind, topic, read = endpoint(stream, robot)
            self.all[name] = Stream(node, kind, (topics or {}).get(name, topic), read, clock=clock)
        self._required = {name for name, stream in heard.items() if stream.required}
        self._joints, self._imu = self.all[JOINTS], self.all.get(sources.IMU.name)
        self._objects, self._scalars, self._vectors = (
            {name: self.all[name] for name, stream in heard.items() if stream.kind == kind}
            for kind in ("object", "scalar", "vector")
        )

    def forget(self) -> None:
        """Drop every sample."""
        for stream in self.all.values():
            stream.forget()

    def poll(self) -> float:
        """Look for newer samples of every stream; the time of looking [s]."""
        now = self._clock()
        for stream in self.all.values():
            stream.poll(now)
        return now

    @property
    def missing(self) -> list[str]:
        """Required streams without a sample, with why samples that came were not taken."""
        required = ((name, self.all[name]) for name in self.all if name in self._required)
        return [f"{name}{_reasons(stream)}" for name, stream in required if stream.value is None]

    def measurement(self) -> Measurement:
        """The newest sample of every stream; ask `missing` first."""
        position, velocity, effort = self._joints.value
        return Measurement(
            position,
            velocity,
            {name: stream.value for name, stream in self._objects.items()},
            {name: stream.value for name, stream in self._scalars.items()},
            {name: stream.received for name, stream in self.all.items()},
            effort,
            None if self._imu is None else self._imu.value,
            {name: stream.value for name, stream in self._vectors.items() if stream.value is not None},
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Messages taken and not taken, by stream and reason."""
        return {name: dict(stream.counts) for name, stream in self.all.items()}

    def ages(self, now: float) -> dict[str, float]:
        """Of the newest sample of each stream [s]; infinite where there is none."""
        return {name: now - stream.received for name, stream in self.all.items()}

    def close(self) -> None:
        """Unsubscribe from everything."""
        for stream in self.all.values():
            stream.close()


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _reasons(stream: Stream) -> str:
    reasons = ", ".join(f"{count} with {reason}" for reason, count in stream.counts.items() if reason != "taken")
    return f" (not taken: {reasons})" if reasons else ""


def _nothing(message: Any) -> None:
    """Never called: see `LeftToTheControlThread`."""

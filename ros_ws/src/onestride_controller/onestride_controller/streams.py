"""What the robot reports: the newest sample of every stream, taken from DDS when the control thread wants it.

The subscriptions keep one sample each (best effort, depth 1), so DDS itself is the latest-value buffer, and no
executor thread competes with the control thread for the interpreter. DDS notes when each sample arrived.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array, Measurement, Pose

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
JOINTS = "joints"


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

    Attributes:
        value: the newest value; None before the first.
        received: when it arrived, on this process's monotonic clock [s].
        counts: messages `taken`, and not taken by reason.
    """

    def __init__(
        self, node: Node, kind: Any, topic: str, read: Callable[[Any], Any], *, unstamped: bool = False
    ) -> None:
        self._node, self._read, self._stamped = node, read, hasattr(kind, "header")
        self._unstamped = unstamped
        self._subscription = node.create_subscription(
            kind, topic, _nothing, SENSOR, callback_group=LeftToTheControlThread()
        )
        self.counts: Counter[str] = Counter()
        self.value: Any = None
        self.forget()

    def forget(self) -> None:
        """Drop the sample: only one that arrives from now on counts."""
        self.value, self.received, self._stamp = None, float("-inf"), -1
        self._take()
        self._polled = time.monotonic()

    def forget_stamp(self) -> None:
        """Take the next message whatever its stamp: a publisher that was restarted may count from an earlier clock."""
        self._stamp = -1

    def poll(self, now: float) -> None:
        """Look for a newer sample; `now` is the monotonic clock [s]."""
        taken = self._take()
        if taken is not None:
            self._accept(taken[0], self._arrival(taken[1], now))
        self._polled = now

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _take(self) -> Any:
        with self._subscription.handle:
            return self._subscription.handle.take_message(self._subscription.msg_type, self._subscription.raw)

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
        self.received, self._stamp = received, max(stamp, self._stamp)
        self.counts["taken"] += 1


class Streams:
    """All streams that a policy reads, as measurements.

    Args:
        node: owns the subscriptions.
        robot: whose joints are read.
        objects: names of object poses, on `objects/<name>/pose`.
        scalars: names of scalar readings, each its own topic.
    """

    def __init__(self, node: Node, robot: RobotDescription, objects: Iterable[str], scalars: Iterable[str]) -> None:
        self._joints = Stream(node, JointState, "joint_states", JointReader(robot.joint_names))
        self._objects = {name: Stream(node, PoseStamped, f"objects/{name}/pose", _pose) for name in objects}
        self._scalars = {name: Stream(node, Float64, name, _scalar) for name in scalars}
        self.all: dict[str, Stream] = {JOINTS: self._joints, **self._objects, **self._scalars}

    def forget(self) -> None:
        """Drop every sample."""
        for stream in self.all.values():
            stream.forget()

    def poll(self) -> float:
        """Look for newer samples of every stream; the time of looking [s]."""
        now = time.monotonic()
        for stream in self.all.values():
            stream.poll(now)
        return now

    @property
    def missing(self) -> list[str]:
        """Streams without a sample, with why samples that came were not taken."""
        return [f"{name}{_reasons(stream)}" for name, stream in self.all.items() if stream.value is None]

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
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Messages taken and not taken, by stream and reason."""
        return {name: dict(stream.counts) for name, stream in self.all.items()}

    def close(self) -> None:
        """Unsubscribe from everything."""
        for stream in self.all.values():
            stream.close()


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


def _pose(message: Any) -> Pose:
    """A pose; quaternions are xyzw on ROS topics and wxyz inside."""
    p, q = message.pose.position, message.pose.orientation
    return Pose(np.array([p.x, p.y, p.z]), np.array([q.w, q.x, q.y, q.z]))


def _scalar(message: Any) -> float:
    return float(message.data)


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _reasons(stream: Stream) -> str:
    reasons = ", ".join(f"{count} with {reason}" for reason, count in stream.counts.items() if reason != "taken")
    return f" (not taken: {reasons})" if reasons else ""


def _nothing(message: Any) -> None:
    """Never called: see `LeftToTheControlThread`."""

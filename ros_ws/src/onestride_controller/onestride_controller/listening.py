"""Listens to a robot without a word: its streams, and who is on its command topics. It publishes on nothing of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from onestride.deploy.contract import Contract
from onestride.deploy.doctor.live import JOINTS, CommandTopic, Heard, HeardStream
from onestride.deploy.gate import remapping_arguments
from onestride.hardware.description import RobotDescription
from onestride_controller.neighbours import owner
from onestride_controller.streams import LeftToTheControlThread, Stream, Streams

NODE_NAME = "onestride_doctor"

#: One second of a 500 Hz topic may wait here.
EVERY = QoSProfile(depth=500, reliability=ReliabilityPolicy.BEST_EFFORT)

#: How long to wait for publishers to be discovered [s].
DISCOVERY = 3.0

#: How often the topics are drained [s].
DRAIN = 2e-3


class Ear:
    """Every message of one stream's topic, beside the stream that keeps its newest sample.

    Args:
        node: owns the subscription.
        name: of the stream.
        stream: whose topic is heard.
        keep: keep the messages themselves, in `kept`.
    """

    def __init__(self, node: Node, name: str, stream: Stream, *, keep: bool = False) -> None:
        self.name, self.stream = name, stream
        self.last: Any = None
        self._keep = keep
        self.kept: list[Any] = []
        self._node = node
        self._subscription = node.create_subscription(
            stream.kind, stream.topic, lambda _: None, EVERY, callback_group=LeftToTheControlThread()
        )
        self._stamped = hasattr(stream.kind, "header")
        self._arrivals: list[float] = []
        self._received: list[int] = []
        self._stamps: list[int] = []

    def forget(self) -> None:
        """Begin anew."""
        self.drain()
        for noted in (self._arrivals, self._received, self._stamps, self.kept):
            noted.clear()

    def drain(self) -> None:
        """Note what has arrived."""
        while True:
            with self._subscription.handle:
                taken = self._subscription.handle.take_message(self._subscription.msg_type, self._subscription.raw)
            if taken is None:
                return
            self.last, info = taken
            if self._keep:
                self.kept.append(self.last)
            received = int(info["received_timestamp"])
            self._arrivals.append(time.monotonic() - max(0, time.time_ns() - received) * 1e-9)
            self._received.append(received)
            if self._stamped:
                stamp = self.last.header.stamp
                self._stamps.append(int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec))

    @property
    def published(self) -> bool:
        """Whether anybody publishes on the topic."""
        return bool(self._node.count_publishers(self.stream.topic))

    def heard(self, *, required: bool) -> HeardStream:
        """What was noted."""
        refused = {reason: count for reason, count in self.stream.counts.items() if reason != "taken"}
        refused.pop("stamp not newer", None)  # judged by the stamps themselves
        return HeardStream(
            self.name,
            self.stream.topic,
            np.array(self._arrivals),
            np.array(self._stamps) * 1e-9,
            (np.array(self._received) - np.array(self._stamps)) * 1e-9 if self._stamped else np.empty(0),
            refused,
            tuple(map(owner, self._node.get_publishers_info_by_topic(self.stream.topic))),
            required,
        )


@contextmanager
def listening_node(namespace: str, remappings: Mapping[str, str] | None = None) -> Iterator[Node]:
    """A node in a context of its own.

    Args:
        namespace: of the node.
        remappings: our topic -> the robot's.
    """
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    arguments = remapping_arguments(remappings or {})
    node = Node(
        NODE_NAME,
        namespace=namespace or None,
        context=context,
        use_global_arguments=False,
        cli_args=["--ros-args", *arguments] if arguments else None,
    )
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()


def listen(
    node: Node,
    contract: Contract,
    robot: RobotDescription,
    seconds: float,
    progress: Callable[[], None] = lambda: None,
) -> Heard:
    """Hear all that a policy observes, for as long as that.

    Args:
        node: listens; see `listening_node`.
        contract: says what is observed.
        robot: whose topics they are.
        seconds: how long.
        progress: called now and then.
    """
    streams = Streams(node, robot, contract.streams)
    ears = [Ear(node, name, stream) for name, stream in streams.all.items()]
    required = {stream.name for stream in contract.streams if stream.required} | {JOINTS}
    _discover([ear for ear in ears if ear.name in required])
    streams.forget()
    for ear in ears:
        ear.forget()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for ear in ears:
            ear.drain()
        streams.poll()
        progress()
        time.sleep(DRAIN)
    now = streams.poll()
    for ear in ears:  # a look that came late is no silence
        ear.drain()
    measurement = None if streams.missing else streams.measurement()
    joints = next(ear for ear in ears if ear.name == JOINTS)
    heard = Heard(
        seconds,
        tuple(ear.heard(required=ear.name in required) for ear in ears),
        () if joints.last is None else tuple(joints.last.name),
        command_topics(node, robot),
        measurement,
        now,
    )
    streams.close()
    return heard


def _discover(ears: list[Ear]) -> None:
    deadline = time.monotonic() + DISCOVERY
    while time.monotonic() < deadline and not all(ear.published for ear in ears):
        time.sleep(0.02)


def command_topics(node: Node, robot: RobotDescription) -> tuple[CommandTopic, ...]:
    """Who is on each command topic."""
    found = []
    for group in robot.commands:
        topic = node.resolve_topic_name(group.topic)
        writers = tuple(sorted(map(owner, node.get_publishers_info_by_topic(topic))))
        readers = tuple(sorted(map(owner, node.get_subscriptions_info_by_topic(topic))))
        found.append(CommandTopic(topic, writers, readers))
    return tuple(found)

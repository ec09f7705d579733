"""The person's topics: taken from DDS by the control thread, and told to the operator as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import Twist
from rclpy.node import Node
from sensor_msgs.msg import JointState, Joy

from onestride.deploy.teleop.operator import Operator
from onestride.hardware.state import Measurement
from onestride_controller.streams import Stream, Streams

#: Topics of the devices where none is named.
TOPICS = {"joy": "/joy", "twist": "/cmd_vel", "leader": "/leader/joint_states"}


class OperatorTopics:
    """Subscriptions of a person's devices.

    They keep one message, best effort, which hears reliable and best-effort publishers alike: only the newest counts.

    Args:
        node: owns the subscriptions.
        operator: is told.
        topic: of the device; empty takes the device's own.
        buttons: topic of the joystick with the deadman; a joystick that moves the robot is its own.
    """

    def __init__(self, node: Node, operator: Operator, topic: str, buttons: str) -> None:
        self._operator = operator
        topic = topic or TOPICS[operator.device]
        self.topics = {"joy": topic} if operator.device == "joy" else {"joy": buttons, operator.device: topic}
        kinds: dict[str, tuple[Any, Callable[[Any, float], None]]] = {
            "joy": (Joy, self._joy),
            "twist": (Twist, self._twist),
            "leader": (JointState, self._leader),
        }
        self._streams = [
            (Stream(node, kinds[name][0], topic, _whole, unstamped=True), kinds[name][1])
            for name, topic in self.topics.items()
        ]

    def forget_stamps(self) -> None:
        """Hear devices that were restarted since, too."""
        for stream, _ in self._streams:
            stream.forget_stamp()

    def poll(self, now: float) -> None:
        """Tell the operator of newer messages."""
        for stream, tell in self._streams:
            before = stream.counts["taken"]
            stream.poll(now)
            if stream.counts["taken"] != before:
                tell(stream.value, stream.received)

    def summary(self, now: float) -> dict[str, Any]:
        """What was heard, as JSON."""
        operator = self._operator
        return {
            "device": operator.device,
            "topics": self.topics,
            "problem": operator.problem(now),
            "messages": {name: dict(counts) for name, counts in operator.counts.items()},
            "streams": {
                name: dict(stream.counts) for name, (stream, _) in zip(self.topics, self._streams, strict=True)
            },
        }

    def close(self) -> None:
        """Unsubscribe."""
        for stream, _ in self._streams:
            stream.close()

    def _joy(self, message: Any, received: float) -> None:
        self._operator.hear_joy(message.axes, message.buttons, received)

    def _twist(self, message: Any, received: float) -> None:
        linear, angular = message.linear, message.angular
        self._operator.hear_twist((linear.x, linear.y, linear.z), (angular.x, angular.y, angular.z), received)

    def _leader(self, message: Any, received: float) -> None:
        self._operator.hear_leader(message.name, message.position, received)


class Attended:
    """Streams of the robot and of the person, looked at together."""

    def __init__(self, streams: Streams, person: OperatorTopics) -> None:
        self._streams, self._person = streams, person

    def poll(self) -> float:
        """Look for newer samples of every stream; the time of looking [s]."""
        now = self._streams.poll()
        self._person.poll(now)
        return now

    def measurement(self) -> Measurement:
        """The robot's newest samples."""
        return self._streams.measurement()


def _whole(message: Any) -> Any:
    return message

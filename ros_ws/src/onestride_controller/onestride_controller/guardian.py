"""The watchdog as the controller sees it: heartbeats to it, its own word back."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, MultiArrayLayout, String

from onestride.deploy.heartbeat import Pulse, heartbeat_size
from onestride.deploy.watchdog import Watch
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array
from onestride_controller.streams import Stream

HEARTBEAT = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)

#: How long the watchdog may be silent, and how long it may take to notice that this node is in charge [s]. Only where
#: controller and watchdog fail within that time is the robot without a stop.
SILENCE = 1.0

#: How long activation waits for the watchdog's first word, and deactivation for its farewell to arrive [s].
FIRST_WORD, FAREWELL = 2.0, 0.5


class Guardian:
    """Publishes `~/heartbeat` and hears the watchdog's `~/state`.

    Between `begin` and `farewell` it belongs to the control thread.

    Args:
        node: owns the endpoints.
        robot: that is commanded.
        period: of the commands [s].
        name: of the watchdog's node.

    Attributes:
        failures: heartbeats that could not be published.
    """

    def __init__(self, node: Node, robot: RobotDescription, period: float, name: str) -> None:
        self.name, self._node = name, node
        self._state = Stream(node, String, f"{name}/state", _state)  # first: the name may be none
        self._publisher = node.create_publisher(Float64MultiArray, "~/heartbeat", HEARTBEAT)
        size = heartbeat_size(len(robot.joints))
        layout = MultiArrayLayout(dim=[MultiArrayDimension(label=robot.id, size=size, stride=size)])
        self._message = Float64MultiArray(layout=layout, data=[0.0] * size)
        self._pulse = Pulse(np.frombuffer(self._message.data), period)
        self._begun, self.failures = float("inf"), 0

    def begin(self) -> None:
        """Make sure that somebody watches.

        Raises:
            OneStrideError: the watchdog is not heard, or is stopping the robot.
        """
        self._state.forget()
        deadline = time.monotonic() + FIRST_WORD
        while self._state.value is None or not self._publisher.get_subscription_count():
            if time.monotonic() > deadline:
                raise OneStrideError(f"no watchdog: expected {self.name} to be heard within {FIRST_WORD:g} s; start it")
            time.sleep(0.002)
            self._state.poll(time.monotonic())
        if self._state.value is Watch.STOPPING:
            raise OneStrideError(f"{self.name} holds the robot after a controller has died; rearm it first")
        if self._state.value is Watch.LEAVING:
            raise OneStrideError(f"no watchdog: {self.name} is ending; start it again")

    def objection(self, now: float) -> str:
        """Why this node must not go on commanding the robot; empty if it may."""
        self._state.poll(now)
        if self.stopping:
            return f"{self.name} has taken over, for want of heartbeats"
        if self._state.value is Watch.LEAVING:
            return f"{self.name} is ending: nobody would watch this node any more"
        if now - self._state.received > SILENCE:
            return f"{self.name} was not heard for {SILENCE:g} s"
        if self._state.value is not Watch.WATCHING and now - self._begun > SILENCE:
            return f"{self.name} has not noticed this node within {SILENCE:g} s"
        return ""

    @property
    def stopping(self) -> bool:
        """Whether the watchdog commands the robot, so that nobody else may."""
        return self._state.value is Watch.STOPPING

    def taken_over(self) -> bool:
        """As `stopping`, looked for at this moment; where no control thread asks for objections."""
        self._state.poll(time.monotonic())
        return self.stopping

    def beat(self, command: Array) -> None:
        """A sign of life after joint targets (n,) [rad] were sent. Never raises: what does not go out is missed."""
        try:
            self._pulse.sent(command)
            self._publisher.publish(self._message)
            self._begun = min(self._begun, time.monotonic())
        except Exception:  # whatever it is, the watchdog judges by what it hears
            self.failures += 1

    def idle(self) -> None:
        """A sign of life of a node that sends no commands. Never raises, as `beat`."""
        self._pulse.rest()
        self._begun = float("inf")
        try:
            self._publisher.publish(self._message)
        except Exception:
            self.failures += 1

    def farewell(self) -> None:
        """Say that no more commands will come, and wait until it is heard."""
        self.idle()
        with contextlib.suppress(RuntimeError):  # the middleware may not be able to tell
            self._publisher.wait_for_all_acked(Duration(seconds=FAREWELL))

    def close(self) -> None:
        """Leave the topics."""
        self._state.close()
        self._node.destroy_publisher(self._publisher)


def _state(message: Any) -> Watch:
    return Watch(message.data)

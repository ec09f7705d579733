"""What the watchdog hears and sends: heartbeats in, the commands of a stop out."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray

from onestride.deploy.command_rows import command_rows
from onestride.deploy.heartbeat import Heartbeat, parse_heartbeat
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class LeftToTheLoop(CallbackGroup):
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


class Heartbeats:
    """Takes the newest heartbeat of a controller.

    Args:
        node: owns the subscription.
        controller: whose heartbeats count.
        robot: that it commands.

    Attributes:
        heard: heartbeats taken.
        refused: heartbeats that were none, or another robot's.
    """

    def __init__(self, node: Node, controller: str, robot: RobotDescription) -> None:
        self._robot = robot
        self._subscription = node.create_subscription(
            Float64MultiArray, f"{controller}/heartbeat", _nothing, NEWEST, callback_group=LeftToTheLoop()
        )
        self.heard = self.refused = 0

    def take(self) -> Heartbeat | None:
        """The newest since the last look; None where none came or it cannot be believed."""
        with self._subscription.handle:
            taken = self._subscription.handle.take_message(self._subscription.msg_type, self._subscription.raw)
        if taken is None:
            return None
        try:
            heartbeat = self._read(taken[0])
        except OneStrideError:
            self.refused += 1
            return None
        self.heard += 1
        return heartbeat

    def _read(self, message: Any) -> Heartbeat:
        of = message.layout.dim[0].label if message.layout.dim else ""
        if of != self._robot.id:
            raise OneStrideError(f"expected heartbeats for robot {self._robot.id}, got {of or 'no name'}")
        return parse_heartbeat(np.array(message.data, dtype=np.float64), len(self._robot.joints))


class Stops:
    """Publishers on the command topics, silent as long as the controller lives."""

    def __init__(self, node: Node, robot: RobotDescription) -> None:
        self._parts = []
        for row in command_rows(robot):
            message = Float64MultiArray(data=[0.0] * row.size)
            values = np.frombuffer(message.data)  # the message's own array
            self._parts.append((node.create_publisher(Float64MultiArray, row.topic, NEWEST), message, values, row))

    def send(self, command: Array, *, damping: bool) -> None:
        """Send joint targets (n,) [rad], or have every joint damped."""
        for publisher, message, values, row in self._parts:
            row.write(values, command, damping=damping)
            publisher.publish(message)


def _nothing(message: Any) -> None:
    """Never called: see `LeftToTheLoop`."""

"""The command topics: what this node sends."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray

from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class Commands:
    """Plain publishers of joint targets, with messages that are made once and filled again and again.

    Plain, because a lifecycle publisher falls silent as soon as the node is inactive, and the safe command must
    still go out.
    """

    def __init__(self, node: Node, robot: RobotDescription) -> None:
        self._node = node
        self._parts: list[tuple[Any, Any, Array, list[int]]] = []
        for group in robot.commands:
            publisher = node.create_publisher(Float64MultiArray, group.topic, COMMAND)
            message = Float64MultiArray(data=[0.0] * len(group.joints))
            values = np.frombuffer(message.data)  # the message's own array
            self._parts.append((publisher, message, values, robot.indices(group.joints)))

    def send(self, command: Array) -> None:
        """Send joint targets (n,) [rad]."""
        for publisher, message, values, joints in self._parts:
            values[:] = command[joints]
            publisher.publish(message)

    def close(self) -> None:
        """Take the publishers down."""
        for publisher, *_ in self._parts:
            self._node.destroy_publisher(publisher)

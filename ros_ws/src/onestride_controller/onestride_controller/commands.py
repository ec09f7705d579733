"""The command topics: what this node sends."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64MultiArray

from onestride.deploy.command_rows import command_rows
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
        self._parts = []
        for row in command_rows(robot):
            message = Float64MultiArray(data=[0.0] * row.size)
            values = np.frombuffer(message.data)  # the message's own array
            self._parts.append((node.create_publisher(Float64MultiArray, row.topic, COMMAND), message, values, row))

    def send(self, command: Array, *, damping: bool = False) -> None:
        """Send joint targets (n,) [rad], or have every joint damped."""
        for publisher, message, values, row in self._parts:
            row.write(values, command, damping=damping)
            publisher.publish(message)

    def close(self) -> None:
        """Take the publishers down."""
        for publisher, *_ in self._parts:
            self._node.destroy_publisher(publisher)

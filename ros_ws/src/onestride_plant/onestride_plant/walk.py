"""What is asked of a robot on legs, for the plant's own measure of how it walks."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Twist
from rclpy.node import Node

from onestride.hardware.plant import Plant
from onestride.hardware.walking import WalkMeter
from onestride_plant.topics import SENSOR, LeftToTheLoop


class Walk(WalkMeter):
    """Hears what is asked.

    Args:
        plant: with a robot on legs.
        node: owns the subscription.
        topic: of the commands, `geometry_msgs/Twist`.

    Raises:
        OneStrideError: the robot has no floating base.
    """

    def __init__(self, plant: Plant, node: Node, topic: str) -> None:
        super().__init__(plant)
        self._asked = node.create_subscription(Twist, topic, lambda _: None, SENSOR, callback_group=LeftToTheLoop())

    def hear(self) -> None:
        """Take the newest command, if one came; what is not finite is none."""
        with self._asked.handle:
            taken = self._asked.handle.take_message(self._asked.msg_type, self._asked.raw)
        if taken is None:
            return
        twist = taken[0]
        command = np.array([twist.linear.x, twist.linear.y, twist.angular.z])
        if np.isfinite(command).all():
            self.ask(command)

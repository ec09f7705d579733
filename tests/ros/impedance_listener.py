"""Hears what a robot on legs is told, and how its joints move."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from onestride.hardware.description import RobotDescription
from onestride.hardware.impedance import ImpedanceCommand

from .recorder import HEARD, SENSOR, Participant


class Listener(Participant):
    """Hears every impedance command, with arrival and publication number, and the joints' speeds."""

    def __init__(self, session: Any, topic: str) -> None:
        super().__init__("onestride_recorder", session.namespace, session.environment)
        self.heard: list[tuple[float, int, ImpedanceCommand]] = []
        self.speeds: deque[list[float]] = deque(maxlen=100)
        self.node.create_subscription(Float64MultiArray, topic, self._keep(), HEARD)
        self.node.create_subscription(JointState, "joint_states", self._joints, SENSOR)

    def _joints(self, message: Any) -> None:
        self.speeds.append(list(message.velocity))

    def _keep(self) -> Any:  # rclpy does not type callbacks with info
        def keep(message: Any, info: dict[str, int]) -> None:
            command = ImpedanceCommand.from_row(message.data)
            self.heard.append((time.monotonic(), info["publication_sequence_number"], command))

        return keep


def damped(command: ImpedanceCommand, robot: RobotDescription) -> bool:
    """Whether a command takes all stiffness away and damps as the robot declares."""
    return not command.stiffness.any() and np.array_equal(command.damping, ImpedanceCommand.damped(robot).damping)

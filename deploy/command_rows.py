"""Joint targets as the numbers of the robot's command topics, for everybody who commands it: controller and watchdog.

A robot that takes positions gets its targets as they are. One that takes impedance commands gets, for the topic's
joints in order, all positions, velocities, efforts, stiffnesses and dampings: with its own gains where it follows
targets, and without stiffness, with the damping of its safe stop, where it is damped.
"""

from __future__ import annotations

import numpy as np

from onestride.hardware.description import CommandGroup, DampingStop, RobotDescription
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.state import Array


class CommandRow:
    """The numbers of one command topic.

    Args:
        robot: whose joints they are for.
        group: the topic.

    Attributes:
        topic: its name.
        size: how many numbers a message has.
    """

    def __init__(self, robot: RobotDescription, group: CommandGroup) -> None:
        self.topic, self._joints = group.topic, robot.indices(group.joints)
        self._count = len(self._joints)
        self._following, self._damped = self._templates(robot)
        self.size = len(self._following)

    def _templates(self, robot: RobotDescription) -> tuple[Array, Array]:
        """Messages whose positions are still to be filled in: to follow targets, and to be damped."""
        if robot.command_mode == "position":
            return np.zeros(self._count), np.zeros(self._count)
        following = ImpedanceCommand.towards(robot, [joint.default for joint in robot.joints])
        damps = isinstance(robot.safe_stop, DampingStop)
        damped = ImpedanceCommand.damped(robot) if damps else following
        return self._of_group(following), self._of_group(damped)

    def _of_group(self, command: ImpedanceCommand) -> Array:
        return command.row().reshape(5, -1)[:, self._joints].ravel()

    def write(self, into: Array, command: Array, *, damping: bool = False) -> None:
        """Write a message (size,).

        Args:
            into: takes the numbers.
            command: joint targets (n,) [rad], in the robot's order.
            damping: damp every joint instead, wherever the targets are.
        """
        into[:] = self._damped if damping else self._following
        into[: self._count] = command[self._joints]


def command_rows(robot: RobotDescription) -> tuple[CommandRow, ...]:
    """One for each of the robot's command topics."""
    return tuple(CommandRow(robot, group) for group in robot.commands)

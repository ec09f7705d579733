"""The joints' own controllers in the simulation: servos of the model, or impedance computed at every physics step."""

from __future__ import annotations

from typing import Protocol

import mujoco
import numpy as np

from onestride.hardware.description import RobotDescription
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.state import Array


class Drives(Protocol):
    """All joints' controllers."""

    def follow(self, command: ImpedanceCommand) -> None:
        """Take a command, which holds until the next."""
        ...

    def before_step(self) -> None:
        """Act on the state as it is, before a physics step."""
        ...

    def randomise(self, gains: Array) -> None:
        """Have gains that are `gains` (n,) times what they are declared to be."""
        ...


class ServoDrives:
    """Position servos of the model: they know the target only, the gains are the model's.

    Args:
        model: of the scene.
        data: of its state.
        robot: the robot.
        actuators: of its joints (n,).
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, robot: RobotDescription, actuators: Array) -> None:
        self._model, self._data, self._actuators = model, data, actuators
        self._scale = np.array([joint.command_scale for joint in robot.joints])
        self._gain, self._bias = model.actuator_gainprm[actuators].copy(), model.actuator_biasprm[actuators].copy()

    def follow(self, command: ImpedanceCommand) -> None:
        """Take the command's position."""
        self._data.ctrl[self._actuators] = command.position * self._scale

    def before_step(self) -> None:
        """Nothing: the physics computes servos itself."""

    def randomise(self, gains: Array) -> None:
        """Scale gain and bias alike, so that the servo still comes to rest at its target."""
        self._model.actuator_gainprm[self._actuators] = self._gain * gains[:, None]
        self._model.actuator_biasprm[self._actuators] = self._bias * gains[:, None]


class ImpedanceDrives:
    """Torque motors that compute their torque at every physics step, as the drives of legs do at some kHz.

    Args:
        data: of the scene's state.
        robot: whose effort limits clip the torques.
        actuators: of its joints (n,), of gain 1.
        qpos: addresses of the joints' positions (n,).
        dofs: addresses of their velocities (n,).
    """

    def __init__(
        self, data: mujoco.MjData, robot: RobotDescription, actuators: Array, qpos: Array, dofs: Array
    ) -> None:
        self._data, self._actuators, self._qpos, self._dofs = data, actuators, qpos, dofs
        self._limit = np.array([np.inf if joint.effort is None else joint.effort for joint in robot.joints])
        self._gains = np.ones(len(robot.joints))
        self._command = ImpedanceCommand(*np.zeros((5, len(robot.joints))))

    def follow(self, command: ImpedanceCommand) -> None:
        """Take a command."""
        self._command = command

    def before_step(self) -> None:
        """Set the torques of the next physics step."""
        torque = self._gains * self._command.torque(self._data.qpos[self._qpos], self._data.qvel[self._dofs])
        self._data.ctrl[self._actuators] = np.clip(torque, -self._limit, self._limit)

    def randomise(self, gains: Array) -> None:
        """Scale the torque that the command asks for."""
        self._gains = gains

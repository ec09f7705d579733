"""The simulated robot and its surroundings: a MuJoCo scene behind a few verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from onestride.hardware.description import RobotDescription
from onestride.hardware.drives import Drives, ImpedanceDrives, ServoDrives
from onestride.hardware.errors import OneStrideError
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.readings import Readings, identify
from onestride.hardware.scene import Scene
from onestride.hardware.state import Array, Measurement

#: Everything the simulation's future depends on, including controls, mocap targets and solver warm start.
STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class Robot(Protocol):
    """What a controller may do with a robot, simulated or real."""

    def read(self) -> Measurement:
        """The newest measurement."""
        ...

    def command(self, target: ArrayLike) -> None:
        """Send joint targets (n,) [rad] in the order of the robot description."""
        ...

    def damp(self) -> None:
        """Take all stiffness away and damp every joint, where that is the declared safe stop."""
        ...


@dataclass(frozen=True)
class Progress:
    """How the running episode stands, by the environment's own measure on simulated time.

    Attributes:
        time: simulated time since the reset [s].
        success: solved at the end of one of the judged control periods so far.
        solved_after: control periods until solved; None while unsolved.
        over: solved, or the horizon has passed.
    """

    time: float
    success: bool
    solved_after: int | None
    over: bool


class Plant:
    """A robot in a MuJoCo scene. It knows joint targets only: no environment, no task-space control.

    Args:
        scene: the scene.
        robot: the robot in it.
        odometry: publish the base's true velocity, as a driver with good odometry would.

    Raises:
        OneStrideError: the scene is another robot's, or its model lacks a part that the descriptions name.
    """

    def __init__(self, scene: Scene, robot: RobotDescription, *, odometry: bool = False) -> None:
        if scene.description.robot != robot.id:
            raise OneStrideError(f"scene {scene.folder}: expected robot {scene.description.robot}, got {robot.id}")
        self.scene, self.scene_folder, self.robot = scene.description, scene.folder, robot
        try:
            self.model = mujoco.MjModel.from_xml_path(str(scene.model_path))
        except ValueError as error:
            raise OneStrideError(f"{scene.model_path}: MuJoCo refuses the model: {error}") from None
        self.data = mujoco.MjData(self.model)
        self._readings = Readings(self.model, self.data, self.scene, robot, odometry=odometry)
        self._qpos, self._qvel = self._readings.qpos, self._readings.dofs
        self._drives = self._make_drives()
        self._goals = self._resolve_goals()
        self.reset()

    def _make_drives(self) -> Drives:
        actuator = mujoco.mjtObj.mjOBJ_ACTUATOR
        self._ctrl = np.array([identify(self.model, actuator, joint.actuator) for joint in self.robot.joints])
        if self.robot.command_mode == "impedance":
            return ImpedanceDrives(self.data, self.robot, self._ctrl, self._qpos, self._qvel)
        return ServoDrives(self.model, self.data, self.robot, self._ctrl)

    def _resolve_goals(self) -> list[tuple[int, int, float]]:
        body = mujoco.mjtObj.mjOBJ_BODY
        return [
            (
                self._readings.objects[goal.object],
                int(self.model.body_mocapid[identify(self.model, body, goal.target_body)]),
                goal.tolerance,
            )
            for goal in self.scene.success
        ]

    @property
    def state(self) -> Array:
        """The full state (S,) as it is now; `reset` takes it back."""
        vector = np.empty(self.state_size)
        mujoco.mj_getState(self.model, self.data, vector, STATE)
        return vector

    @property
    def age(self) -> float:
        """How long ago what `read` gives arrived, in simulated time [s]: here nothing is ever late."""
        return 0.0

    @property
    def state_size(self) -> int:
        """Length of a full state vector."""
        return int(mujoco.mj_stateSize(self.model, STATE))

    def reset(self, state: ArrayLike | None = None) -> Measurement:
        """Put the scene into a full state (S,), or the model's default pose, with the robot holding still.

        Raises:
            OneStrideError: the state has the wrong length or is not finite.
        """
        mujoco.mj_resetData(self.model, self.data)
        if state is None:
            self.data.qpos[self._qpos] = [joint.default for joint in self.robot.joints]
        else:
            vector = np.asarray(state, dtype=np.float64)
            if vector.shape != (self.state_size,) or not np.isfinite(vector).all():
                raise OneStrideError(f"expected a finite state of length {self.state_size}, got shape {vector.shape}")
            mujoco.mj_setState(self.model, self.data, vector, STATE)
        self._drives.follow(ImpedanceCommand.towards(self.robot, self.data.qpos[self._qpos]))
        self._drives.before_step()
        mujoco.mj_forward(self.model, self.data)
        self._steps = 0
        self._solved_after: int | None = None
        return self._readings.read()

    def read(self) -> Measurement:
        """The robot's streams and its surroundings as they are now.

        The efforts are those of the actuators in the last physics step; gravity that the model compensates is not in
        them. Forces and accelerations are of that step as well.
        """
        return self._readings.read()

    def command(self, target: ArrayLike) -> None:
        """Set the joint controllers' targets (n,) [rad]; they hold until the next command.

        Raises:
            OneStrideError: wrong shape or a value that is not finite; the last command stays in force.
        """
        self._take(ImpedanceCommand.towards(self.robot, target))

    def damp(self) -> None:
        """Take all stiffness away and damp every joint as the safe stop declares.

        Raises:
            OneStrideError: that is not this robot's safe stop.
        """
        self._take(ImpedanceCommand.damped(self.robot))

    def impede(self, command: ImpedanceCommand) -> None:
        """Set everything that drives with joint impedance take; it holds until the next command.

        Raises:
            OneStrideError: the robot's drives take positions only, or the command is for other joints.
        """
        if self.robot.command_mode != "impedance":
            raise OneStrideError(f"robot {self.robot.id}: expected joint targets, because its drives take nothing else")
        if len(command.position) != len(self._ctrl):
            raise OneStrideError(f"expected a command of {len(self._ctrl)} joints, got {len(command.position)}")
        self._take(command)

    def _take(self, command: ImpedanceCommand) -> None:
        """A command that was found sound arrives."""
        self._drives.follow(command)

    def step(self, count: int = 1) -> None:
        """Advance `count` physics steps, judging success at the end of every control period."""
        for _ in range(count):
            self._advance()
            self._steps += 1
            periods, rest = divmod(self._steps, self.scene.substeps)
            if rest == 0 and self._solved_after is None and periods <= self.scene.last_judged and self._solved():
                self._solved_after = periods

    def _advance(self) -> None:
        """One physics step."""
        self._drives.before_step()
        mujoco.mj_step(self.model, self.data)

    def _solved(self) -> bool:
        """Whether every object is where it should be; a scene that wants nothing is never solved."""
        positions = ((self.data.qpos[at : at + 3], self.data.mocap_pos[mocap], tol) for at, mocap, tol in self._goals)
        reached = (np.linalg.norm(position - target) <= tolerance for position, target, tolerance in positions)
        return bool(self._goals) and all(reached)

    @property
    def progress(self) -> Progress:
        """How the running episode stands."""
        elapsed = self._steps * self.scene.physics_timestep
        solved = self._solved_after is not None
        over = solved or self._steps >= self.scene.horizon * self.scene.substeps
        return Progress(elapsed, solved, self._solved_after, over)

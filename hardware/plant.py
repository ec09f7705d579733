"""The simulated robot and its surroundings: a MuJoCo scene behind four verbs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.scene import Scene
from onestride.hardware.state import Array, Measurement, Pose

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
    """A robot in a MuJoCo scene. It knows joint targets only: no environment, no task-space control."""

    def __init__(self, scene: Scene, robot: RobotDescription) -> None:
        if scene.description.robot != robot.id:
            raise OneStrideError(f"scene {scene.folder}: expected robot {scene.description.robot}, got {robot.id}")
        self.scene, self.scene_folder, self.robot = scene.description, scene.folder, robot
        try:
            self.model = mujoco.MjModel.from_xml_path(str(scene.model_path))
        except ValueError as error:
            raise OneStrideError(f"{scene.model_path}: MuJoCo refuses the model: {error}") from None
        self.data = mujoco.MjData(self.model)
        self._resolve_joints()
        self._resolve_surroundings()
        self.reset()

    def _id(self, kind: mujoco.mjtObj, name: str) -> int:
        found = mujoco.mj_name2id(self.model, kind, name)
        if found < 0:
            count = {
                mujoco.mjtObj.mjOBJ_JOINT: self.model.njnt,
                mujoco.mjtObj.mjOBJ_BODY: self.model.nbody,
                mujoco.mjtObj.mjOBJ_ACTUATOR: self.model.nu,
            }[kind]
            names = [mujoco.mj_id2name(self.model, kind, i) for i in range(count)]
            raise unknown(f"{kind.name[6:].lower()} in the scene's model", name, names)
        return int(found)

    def _resolve_joints(self) -> None:
        joints = self.robot.joints
        ids = [self._id(mujoco.mjtObj.mjOBJ_JOINT, joint.model_joint) for joint in joints]
        self._qpos = self.model.jnt_qposadr[ids]
        self._qvel = self.model.jnt_dofadr[ids]
        self._ctrl = np.array([self._id(mujoco.mjtObj.mjOBJ_ACTUATOR, joint.actuator) for joint in joints])
        self._scale = np.array([joint.command_scale for joint in joints])

    def _resolve_surroundings(self) -> None:
        joint, body = mujoco.mjtObj.mjOBJ_JOINT, mujoco.mjtObj.mjOBJ_BODY
        self._objects = {
            name: int(self.model.jnt_qposadr[self._id(joint, tracked.joint)])
            for name, tracked in self.scene.objects.items()
        }
        self._contacts = {
            name: (self._id(body, sensor.body), sensor.full_scale) for name, sensor in self.scene.contacts.items()
        }
        self._goals = [
            (
                self._objects[goal.object],
                int(self.model.body_mocapid[self._id(body, goal.target_body)]),
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
        self.command(self.data.qpos[self._qpos])
        mujoco.mj_forward(self.model, self.data)
        self._steps = 0
        self._solved_after: int | None = None
        return self.read()

    def read(self) -> Measurement:
        """Joint state, object poses and contact readings as they are now.

        The efforts are those of the actuators in the last physics step; gravity that the model compensates is not in
        them.
        """
        mujoco.mj_rnePostConstraint(self.model, self.data)
        qpos, now = self.data.qpos, time.monotonic()
        objects = {
            name: Pose(qpos[at : at + 3].copy(), qpos[at + 3 : at + 7].copy()) for name, at in self._objects.items()
        }
        scalars = {
            name: float(np.clip(np.linalg.norm(self.data.cfrc_ext[body]) / full_scale, 0.0, 1.0))
            for name, (body, full_scale) in self._contacts.items()
        }
        streams = dict.fromkeys(("joints", *objects, *scalars), now)
        position, velocity = qpos[self._qpos].copy(), self.data.qvel[self._qvel].copy()
        effort = self.data.qfrc_actuator[self._qvel].copy()
        return Measurement(position, velocity, objects, scalars, streams, effort)

    def command(self, target: ArrayLike) -> None:
        """Set the joint controllers' targets (n,) [rad]; they hold until the next command.

        Raises:
            OneStrideError: wrong shape or a value that is not finite; the last command stays in force.
        """
        vector = np.asarray(target, dtype=np.float64)
        if vector.shape != self._ctrl.shape or not np.isfinite(vector).all():
            raise OneStrideError(f"expected {len(self._ctrl)} finite joint targets, got {vector.tolist()}")
        self.data.ctrl[self._ctrl] = vector * self._scale

    def step(self, count: int = 1) -> None:
        """Advance `count` physics steps, judging success at the end of every control period."""
        for _ in range(count):
            mujoco.mj_step(self.model, self.data)
            self._steps += 1
            periods, rest = divmod(self._steps, self.scene.substeps)
            if rest == 0 and self._solved_after is None and periods <= self.scene.last_judged and self._solved():
                self._solved_after = periods

    def _solved(self) -> bool:
        positions = ((self.data.qpos[at : at + 3], self.data.mocap_pos[mocap], tol) for at, mocap, tol in self._goals)
        return all(np.linalg.norm(position - target) <= tolerance for position, target, tolerance in positions)

    @property
    def progress(self) -> Progress:
        """How the running episode stands."""
        elapsed = self._steps * self.scene.physics_timestep
        solved = self._solved_after is not None
        over = solved or self._steps >= self.scene.horizon * self.scene.substeps
        return Progress(elapsed, solved, self._solved_after, over)

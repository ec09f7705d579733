"""What a robot in a MuJoCo scene measures: joints, objects, contacts; on legs also the base and the feet."""

from __future__ import annotations

import time

import mujoco
import numpy as np

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.legs import Base
from onestride.hardware.scene import SceneDescription
from onestride.hardware.state import Array, Inertial, Measurement, Pose

_COUNTS = {
    mujoco.mjtObj.mjOBJ_JOINT: "njnt",
    mujoco.mjtObj.mjOBJ_BODY: "nbody",
    mujoco.mjtObj.mjOBJ_ACTUATOR: "nu",
    mujoco.mjtObj.mjOBJ_SITE: "nsite",
    mujoco.mjtObj.mjOBJ_GEOM: "ngeom",
}


def identify(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    """Index of the named part of a model.

    Raises:
        OneStrideError: there is none; the message names those there are.
    """
    found = mujoco.mj_name2id(model, kind, name)
    if found < 0:
        names = [mujoco.mj_id2name(model, kind, i) for i in range(getattr(model, _COUNTS[kind]))]
        raise unknown(f"{kind.name[6:].lower()} in the scene's model", name, [one for one in names if one])
    return int(found)


class Readings:
    """Reads the state of a scene.

    Args:
        model: of the scene.
        data: of its state.
        scene: what is tracked in it.
        robot: what measures.
        odometry: whether the base's true velocity is read as `base_velocity`, as a driver with odometry has it.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        scene: SceneDescription,
        robot: RobotDescription,
        *,
        odometry: bool = False,
    ) -> None:
        self._model, self._data = model, data
        ids = [identify(model, mujoco.mjtObj.mjOBJ_JOINT, joint.model_joint) for joint in robot.joints]
        self.qpos, self.dofs = model.jnt_qposadr[ids], model.jnt_dofadr[ids]
        self.objects = {name: self._free_joint(tracked.joint) for name, tracked in scene.objects.items()}
        body = mujoco.mjtObj.mjOBJ_BODY
        self._contacts = {
            name: (identify(model, body, sensor.body), sensor.full_scale) for name, sensor in scene.contacts.items()
        }
        self._base = None if robot.base is None else BaseReadings(model, data, robot.base, odometry=odometry)

    def _free_joint(self, name: str) -> int:
        return int(self._model.jnt_qposadr[identify(self._model, mujoco.mjtObj.mjOBJ_JOINT, name)])

    def read(self) -> Measurement:
        """Every stream as it is now; efforts, forces and accelerations are those of the last physics step."""
        mujoco.mj_rnePostConstraint(self._model, self._data)
        qpos = self._data.qpos
        objects = {
            name: Pose(qpos[at : at + 3].copy(), qpos[at + 3 : at + 7].copy()) for name, at in self.objects.items()
        }
        scalars = {
            name: float(np.clip(np.linalg.norm(self._data.cfrc_ext[body]) / full_scale, 0.0, 1.0))
            for name, (body, full_scale) in self._contacts.items()
        }
        imu = None if self._base is None else self._base.inertial()
        vectors = {} if self._base is None else self._base.vectors()
        names = ("joints", *objects, *scalars, *vectors, *(() if imu is None else ("imu",)))
        return Measurement(
            qpos[self.qpos].copy(),
            self._data.qvel[self.dofs].copy(),
            objects,
            scalars,
            dict.fromkeys(names, time.monotonic()),
            self._data.qfrc_actuator[self.dofs].copy(),
            imu,
            vectors,
        )


class BaseReadings:
    """The base's inertial sensor, its feet, and its true velocity.

    Args:
        model: of the scene.
        data: of its state.
        base: what is read.
        odometry: whether `base_velocity` is among the vectors.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, base: Base, *, odometry: bool = False) -> None:
        self._model, self._data, self._odometry = model, data, odometry
        body = identify(model, mujoco.mjtObj.mjOBJ_BODY, base.body)
        joint = int(model.body_jntadr[body])
        if joint < 0 or model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_FREE:
            raise unknown("body with a free joint in the scene's model", base.body, _free_bodies(model))
        self._qpos, self._dofs = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
        self._site = identify(model, mujoco.mjtObj.mjOBJ_SITE, base.imu)
        if model.site_bodyid[self._site] != body:
            raise OneStrideError(f"expected the inertial sensor {base.imu} on the body {base.body}")
        self._turn, self._offset = model.site_quat[self._site].copy(), model.site_pos[self._site].copy()
        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, self._turn)
        self._rotation = matrix.reshape(3, 3).copy()  # R_BS: the sensor's axes in the body's frame
        geoms = [identify(model, mujoco.mjtObj.mjOBJ_GEOM, foot.geom) for foot in base.feet]
        self._foot_of = {geom: foot for foot, geom in enumerate(geoms)}
        self._acceleration, self._wrench = np.empty(6), np.empty(6)

    def inertial(self) -> Inertial:
        """The sensor's orientation, angular velocity and specific force, in its own frame."""
        orientation = np.empty(4)
        mujoco.mju_mulQuat(orientation, self._quaternion(), self._turn)
        site = mujoco.mjtObj.mjOBJ_SITE
        mujoco.mj_objectAcceleration(self._model, self._data, site, self._site, self._acceleration, 1)
        return Inertial(orientation, self._angular_velocity() @ self._rotation, self._acceleration[3:].copy())

    def vectors(self) -> dict[str, Array]:
        """`foot_forces` (k,) [N] normal to what the feet stand on, and `base_velocity` where it is published."""
        vectors = {"foot_forces": self._foot_forces()}
        return {**vectors, "base_velocity": self.velocity()} if self._odometry else vectors

    def velocity(self) -> Array:
        """True velocity (3,) [m/s] of the inertial sensor, which is the base's origin, in the base's frame."""
        linear, inverse = np.empty(3), np.empty(4)
        mujoco.mju_negQuat(inverse, self._quaternion())
        mujoco.mju_rotVecQuat(linear, self._data.qvel[self._dofs : self._dofs + 3], inverse)
        velocity: Array = (linear + np.cross(self._angular_velocity(), self._offset)) @ self._rotation
        return velocity

    def _quaternion(self) -> Array:
        """`q_WB` (4,) of the body."""
        quaternion: Array = self._data.qpos[self._qpos + 3 : self._qpos + 7]
        return quaternion

    def _angular_velocity(self) -> Array:
        """Of the body, in its own frame (3,) [rad/s]."""
        velocity: Array = self._data.qvel[self._dofs + 3 : self._dofs + 6]
        return velocity

    def _foot_forces(self) -> Array:
        forces = np.zeros(len(self._foot_of))
        for index, pair in enumerate(self._data.contact.geom.tolist()):
            for foot in (self._foot_of[geom] for geom in pair if geom in self._foot_of):
                mujoco.mj_contactForce(self._model, self._data, index, self._wrench)
                forces[foot] += self._wrench[0]
        return forces


def _free_bodies(model: mujoco.MjModel) -> list[str]:
    free = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
    return [model.body(int(model.jnt_bodyid[joint])).name for joint in free]

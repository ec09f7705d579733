"""The legs of a quadruped with two equal links: where the feet are, which angles take them somewhere, and Jacobians.

Each leg has an abduction about x, then, offset sideways, thigh and calf about y; with all angles 0 it hangs down.
Positions are (L, 3) [m] in the base's frame, seen from each leg's abduction axis; angles (L, 3) [rad] are abduction,
thigh, calf. The knee bends backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array


@dataclass(frozen=True)
class Legs:
    """Dimensions of all legs.

    Attributes:
        hips: where the abduction axes are in the base's frame (L, 3) [m].
        offsets: from the abduction axis sideways to the thigh's, positive to the left (L,) [m].
        link: length of thigh and of calf [m].
        radius: of the feet [m].
    """

    hips: Array
    offsets: Array
    link: float
    radius: float

    @classmethod
    def of(cls, model: mujoco.MjModel, robot: RobotDescription) -> Legs:
        """Measured off a robot's MuJoCo model.

        Raises:
            OneStrideError: the robot does not walk.
        """
        if robot.base is None:
            raise OneStrideError(f"robot {robot.id}: expected a floating base with feet, got none")
        joints = {joint.name: model.joint(joint.model_joint) for joint in robot.joints}
        data = mujoco.MjData(model)
        data.qpos[:] = 0.0
        data.qpos[3] = 1.0
        mujoco.mj_kinematics(model, data)
        places = np.array([[data.xanchor[joints[name].id] for name in foot.joints] for foot in robot.base.feet])
        hip, thigh, calf = places.transpose(1, 0, 2)
        radius = float(model.geom(robot.base.feet[0].geom).size[0])
        link = float(np.linalg.norm(calf - thigh, axis=1).mean())
        return cls(hip - data.body(robot.base.body).xpos, (thigh - hip)[:, 1], link, radius)

    def feet(self, angles: Array) -> Array:
        """Where the feet are (L, 3)."""
        abduction, thigh, calf = angles.T
        x = -self.link * (np.sin(thigh) + np.sin(thigh + calf))
        down = -self.link * (np.cos(thigh) + np.cos(thigh + calf))
        cos, sin = np.cos(abduction), np.sin(abduction)
        return np.stack([x, self.offsets * cos - down * sin, self.offsets * sin + down * cos], axis=1)

    def angles(self, feet: Array) -> Array:
        """The angles (L, 3) that take the feet there; out of reach, towards there."""
        x, y, z = feet.T
        down = -np.sqrt(np.maximum(y**2 + z**2 - self.offsets**2, (0.2 * self.link) ** 2))
        abduction = np.arctan2(z, y) - np.arctan2(down, self.offsets)
        abduction = (abduction + np.pi) % (2 * np.pi) - np.pi
        calf = -np.arccos(np.clip((x**2 + down**2) / (2 * self.link**2) - 1.0, -1.0, 1.0))
        return np.stack([abduction, np.arctan2(-x, -down) - calf / 2, calf], axis=1)

    def jacobians(self, angles: Array) -> Array:
        """How the feet move with the angles (L, 3, 3): rows x, y, z."""
        abduction, thigh, calf = angles.T
        down, lower = -self.link * (np.cos(thigh) + np.cos(thigh + calf)), self.link * np.sin(thigh + calf)
        swung, cos, sin = self.link * np.sin(thigh) + lower, np.cos(abduction), np.sin(abduction)
        jacobian = np.zeros((len(angles), 3, 3))
        jacobian[:, 1, 0], jacobian[:, 2, 0] = -self.offsets * sin - down * cos, self.offsets * cos - down * sin
        for column, (along, across) in enumerate(((down, swung), (-self.link * np.cos(thigh + calf), lower)), start=1):
            jacobian[:, 0, column] = along
            jacobian[:, 1, column], jacobian[:, 2, column] = -across * sin, across * cos
        return jacobian

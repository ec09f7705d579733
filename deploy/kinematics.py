"""Where the robot's frames are, and which joint targets move a frame by an increment.

MuJoCo computes forward kinematics and Jacobians; inverse kinematics is damped least squares on them.
"""

from __future__ import annotations

import math
from pathlib import Path

import mujoco
import numpy as np

from onestride.deploy.kinematic_model import kinematic_model
from onestride.deploy.terms import IncrementKinematics
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Array


def yaw_of_matrix(rotation: Array) -> float:
    """Rotation about the world's z axis [rad] of a rotation matrix (3, 3)."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def yaw_of_quaternion(quaternion: Array) -> float:
    """Rotation about the world's z axis [rad] of a quaternion (4,) wxyz."""
    w, x, y, z = quaternion
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def wrap(angle: float) -> float:
    """The same angle in [-pi, pi]."""
    return float(np.arctan2(np.sin(angle), np.cos(angle)))


class ForwardKinematics:
    """Poses of a robot's frames in the world. Not thread-safe: one instance per thread.

    Args:
        model: that holds the robot.
        robot: whose frames are asked for.
        solids: whether the model still has all shapes that may touch something.
    """

    def __init__(self, model: mujoco.MjModel, robot: RobotDescription, *, solids: bool = True) -> None:
        self.model, self.robot, self.solids = model, robot, solids
        self.data = mujoco.MjData(model)
        self.qpos = np.array([self._joint(joint.model_joint, model.jnt_qposadr) for joint in robot.joints])
        self.dofs = np.array([self._joint(joint.model_joint, model.jnt_dofadr) for joint in robot.joints])
        self._sites = {frame: self._site(site) for frame, site in robot.frames.items()}

    @classmethod
    def load(cls, model_path: Path, robot: RobotDescription, *, solids: bool = True) -> ForwardKinematics:
        """Read what kinematics needs of the MuJoCo model that holds the robot, see `kinematic_model`.

        Raises:
            OneStrideError: the model is unreadable or lacks a joint, a frame or a capsule's body of the robot.
        """
        try:
            return cls(kinematic_model(model_path, robot, solids=solids), robot, solids=solids)
        except ValueError as error:
            raise OneStrideError(f"{model_path}: MuJoCo refuses the model: {error}") from None

    def _joint(self, name: str, addresses: Array) -> int:
        index = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_JOINT, name)
        if index < 0:
            names = [self.model.joint(i).name for i in range(self.model.njnt)]
            raise unknown(f"joint of robot {self.robot.id} in its model", name, names)
        return int(addresses[index])

    def _site(self, name: str) -> int:
        index = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SITE, name)
        if index < 0:
            names = [self.model.site(i).name for i in range(self.model.nsite)]
            raise unknown(f"frame of robot {self.robot.id} in its model", name, names)
        return int(index)

    def site(self, frame: str) -> int:
        """Index of the site that is `frame`.

        Raises:
            OneStrideError: the robot has no such frame.
        """
        if frame not in self._sites:
            raise unknown(f"frame of robot {self.robot.id}", frame, self._sites)
        return self._sites[frame]

    def place(self, position: Array, velocity: Array | None = None, delay: float = 0.0) -> None:
        """Put the joints at `position` (n,) [rad], taken back by `delay` [s] along `velocity` (n,) [rad/s]."""
        taken_back = position if velocity is None or delay == 0.0 else position - delay * velocity
        self.data.qpos[self.qpos] = taken_back
        mujoco.mj_kinematics(self.model, self.data)

    def position(self, frame: str) -> Array:
        """`p_WF` (3,) [m] at the joints last placed."""
        return np.array(self.data.site_xpos[self.site(frame)])

    def rotation(self, frame: str) -> Array:
        """`R_WF` (3, 3) at the joints last placed."""
        return np.array(self.data.site_xmat[self.site(frame)]).reshape(3, 3)


class IncrementSolver:
    """Joint targets that move a frame by an increment from its measured pose."""

    def __init__(self, terms: IncrementKinematics, forward: ForwardKinematics) -> None:
        self.terms, self.forward = terms, forward
        self._joints = np.array(forward.robot.indices(terms.joints))
        self._site = forward.site(terms.solved_frame)
        self._qpos, self._dofs = forward.qpos[self._joints], forward.dofs[self._joints]
        self._jacobian = np.empty((6, forward.model.nv))
        self._error = np.empty(6)
        self._quaternion, self._inverse, self._difference = np.empty(4), np.empty(4), np.empty(4)
        self._damping, self._step = terms.damping * np.eye(6), np.empty(6)
        self._orientation = np.array(terms.orientation)
        self._lowest, self._highest = (np.array(corner) for corner in terms.workspace)
        self._offset, self._turn = self._rigid_transform()

    def _rigid_transform(self) -> tuple[Array, Array]:
        """`X_FS`: the solved frame in the moved frame, as `p_FS` (3,) and `q_FS` (4,)."""
        forward, terms = self.forward, self.terms
        forward.place(np.array([joint.default for joint in forward.robot.joints]))
        frame, solved = forward.rotation(terms.frame), forward.rotation(terms.solved_frame)
        offset = frame.T @ (forward.position(terms.solved_frame) - forward.position(terms.frame))
        turn = np.empty(4)
        mujoco.mju_mat2Quat(turn, (frame.T @ solved).ravel())
        return offset, turn

    def target(self, position: Array, velocity: Array, translation: Array, yaw: float) -> Array:
        """Joint targets for an increment.

        Args:
            position: all measured joint positions (n,) [rad].
            velocity: all measured joint velocities (n,) [rad/s].
            translation: of the frame in the world (3,) [m]; the result stays in the workspace.
            yaw: turn of the frame about the world's z axis [rad].

        Returns:
            Targets (k,) [rad] of the joints that `terms` names.
        """
        self.forward.place(position, velocity, self.terms.delay)
        wanted = self.forward.position(self.terms.frame) + translation
        wanted = np.minimum(np.maximum(wanted, self._lowest), self._highest)
        turned = wrap(yaw + yaw_of_matrix(self.forward.rotation(self.terms.frame)))
        quaternion = np.empty(4)
        about_z = np.array([np.cos(turned / 2), 0.0, 0.0, np.sin(turned / 2)])
        mujoco.mju_mulQuat(quaternion, about_z, self._orientation)
        return self._solve(*self._solved_pose(wanted, quaternion), position)

    def _solved_pose(self, position: Array, quaternion: Array) -> tuple[Array, Array]:
        """Pose of the solved frame that puts the moved frame at `position` and `quaternion`."""
        shift, turned = np.empty(3), np.empty(4)
        mujoco.mju_rotVecQuat(shift, self._offset, quaternion)
        mujoco.mju_mulQuat(turned, quaternion, self._turn)
        return position + shift, turned

    def _solve(self, position: Array, quaternion: Array, start: Array) -> Array:
        """Damped least squares from the measured joints `start` (n,); the joints when the tolerances are met.

        Reference: Buss, "Introduction to inverse kinematics" (2009), section 6.
        """
        model, data = self.forward.model, self.forward.data
        data.qpos[self.forward.qpos] = start
        for _ in range(self.terms.iterations):
            mujoco.mj_kinematics(model, data)
            self._pose_error(position, quaternion)
            if self._within_tolerance():
                break
            data.qpos[self._qpos] += self._joint_step()
        return np.array(data.qpos[self._qpos])

    def _joint_step(self) -> Array:
        """`Jᵀ (J Jᵀ + damping)⁻¹ error` (k,) [rad], shortened to the largest step."""
        model, data, terms = self.forward.model, self.forward.data, self.terms
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        jacobian = self._jacobian[:, self._dofs]
        step = jacobian.T @ self._solved(jacobian @ jacobian.T + self._damping)
        return np.asarray(step * min(1.0, terms.max_joint_step / max(float(np.abs(step).max()), 1e-12)))

    def _solved(self, square: Array) -> Array:
        """The error (6,) through a symmetric matrix (6, 6), whose factor takes its place.

        No pivot of the matrix is below the damping, but for rounding.
        """
        mujoco.mju_cholFactor(square, max(self.terms.damping, mujoco.mjMINVAL))
        mujoco.mju_cholSolve(self._step, square, self._error)
        return self._step

    def _pose_error(self, position: Array, quaternion: Array) -> None:
        data = self.forward.data
        self._error[:3] = position - data.site_xpos[self._site]
        mujoco.mju_mat2Quat(self._quaternion, data.site_xmat[self._site])
        mujoco.mju_negQuat(self._inverse, self._quaternion)
        mujoco.mju_mulQuat(self._difference, quaternion, self._inverse)
        mujoco.mju_quat2Vel(self._error[3:], self._difference, 1.0)

    def _within_tolerance(self) -> bool:
        p, r, terms = self._error[:3], self._error[3:], self.terms
        return math.sqrt(p @ p) <= terms.position_tolerance and math.sqrt(r @ r) <= terms.orientation_tolerance

"""Where the robot's axes are, and how fast a point of a link moves when a joint does.

Every geometric claim asks for the same few numbers at the same configuration, so that they are computed once a tick:
one `mj_kinematics` for the commands last sent, one for the command to be sent, which is the next tick's last one.

A joint is a screw: the force `f` at point `p` has the power `(p x f, f) . (z, o x z)` per unit speed of a hinge about
axis `z` through `o`. One matrix product gives the rates of all distances, without a Jacobian for any of the points.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from onestride.deploy.kinematics import ForwardKinematics
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Array

#: The axes after each one, once and twice round.
NEXT, AFTER_NEXT = np.array([1, 2, 0]), np.array([2, 0, 1])


def cross(a: Array, b: Array) -> Array:
    """Cross products of vectors (..., 3); numpy's own takes ten times as long for a few."""
    ahead, behind = a.take(NEXT, -1) * b.take(AFTER_NEXT, -1), a.take(AFTER_NEXT, -1) * b.take(NEXT, -1)
    return np.asarray(ahead - behind)


def hinge_screws(axes: Array, anchors: Array) -> Array:
    """Screws (..., n, 6) of hinges about axes (..., n, 3) through anchors (..., n, 3)."""
    return np.concatenate([axes, cross(anchors, axes)], axis=-1)


def rates(points: Array, directions: Array, moves: Array, screws: Array) -> Array:
    """How fast points move along directions, per unit speed of each joint.

    Args:
        points: (..., m, 3) [m].
        directions: unit vectors (..., m, 3).
        moves: 1 where a joint moves the point, -1 where it moves what the point is measured from, else 0 (m, n).
        screws: of the joints (..., n, 6).

    Returns:
        (..., m, n) [m/rad].
    """
    wrenches = np.concatenate([cross(points, directions), directions], axis=-1)
    return np.asarray(moves * (wrenches @ np.swapaxes(screws, -1, -2)))


class Frames:
    """The robot's geometry in one configuration after another. Not thread-safe: one instance per thread.

    Attributes:
        model: the MuJoCo model.
        data: its state at the configuration last placed.
    """

    def __init__(self, forward: ForwardKinematics) -> None:
        self.forward, self.robot, self.model = forward, forward.robot, forward.model
        self.data = mujoco.MjData(self.model)
        names = [joint.model_joint for joint in self.robot.joints]
        self.joints = [mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_JOINT, name) for name in names]
        for joint in self.robot.joints:
            if self.model.joint(joint.model_joint).type[0] != mujoco.mjtJoint.mjJNT_HINGE:
                raise OneStrideError(f"geometry rows: expected hinges, but joint {joint.name} is none")
        self._columns = np.array(self.joints)
        self._jacobian = np.empty((3, self.model.nv))
        self._last = b""

    def place(self, position: Array) -> None:
        """Put the robot's joints at `position` (n,) [rad]."""
        key = position.tobytes()
        if key != self._last:
            self.data.qpos[self.forward.qpos] = position
            mujoco.mj_kinematics(self.model, self.data)
            mujoco.mj_comPos(self.model, self.data)
            self._last = key

    @property
    def screws(self) -> Array:
        """Of the robot's joints (n, 6)."""
        return hinge_screws(self.data.xaxis.take(self._columns, 0), self.data.xanchor.take(self._columns, 0))

    def site_jacobian(self, site: int) -> Array:
        """Velocity of a site's origin per unit speed of each of the robot's joints (3, n) [m/rad]."""
        mujoco.mj_jacSite(self.model, self.data, self._jacobian, None, site)
        return np.asarray(self._jacobian[:, self.forward.dofs])

    def body(self, name: str) -> int:
        """Index of a body of the model.

        Raises:
            OneStrideError: the model has none of that name.
        """
        index = int(mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, name))
        if index < 0:
            names = [self.model.body(i).name for i in range(self.model.nbody)]
            raise unknown(f"body of the model of robot {self.robot.id}", name, names)
        return index

    def path(self, body: int) -> list[int]:
        """The body and the bodies that carry it, the world excluded, outermost first."""
        bodies = []
        while body != 0:
            bodies.append(body)
            body = int(self.model.body_parentid[body])
        return bodies

    def model_joints(self, body: int) -> list[int]:
        """The model's joints that move a body, also those that the robot does not command."""
        model = self.model
        return [int(model.body_jntadr[one]) + k for one in self.path(body) for k in range(int(model.body_jntnum[one]))]

    def moved_by(self, body: int) -> NDArray[np.bool_]:
        """Which of the robot's joints move a body (n,)."""
        return np.isin(self._columns, self.model_joints(body))

    def unstoppable(self, body: int) -> list[str]:
        """The joints that move a body and of whose stop nothing is declared: no speed, or not the robot's at all."""
        known = {joint.model_joint for joint in self.robot.joints if joint.velocity is not None}
        names = [self.model.joint(joint).name for joint in self.model_joints(body)]
        return [name for name in names if name not in known]

    def levers(self, body: int, offset: float) -> Array:
        """How far from each joint's axis a point of a body can get, in any configuration; 0 where it is not moved.

        Lengths of the links in between are added up, as if they were stretched out.

        Args:
            body: that the point belongs to.
            offset: of the point from the body's origin [m].

        Returns:
            (n,) [m], never smaller for a joint further in.
        """
        levers, length, longest = np.zeros(len(self.joints)), offset, 0.0
        for one in self.path(body):
            joints = range(
                int(self.model.body_jntadr[one]), int(self.model.body_jntadr[one] + self.model.body_jntnum[one])
            )
            for joint in reversed(joints):
                anchor = float(np.linalg.norm(self.model.jnt_pos[joint]))
                longest = max(longest, length + anchor)
                levers[self._columns == joint] = longest
                length += 2 * anchor
            length += float(np.linalg.norm(self.model.body_pos[one]))
        return levers

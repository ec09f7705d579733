"""Distances between the robot's links, and between them and what stands still in the model.

MuJoCo measures the distance of two shapes and their nearest points; of meshes it takes the convex hulls. Objects that
move, such as tracked ones, and links that are moved by joints of whose stop nothing is declared, as the fingers of a
gripper are, are no part of the claim: `pairs` says which. Capsules that are declared in their place are.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from onestride.deploy.safety.clearance import Clearance
from onestride.deploy.safety.distance import geom_distance
from onestride.deploy.safety.frames import Frames, cross, rates
from onestride.deploy.safety.pairs import Pair, PairChoice
from onestride.hardware.safety.geometry import CollisionRow
from onestride.hardware.state import Array

#: Shapes this near [m] have no direction between them.
NOTHING = 1e-9


class Collision:
    """Measures the distances of the pairs that a robot's declaration asks for.

    Attributes:
        pairs: the pairs, and what was left out.

    Raises:
        OneStrideError: see `PairChoice`.
    """

    def __init__(self, terms: CollisionRow, frames: Frames) -> None:
        self._terms, self._frames, self._model = terms, frames, frames.model
        frames.place(np.array([joint.default for joint in frames.robot.joints]))
        self.pairs = PairChoice(terms, frames).choose()
        self._geoms = np.reshape(self.pairs.geoms, (-1, 2)).astype(int)
        self.names = tuple(self._name(pair) for pair in self.pairs.geoms)
        self._arrange()

    def _name(self, pair: Pair) -> str:
        """The two bodies, and which geoms they are, because bodies have several."""
        bodies = [self._model.body(self._model.geom_bodyid[geom]).name for geom in pair]
        return f"{bodies[0]}#{pair[0]}-{bodies[1]}#{pair[1]}"

    def _arrange(self) -> None:
        """Which joints move which side of each pair (m, n), with what levers, and how large the sides are."""
        sides = [[self._side(geom) for geom in pair] for pair in self.pairs.geoms]
        n, radii = len(self._frames.joints), self._model.geom_rbound[self._geoms]
        moved, lever = (np.reshape([[side[part] for side in pair] for pair in sides], (-1, 2, n)) for part in (0, 1))
        alone = moved * (1.0 - moved[:, ::-1])  # joints that move both sides leave the distance as it is
        self._moves, self._alone = alone[:, 1] - alone[:, 0], alone
        self._lever = (lever * alone).sum(1)
        self._bend = np.sqrt(self._lever)
        self._core = np.reshape([core_of(self._model, geom) for geom in self._geoms.flat], (-1, 2, 1))
        self._radius, self._endless = radii.sum(1), radii[:, 1] == 0

    def _side(self, geom: int) -> tuple[Array, Array]:
        """Of one geom: which joints move it (n,), and their levers (n,) [m]."""
        model, frames = self._model, self._frames
        body = int(model.geom_bodyid[geom])
        offset = float(np.linalg.norm(model.geom_pos[geom]) + model.geom_rbound[geom])
        return frames.moved_by(body).astype(float), frames.levers(body, offset)

    def at(self, position: Array) -> Clearance:
        """The distances at joint positions (B, n) [rad]."""
        each = [self._measured(one) for one in position]
        if len(each) == 1:
            return each[0]
        parts = zip(*((one.distance, one.rate, one.turn, one.bend) for one in each), strict=True)
        return Clearance(*(np.concatenate(part) for part in parts))

    def _measured(self, position: Array) -> Clearance:
        """Pairs further apart than `look` are bounded by their bounding spheres and how far their links can reach."""
        self._frames.place(position)
        centres = self._frames.data.geom_xpos.take(self._geoms, 0)
        between = centres[:, 1] - centres[:, 0]
        apart = np.sqrt(np.add.reduce(between * between, axis=-1)) - self._radius
        near = self._endless | (apart < self._terms.look)
        distance, ends = np.where(near, self._terms.look, apart), np.zeros((len(near), 6))
        self._measure(np.flatnonzero(near), distance, ends)
        known = (near & (distance < self._terms.look))[:, None]
        direction = (ends[:, 3:] - ends[:, :3]) / np.where(np.abs(distance) > NOTHING, distance, np.inf)[:, None]
        screws = self._frames.screws
        rate = rates(ends[:, :3], direction, self._moves, screws) * known
        turn = np.where(known, self._turn(centres - ends.reshape(-1, 2, 3), direction, screws[:, :3]), self._lever)
        bend = np.where(known, self._bend, 0.0)
        return Clearance((distance - self._terms.margin)[None], rate[None], turn[None], bend[None])

    def _turn(self, inwards: Array, direction: Array, axes: Array) -> Array:
        """How fast other points than the nearest can come nearer, at most, than those do (m, n) [m/rad].

        Args:
            inwards: from the nearest points to the middles of their shapes (m, 2, 3) [m].
            direction: from one nearest point to the other (m, 3).
            axes: of the joints (n, 3).
        """
        across = np.sqrt(np.maximum(1.0 - (direction @ axes.T) ** 2, 0.0))
        middles = np.abs(cross(inwards, direction[:, None]) @ axes.T)
        return np.asarray((self._alone * (middles + self._core * across[:, None])).sum(1))

    def _measure(self, which: NDArray[np.intp], distance: Array, ends: Array) -> None:
        model, data, look = self._model, self._frames.data, self._terms.look
        for index in which.tolist():
            distance[index] = geom_distance(model, data, self.pairs.geoms[index], look, ends[index])


def core_of(model: mujoco.MjModel, geom: int) -> float:
    """How far a shape's points are from its middle, at most, less its rounding [m].

    A sphere is a point with a rounding and a capsule a line; any other shape has no rounding.
    """
    kind, size = model.geom_type[geom], model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return 0.0
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return float(size[1])
    return float(model.geom_rbound[geom])

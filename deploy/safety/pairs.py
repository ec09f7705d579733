"""Which pairs of shapes of a MuJoCo model are kept apart: declared by body, or all that MuJoCo would let collide."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import mujoco
import numpy as np

from onestride.deploy.safety.capsules import ADDED
from onestride.deploy.safety.distance import geom_distance
from onestride.deploy.safety.frames import Frames
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.geometry import CollisionRow

Pair = tuple[int, int]

#: Flat or hollow shapes have no inside that could be bounded when a joint turns them.
ENDLESS = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)


@dataclass
class Pairs:
    """Pairs of geoms, the first moved by the robot, and what was left out of them.

    Attributes:
        geoms: indices of the two geoms of each pair.
        unclaimed: bodies that no claim is made about, and why.
        touching: pairs of bodies that are nearer than the margin in the default pose.
    """

    geoms: list[Pair] = field(default_factory=list)
    unclaimed: dict[str, str] = field(default_factory=dict)
    touching: list[tuple[str, str]] = field(default_factory=list)


class PairChoice:
    """Chooses the pairs of one model.

    Raises:
        OneStrideError: the model was loaded without its solids; from `choose`, for an unknown body or one about which
            nothing can be claimed.
    """

    def __init__(self, terms: CollisionRow, frames: Frames) -> None:
        if not frames.forward.solids:
            raise OneStrideError("collision: expected a model with the shapes that may touch, got one without")
        self._terms, self._frames, self._model = terms, frames, frames.model
        self._replaced = {frames.body(one.body) for one in terms.capsules}

    def choose(self) -> Pairs:
        """The pairs in the order of the model's geoms, those that touch in the robot's default pose left out."""
        found = Pairs()
        pairs = self._chosen(found) if self._terms.pairs is None else self._declared()
        for pair in pairs:
            self._check_ends(pair)
            if self._touch(pair):
                self._left_out(pair, found)
            else:
                found.geoms.append(pair)
        return found

    def _body(self, geom: int) -> int:
        return int(self._model.geom_bodyid[geom])

    def _name(self, geom: int) -> str:
        return str(self._model.body(self._body(geom)).name)

    def _counts(self, geom: int) -> bool:
        """Whether a geom is one that its body is seen by: what may collide, or the capsules in place of it."""
        if self._body(geom) in self._replaced:
            return str(self._model.geom(geom).name).startswith(ADDED)
        return bool(self._model.geom_contype[geom] or self._model.geom_conaffinity[geom])

    def _why_not(self, body: int) -> str:
        """Why nothing can be claimed about a body; empty if something can."""
        if self._model.body_mocapid[self._model.body_rootid[body]] >= 0:
            return "it is moved from outside"
        loose = self._frames.unstoppable(body)
        return f"it is moved by {loose[0]}, of whose stop nothing is declared" if loose else ""

    def _chosen(self, found: Pairs) -> list[Pair]:
        geoms = []
        for geom in range(self._model.ngeom):
            if self._counts(geom):
                reason = self._why_not(self._body(geom))
                if reason:
                    found.unclaimed[self._name(geom)] = reason
                else:
                    geoms.append(geom)
        ignored = {frozenset(self._frames.body(name) for name in pair) for pair in self._terms.ignore}
        ordered = (self._moving_first(pair) for pair in combinations(geoms, 2))
        return [pair for pair in ordered if pair and self._may_collide(pair, ignored)]

    def _moving_first(self, pair: Pair) -> Pair | None:
        moving = [geom for geom in pair if self._frames.moved_by(self._body(geom)).any()]
        if not moving:
            return None
        return pair if pair[0] == moving[0] else (pair[1], pair[0])

    def _may_collide(self, pair: Pair, ignored: set[frozenset[int]]) -> bool:
        bodies = [self._body(geom) for geom in pair]
        excluded = (bodies[0] << 16) + bodies[1], (bodies[1] << 16) + bodies[0]
        if frozenset(bodies) in ignored or any(one in self._model.exclude_signature for one in excluded):
            return False
        return not self._adjacent(*bodies) and self._masks_agree(pair)

    def _adjacent(self, a: int, b: int) -> bool:
        """Whether two bodies are one rigid part, or two with nothing but a joint in between; the world is no part."""
        model = self._model
        if 0 in (a, b):
            return False
        parts = [int(model.body_weldid[body]) for body in (a, b)]
        carried_by = [int(model.body_weldid[model.body_parentid[part]]) for part in parts]
        return parts[0] == parts[1] or carried_by[0] == parts[1] or carried_by[1] == parts[0]

    def _masks_agree(self, pair: Pair) -> bool:
        if any(self._body(geom) in self._replaced for geom in pair):
            return True
        a, b = pair
        types, affinities = self._model.geom_contype, self._model.geom_conaffinity
        return bool(types[a] & affinities[b] or types[b] & affinities[a])

    def _declared(self) -> list[Pair]:
        found = []
        for names in self._terms.pairs or ():
            sides = [self._geoms_of(name) for name in names]
            pairs = [self._moving_first((a, b)) for a in sides[0] for b in sides[1]]
            found += [pair for pair in pairs if pair]
            if not any(pairs):
                raise OneStrideError(f"collision: the robot moves neither {names[0]} nor {names[1]}")
        return found

    def _geoms_of(self, name: str) -> list[int]:
        body = self._frames.body(name)
        reason = self._why_not(body)
        if reason:
            raise OneStrideError(f"collision: nothing can be claimed about body {name}: {reason}")
        geoms = [geom for geom in range(self._model.ngeom) if self._body(geom) == body and self._counts(geom)]
        if not geoms:
            raise OneStrideError(f"collision: body {name} has no geometry that may collide; declare capsules for it")
        return geoms

    def _check_ends(self, pair: Pair) -> None:
        for geom in pair:
            moved = self._frames.moved_by(self._body(geom)).any()
            if moved and self._model.geom_type[geom] in ENDLESS:
                raise OneStrideError(f"collision: body {self._name(geom)} carries a plane or height field")

    def _touch(self, pair: Pair) -> bool:
        margin = self._terms.margin
        return geom_distance(self._model, self._frames.data, pair, 2.0 * margin, np.empty(6)) < margin

    def _left_out(self, pair: Pair, found: Pairs) -> None:
        names = self._name(pair[0]), self._name(pair[1])
        if self._terms.pairs is not None:
            raise OneStrideError(f"collision: {names[0]} and {names[1]} touch in the default pose")
        found.touching.append(names)

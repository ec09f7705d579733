"""Distances of balls around named frames to the half-spaces they stay in and the spheres and boxes they stay out of.

Each function takes positions (..., F, 3) and gives distances (..., F, k), negative beyond the surface, and the unit
directions (..., F, k, 3) in which they grow fastest. All these surfaces bound convex regions that are kept out of.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onestride.deploy.safety.clearance import Clearance
from onestride.deploy.safety.frames import Frames
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.geometry import WorkspaceRow
from onestride.hardware.state import Array

Distances = tuple[Array, Array]

#: Keeps a division by zero away; a length that is not zero is larger [m].
SMALLEST = 1e-200


def half_space_distances(positions: Array, normals: Array, offsets: Array) -> Distances:
    """To the half-spaces `normal . p <= offset`, with unit normals (k, 3) and offsets (k,) [m]."""
    distances = offsets - positions @ normals.T
    directions = np.empty((*distances.shape, 3))
    directions[:] = -normals
    return distances, directions


def sphere_distances(positions: Array, centres: Array, radii: Array) -> Distances:
    """To the surfaces of balls with centres (k, 3) [m] and radii (k,) [m]."""
    away = positions[..., None, :] - centres
    length = _length(away)
    safe = np.maximum(length, SMALLEST)
    if np.count_nonzero(length) < length.size:
        away[length == 0.0] = 0.0, 0.0, SMALLEST  # any direction leads out of the centre
    return length - radii, away / safe[..., None]


def box_distances(positions: Array, centres: Array, halves: Array) -> Distances:
    """To the surfaces of boxes with centres (k, 3) [m] and half sides (k, 3) [m], parallel to the axes."""
    away = positions[..., None, :] - centres
    beyond = np.abs(away) - halves
    furthest = np.maximum.reduce(beyond, axis=-1)
    outwards, inside = np.maximum(beyond, 0.0), furthest <= 0
    if np.count_nonzero(inside):
        outwards[inside] = np.eye(3)[beyond[inside].argmax(-1)]
    length = _length(outwards)
    directions = np.copysign(outwards / length[..., None], away)
    return np.where(inside, furthest, length), directions


def _length(vectors: Array) -> Array:
    """Of vectors (..., 3)."""
    return np.asarray(np.sqrt(np.add.reduce(vectors * vectors, axis=-1)))


class Workspace:
    """Measures the distances that a robot's declared workspace is about.

    Raises:
        OneStrideError: the robot has no such frame, or a frame is moved by a joint about whose stop nothing is known.
    """

    def __init__(self, terms: WorkspaceRow, frames: Frames) -> None:
        self._frames = frames
        self._sites = np.array([frames.forward.site(frame) for frame in terms.frames])
        self._clear_of = np.array([[radius + terms.margin] for radius in terms.frames.values()])
        self._shapes(terms)
        self.names = tuple(f"{frame}.{rule}" for frame in terms.frames for rule in self._rules)
        self._n = len(frames.joints)
        bends = [self._bend_of(frame, site) for frame, site in zip(terms.frames, self._sites, strict=True)]
        self._bend = np.repeat(bends, len(self._rules), axis=0)[None]
        self._still = np.zeros_like(self._bend)  # a ball is the same from all sides

    def _shapes(self, terms: WorkspaceRow) -> None:
        half_spaces = [(one.name, np.divide(one.normal, one.length), one.offset) for one in terms.half_spaces]
        for sign, side, corner in ((-1.0, "lowest", 0), (1.0, "highest", 1)):
            if terms.inside is not None:
                for axis, name in enumerate("xyz"):
                    offset = sign * terms.inside[corner][axis]
                    half_spaces.append((f"{side}_{name}", sign * np.eye(3)[axis], offset))
        self._rules = (
            *(one[0] for one in half_spaces),
            *(one.name for one in terms.spheres),
            *(one.name for one in terms.boxes),
        )
        self._surfaces: list[tuple[Callable[..., Distances], tuple[Array, Array]]] = []
        if half_spaces:
            normals, offsets = (np.array([one[part] for one in half_spaces]) for part in (1, 2))
            self._surfaces.append((half_space_distances, (normals, offsets)))
        if terms.spheres:
            centres, radii = (np.array([getattr(one, part) for one in terms.spheres]) for part in ("centre", "radius"))
            self._surfaces.append((sphere_distances, (centres, radii)))
        if terms.boxes:
            low, high = (np.array([getattr(one, part) for one in terms.boxes]) for part in ("lowest", "highest"))
            self._surfaces.append((box_distances, (0.5 * (low + high), 0.5 * (high - low))))

    def _bend_of(self, frame: str, site: int) -> Array:
        """Square roots of the levers by which the joints move a frame (n,)."""
        body = int(self._frames.model.site_bodyid[site])
        loose = self._frames.unstoppable(body)
        if loose:
            raise OneStrideError(f"workspace: frame {frame} is moved by {loose[0]}, of whose stop nothing is declared")
        offset = float(np.linalg.norm(self._frames.model.site_pos[site]))
        return np.sqrt(self._frames.levers(body, offset))

    def at(self, position: Array) -> Clearance:
        """The distances at joint positions (B, n) [rad]."""
        count, m = len(position), len(self.names)
        points, jacobians = np.empty((count, len(self._sites), 3)), np.empty((count, len(self._sites), 3, self._n))
        for index, one in enumerate(position):
            self._frames.place(one)
            points[index] = self._frames.data.site_xpos[self._sites]
            for site, jacobian in zip(self._sites, jacobians[index], strict=True):
                jacobian[:] = self._frames.site_jacobian(site)
        distances, directions = self._distances(points)
        rate = np.matmul(directions, jacobians).reshape(count, m, self._n)
        return Clearance(distances.reshape(count, m), rate, self._still, self._bend)

    def _distances(self, positions: Array) -> Distances:
        """Of all balls to all surfaces, less what is kept: (B, F, k) [m] and (B, F, k, 3)."""
        found = [measure(positions, *shapes) for measure, shapes in self._surfaces]
        distances = np.concatenate([distance for distance, _ in found], axis=-1)
        return distances - self._clear_of, np.concatenate([direction for _, direction in found], axis=-2)

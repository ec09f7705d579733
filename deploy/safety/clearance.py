"""Distances that stay positive until the robot stands still: what a step may be, as half-spaces.

A command is one step; the safe stop that may follow it takes each joint further, in its own time, so that the path is
no straight line. For a distance with rates `g` at the last sent command, and joints that have moved by `s` since,
convex shapes and revolute joints give

    distance(s) >= distance(0) + g . s - sum_i turn_i |s_i| - (sum_i bend_i |s_i|)^2 / 2

The last term bounds the curvature of the kinematics: the second derivative of a point's position to joints i and j is
no longer than the lever of the outer one, and `bend` is the square root of a joint's lever. The term before it bounds
the turn of a shape that has an extent: along the fixed direction between the nearest points, a joint can move its other
points by no more than that direction lies across the joint's axis, times how far they are apart. `least` is the bound
over a box of `s`; `half_spaces` makes it linear for the steps of a box and the stops after them. It is the chord of a
concave function, and so below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.safety.braking import Path
from onestride.deploy.safety.reach import Limits
from onestride.hardware.state import Array


@dataclass(frozen=True)
class Clearance:
    """Distances at one configuration of each state, and what bounds them at others.

    Attributes:
        distance: to what is kept clear of, less the margin (B, m) [m].
        rate: of the distance per unit speed of each joint (B, m, n) [m/rad].
        turn: by how much more a joint moves other points than the nearest (B, m, n) [m/rad].
        bend: square root of each joint's longest lever (B, m, n).
    """

    distance: Array
    rate: Array
    turn: Array
    bend: Array

    @cached_property
    def effect(self) -> Array:
        """Size of `rate` (B, m, n) [m/rad]."""
        return np.abs(self.rate)

    def only(self, which: NDArray[np.intp]) -> Clearance:
        """Some of the distances."""
        bounds = (part[:, which] for part in (self.rate, self.turn, self.bend))
        return Clearance(self.distance[:, which], *bounds)


def dot(matrix: Array, vector: Array) -> Array:
    """Products (..., m) of matrices (..., m, n) and vectors (..., n)."""
    product: Array = np.matmul(matrix, vector[..., None])[..., 0]
    return product


def least(clear: Clearance, path: Path) -> Array:
    """A bound on the distances (B, m) [m] on a path."""
    straight = dot(clear.rate, path.middle) - dot(clear.effect, path.half) - dot(clear.turn, path.size)
    return np.asarray(clear.distance + straight - 0.5 * dot(clear.bend, path.size) ** 2)


@dataclass(frozen=True)
class Anchor:
    """Distances measured at one configuration, by which others are bounded until that no longer suffices.

    Attributes:
        position: of the joints (B, n) [rad].
        clear: distances there.
    """

    position: Array
    clear: Clearance

    @cached_property
    def _terms(self) -> Array:
        """The coefficients of `least` in one matrix: of the middle, the half width and the size of a box of joints."""
        clear, nothing = self.clear, np.zeros_like(self.clear.rate)
        straight = np.concatenate([clear.rate, -clear.effect, nothing], axis=-1)
        turned = np.concatenate([nothing, nothing, clear.turn], axis=-1)
        bent = np.concatenate([nothing, nothing, np.broadcast_to(clear.bend, nothing.shape)], axis=-1)
        return np.concatenate([straight, turned, bent], axis=1)

    def least(self, path: Path) -> tuple[Array, Array]:
        """A bound on the distances (B, m) [m] on a path of positions, not of ways, in a box (B, n) [rad].

        Returns:
            The bound to first order, as if nothing turned or bent, and the bound.
        """
        middle, m = path.middle - self.position, self.clear.distance.shape[-1]
        terms = dot(self._terms, np.concatenate([middle, path.half, np.abs(middle) + path.half], axis=-1))
        straight, turned, bent = (terms[..., start : start + m] for start in (0, m, 2 * m))
        first = self.clear.distance + straight
        return first, first - turned - 0.5 * bent * bent

    def about(self, position: Array) -> Array:
        """The distances (B, m) [m] at a position (B, n) [rad], to first order."""
        return np.asarray(self.clear.distance + dot(self.clear.rate, position - self.position))


class HalfSpaces(NamedTuple):
    """Within the box of steps from which it was made, `value + slope . step` bounds the distances from below.

    Attributes:
        slope: (B, m, n) [m/rad].
        value: of the bound at step 0 (B, m) [m]; 0 need not be a step of the box.
        lowest: value of the bound in the box (B, m) [m].
    """

    slope: Array
    value: Array
    lowest: Array

    def at(self, step: Array) -> Array:
        """The bound (B, m) [m] at a step (B, n) [rad]."""
        return np.asarray(self.value + dot(self.slope, step))


def half_spaces(clear: Clearance, low: Array, high: Array, last: Array, limits: Limits) -> HalfSpaces:
    """The bound of `least` over `Path.stopped`, for every step between `low` and `high` (B, n) [rad], made linear."""
    ends = Path.stopped(np.concatenate([low, high]), np.concatenate([last, last]), limits)
    first, second = (Path(*(part[side] for part in ends)) for side in (slice(len(low)), slice(len(low), None)))
    width = high - low
    per = 1.0 / np.where(width > 0, width, np.inf)
    middle, half, size = ((there - here) * per for here, there in zip(first, second, strict=True))
    bent = 0.5 * dot(clear.bend, np.maximum(first.size, second.size))[..., None] * clear.bend
    turn = clear.turn + bent
    slope = clear.rate * middle[:, None] - clear.effect * half[:, None] - turn * size[:, None]
    start = dot(clear.rate, first.middle) - dot(clear.effect, first.half) - dot(turn, first.size)
    value = clear.distance + start - dot(slope, low)
    lowest = value + dot(slope, 0.5 * (low + high)) - dot(np.abs(slope), 0.5 * width)
    return HalfSpaces(slope, value, lowest)

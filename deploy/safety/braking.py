"""How far a joint still goes while the safe stop brings it to rest, as a bound that costs little.

`reach` has the stop itself, sampled and exact. Geometry asks for many stops a tick and may overrate them a little, so
this is the same stop in continuous time, which is never shorter: deceleration grows at the jerk limit, is held, and is
let go. It is not shorter either than a stop that brakes at once. All quantities are per period, as in `reach`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onestride.deploy.safety.reach import Limits
from onestride.hardware.state import Array

_BOTH_WAYS = np.array([-1.0, 1.0]).reshape(2, 1, 1)


def overshoot(step: Array, change: Array, limits: Limits) -> tuple[Array, Array]:
    """How far down and up the stop after a step (B, n) [rad] can lead, each (B, n) [rad] and not negative.

    Args:
        step: the last one before the stop.
        change: by how much it was longer than the one before it.
        limits: of the joints (n,).
    """
    braking, jerk = limits.braking, limits.jerk
    acceleration = np.maximum(_BOTH_WAYS * change, -braking)
    ramp = acceleration / jerk
    half = 0.5 * acceleration * ramp
    # As if the deceleration had begun to grow, or will begin, at the speed `start`.
    start = np.maximum(_BOTH_WAYS * step, np.copysign(half, -acceleration)) + half
    held = 0.5 * start * (start / braking + braking / jerk)
    brief = start * np.sqrt(start / jerk)
    covered = np.where(start * jerk > braking**2, held, brief) + ramp * (start - half / 3.0)
    down, up = np.maximum(covered, 0.0)
    return down, up


class Worst(NamedTuple):
    """The same bound for the larger of both ways, coarser and at a fraction of the cost.

    Attributes:
        held: half of what one period's braking is worth (n,) [1/rad].
        grown: half of the time that braking takes to grow (n,), in periods.
        per_jerk: (n,) [1/rad].
    """

    held: Array
    grown: Array
    per_jerk: Array

    @classmethod
    def of(cls, limits: Limits) -> Worst:
        """For joints with these limits."""
        return cls(0.5 / limits.braking, 0.5 * limits.braking / limits.jerk, 1.0 / limits.jerk)

    def overshoot(self, step: Array, change: Array) -> Array:
        """How far the stop after a step, which was `change` longer than the last, can lead, each (..., n) [rad]."""
        size = np.abs(change)
        ramp = size * self.per_jerk
        start = np.abs(step) + 0.5 * size * ramp
        return np.asarray(start * (start * self.held + (self.grown + ramp)))


class Path(NamedTuple):
    """Where joints may be on a path: a box of what they have moved by, each (..., n) [rad].

    Attributes:
        middle: of the box.
        half: its half width.
        size: furthest from where they began.
    """

    middle: Array
    half: Array
    size: Array

    @classmethod
    def between(cls, low: Array, high: Array) -> Path:
        """The box with these corners (..., n) [rad]."""
        return cls.around(0.5 * (low + high), 0.5 * (high - low))

    @classmethod
    def around(cls, middle: Array, half: Array) -> Path:
        """The box this far (..., n) [rad] around its middle (..., n) [rad]."""
        return cls(middle, half, np.abs(middle) + half)

    @classmethod
    def stopped(cls, step: Array, last: Array, limits: Limits) -> Path:
        """After a step (..., n) [rad] that follows the step `last`, and all through the stop after it."""
        down, up = overshoot(step, step - last, limits)
        return cls.between(step - down, step + up)

    def seen_from(self, step: Array) -> Path:
        """The same box for what the joints move by from `step` (..., n) [rad] on."""
        return Path.around(self.middle - step, self.half)

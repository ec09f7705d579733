"""What a joint's drive delivers, at most, and what it may still deliver: the energy tank's arithmetic.

Two ports. An *effort* port holds a force over the period, so that the energy through it is force times displacement,
however the joint moved in between. An *impedance* port holds the target of a spring, `stiffness * (target - q)`, with
a damper on the joint's own speed: between two positions the spring gives the difference of its potential, and the
damper takes at least `damping * displacement^2 / period`, whatever the motion (Cauchy and Schwarz).

Between two measured positions there may have been several efforts or targets, and the way may have turned meanwhile.
Targets `c` are efforts, too: whatever the way, springs deliver `stiffness * (c - m)` times what of it was gone under
each, where `m` is the middle of the displacement.

Displacements are measured. A position is known to `error`, a displacement therefore to twice that; what the error can
hide is counted as delivered. All functions take arrays over joints with any leading axes.
"""

from __future__ import annotations

import numpy as np

from onestride.hardware.state import Array

#: Below any energy that matters [J], and large enough to divide by.
SMALLEST = 1e-200

#: Damping [Nm s/rad] that no drive has less of: without any, a joint could swing out without end between two samples.
LEAST_DAMPING = 1e-9


def effort_delivered(effort: Array, displacement: Array, error: Array | float = 0.0) -> Array:
    """The most that efforts held over a period delivered (..., n) [J].

    Args:
        effort: applied (..., n) [Nm].
        displacement: measured over the period (..., n) [rad].
        error: of a measured position, at most [rad].
    """
    return np.asarray(effort * displacement + 2.0 * error * np.abs(effort))


def efforts_delivered(efforts: Array, travel: Array, displacement: Array, error: Array | float = 0.0) -> Array:
    """The most that efforts delivered which were held one after the other (..., n) [J].

    That is a linear program over the ways gone under each effort; this is its dual, solved by one of the efforts.

    Args:
        efforts: applied (k, ..., n) [Nm].
        travel: the farthest that each joint can have moved under each (k, ..., n) [rad].
        displacement: measured over all of them (..., n) [rad].
        error: of a measured position, at most [rad].
    """
    turning = [(travel * np.abs(efforts - effort)).sum(axis=0) for effort in efforts]
    return np.asarray(np.minimum.reduce(effort_delivered(efforts, displacement, error) + turning))


def impedance_delivered(
    target: Array,
    before: Array,
    after: Array,
    stiffness: Array,
    braking: Array | float = 0.0,
    error: Array | float = 0.0,
) -> Array:
    """The most that springs with a held target, less the least that their dampers took, delivered (..., n) [J].

    Args:
        target: of the springs (..., n) [rad]; of several, their mean.
        before: measured when the target was set (..., n) [rad].
        after: measured at the end of the period (..., n) [rad].
        stiffness: (n,) [Nm/rad].
        braking: damping over the longest period that the target can have been held (n,) [Nm/rad].
        error: of a measured position, at most [rad].
    """
    stretch, moved = target - 0.5 * (before + after), after - before
    hidden = error * (2.0 * np.abs(stretch) + np.abs(moved) + 2.0 * error)
    surely_moved = np.maximum(np.abs(moved) - 2.0 * error, 0.0)
    return np.asarray(stiffness * (stretch * moved + hidden) - braking * surely_moved**2)


def effort_reach(energy: Array, travel: Array) -> Array:
    """The largest effort that delivers no more than `energy`, whatever happens within the period (..., n) [Nm].

    Its speed can turn at any time, so that only the farthest travel bounds what an effort delivers.

    Args:
        energy: that each joint may spend, not negative (..., n) [J].
        travel: the farthest that a joint can move in a period (n,) [rad].
    """
    return np.asarray(energy / travel)


def impedance_stored(stretch: Array, stiffness: Array, error: Array | float = 0.0) -> Array:
    """The most that springs with a held target can still deliver, at any speed and for ever (..., n) [J]."""
    return np.asarray(0.5 * stiffness * (np.abs(stretch) + error) ** 2)


def impedance_reach(energy: Array, stiffness: Array) -> Array:
    """The largest stretch (..., n) [rad] that stores no more than `energy`, which is not negative (..., n) [J]."""
    return np.asarray(np.sqrt(energy * (2.0 / stiffness)))


def impedance_swing(stiffness: Array, damping: Array, seconds: float) -> Array:
    """How much a way out and back adds while targets differ (n,): `swing / 2 * stiffness * variance` of them [J].

    A joint that goes `x` further under one target than under the others gains in proportion to `x`, and its damper
    takes in proportion to the square of it: this is the most of their difference.

    Args:
        stiffness: (n,) [Nm/rad].
        damping: (n,) [Nm s/rad].
        seconds: for how long the targets were held together, at most.
    """
    return np.asarray(stiffness * (0.5 * seconds) / np.maximum(damping, LEAST_DAMPING))


def shares(budget: Array, reserved: Array, weight: Array, members: Array) -> tuple[Array, Array]:
    """Each joint's part of its port's energy; the larger parts of all joints of a port add up to its budget.

    What is reserved for a joint stays with it, the rest is divided by weight. Where the budget is below what is
    reserved, nothing is free and every reserve shrinks in proportion.

    Args:
        budget: of each port (..., p) [J].
        reserved: for each joint (..., n) [J].
        weight: of each joint in its port (n,); the weights of a port add up to 1.
        members: 1 where a joint belongs to a port (p, n).

    Returns:
        Each joint's free part, without and with its reserve (..., n) [J].
    """
    budget, needed = np.maximum(budget, 0.0), reserved @ members.T
    free = weight * (np.maximum(budget - needed, 0.0) @ members)
    kept = np.minimum(budget / np.maximum(needed, SMALLEST), 1.0) @ members
    return np.asarray(free), np.asarray(free + kept * reserved)

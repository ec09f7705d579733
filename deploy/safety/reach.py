"""How far a joint may go in one period and still come to rest in time: the arithmetic of stopping, in sampled time.

Commands are samples. Over one period the speed is the difference of two commands, the acceleration that of two
speeds, the jerk that of two accelerations. Everything here is per period and exact for such samples: a step `v`
[rad], a change of step `a` [rad], a change of that `j` [rad], that is speed, acceleration and jerk times the period,
its square and its cube.

The stop is one law: slow down as much as can still be let go without turning round, within the acceleration limit,
changing it by no more than the jerk limit. Without a jerk limit this is constant deceleration.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onestride.hardware.state import Array

#: In how many parts the permitted accelerations are searched for the largest that can still be stopped.
PARTS = 4
SHARES = np.linspace(0.0, 1.0, PARTS + 1)

#: Keeps a division by zero away where nothing rises.
SMALLEST = 1e-300


class Limits(NamedTuple):
    """What a joint may do in one period, all positive; a number so large that it never binds where it is not limited.

    Attributes:
        speed: largest step (n,) [rad].
        acceleration: largest change of the step (n,) [rad].
        braking: largest change of the step while stopping, not above `acceleration` (n,) [rad].
        jerk: largest change of that change (n,) [rad].
    """

    speed: Array
    acceleration: Array
    braking: Array
    jerk: Array


def stoppable_step(distance: Array, slowing: Array) -> Array:
    """The largest change in one period after which slowing down still covers no more than `distance` in all.

    A step of `u` times `slowing` is followed by `u - 1`, `u - 2`, ... times it. With `k` whole steps after the first,
    they add up to `(k + 1) u - k (k + 1) / 2`, which is solved for `u`. Negative distances give negative steps.
    The same sum, one derivative up, says how much deceleration can be let go within a given change of speed.

    Args:
        distance: to the limit, before the step (..., n) [rad].
        slowing: by how much each step is shorter than the one before (n,) [rad].

    Returns:
        The step (..., n) [rad].
    """
    size = np.abs(distance)
    k = np.floor(np.sqrt(8.0 / slowing * size + 1.0) * 0.5 - 0.5)
    return np.asarray(np.copysign(size / (k + 1.0) + 0.5 * slowing * k, distance))


def stopping_change(v: Array, a: Array, limits: Limits) -> Array:
    """The next change of step (..., n) [rad] of a stop from step `v` and change `a`, each (..., n) [rad]."""
    wanted = np.minimum(np.maximum(-stoppable_step(v, limits.jerk), -limits.braking), limits.braking)
    return np.asarray(np.minimum(np.maximum(wanted, a - limits.jerk), a + limits.jerk))


def stopping_distance(v: Array, a: Array, limits: Limits) -> Array:
    """How far upwards a stop from step `v` and change `a`, each (..., n) [rad], still goes (..., n) [rad].

    Four stretches, in units of the jerk limit: deceleration grows by one each period, `m` times; it stays at the
    limit for `h` periods; one period makes up for what is not whole; then it is let go, by one each period. A joint
    that is already past the point of letting go is taken to be at it, which is further.
    """
    unit = 1.0 / limits.jerk
    most, down = limits.braking * unit, np.maximum(a, -limits.braking) * -unit  # down: deceleration
    reserve = np.maximum(v * unit, _let_go(down)) + 0.5 * down * (down + 1.0)
    part = down - np.floor(down)
    growing = np.floor(np.sqrt(np.maximum(reserve - 0.5 * part * (1.0 - part), 0.0)) - part)
    peak = np.maximum(np.minimum(growing, np.floor(most - part)) + part, down)
    down, peak = down + 1.0, peak + 1.0
    m, square = peak - down, peak * peak
    distance = m * (reserve - (square + peak * down + down * down - 1.0) / 6.0)
    at_peak = reserve - 0.5 * (square - peak)
    h = np.maximum(np.floor((at_peak - _let_go(most)) / most), 0.0)
    held = h * most
    distance += h * (at_peak - 0.5 * (held + most))
    left = np.maximum(at_peak - held, 0.0)
    k = np.floor(np.sqrt(8.0 * left + 1.0) * 0.5 - 0.5)  # as in `stoppable_step`, whose result it is whole periods of
    last = left / (k + 1.0) + 0.5 * k
    return np.asarray((distance + 0.5 * k * (k + 1.0) * (last - (2.0 * k + 1.0) / 3.0)) / unit)


def rest(v: Array, a: Array, limits: Limits) -> Array:
    """Where a stop from step `v` and change `a`, each (..., n) [rad], ends, seen from here (..., n) [rad]."""
    side = np.where(v >= limits.jerk * _let_go(a / -limits.jerk), 1.0, -1.0)
    return side * stopping_distance(side * v, side * a, limits)


def _let_go(down: Array) -> Array:
    """By how much the step shrinks while deceleration `down` is let go: the sum of `down - 1`, `down - 2`, ..."""
    size = np.abs(down)
    k = np.floor(size)
    return np.asarray(np.copysign(k * (size - 0.5 * (k + 1.0)), down))


def largest_change(room: Array, v: Array, stop: Array, most: Array, limits: Limits) -> Array:
    """The largest change of step between `stop` and `most` after which a stop still ends within `room`.

    What a stop covers grows with the change and bends upwards only. So, between the last of a few changes that is
    permitted and the first that is not, the chord lies above it, and where the chord meets `room` is permitted.

    Args:
        room: distance to the limit, before the step (..., n) [rad].
        v: the last step (..., n) [rad].
        stop: the change with which a stop goes on (..., n) [rad]; taken to be permitted.
        most: the largest change that other limits permit, at least `stop` (..., n) [rad].
        limits: of the joints.
    """
    width = most - stop
    changes = stop + SHARES.reshape(-1, *(1,) * np.ndim(v)) * width
    ahead = v + changes
    over = ahead + stopping_distance(ahead, changes, limits) - room
    rise = np.maximum(over[1:] - over[:-1], SMALLEST)
    permitted = np.minimum(np.maximum(-over[:-1] / rise, 0.0), 1.0)  # the share of each part
    return np.asarray(stop + permitted.sum(axis=0) / PARTS * width)

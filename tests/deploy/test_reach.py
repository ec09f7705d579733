"""The arithmetic of stopping agrees with stops that are carried out step by step, and is what searches rely on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestride.deploy.safety.reach import (
    Limits,
    largest_change,
    rest,
    stoppable_step,
    stopping_change,
    stopping_distance,
)


def samples(count: int, seed: int, harder: float = 4.0) -> tuple[Limits, np.ndarray, np.ndarray]:
    """Limits from one period to hundreds of periods of braking, changes of step within them, and steps."""
    rng = np.random.default_rng(seed)
    braking = np.exp(rng.uniform(-2, 3, count))
    acceleration = braking * rng.choice([1.0, 1.0, harder], count)
    unit = np.exp(rng.uniform(-8, 0, count))
    limits = Limits(np.full(count, np.inf), acceleration * unit, braking * unit, unit)
    change = rng.uniform(-1, 1, count) * acceleration * unit
    return limits, rng.normal(size=count) * np.exp(rng.uniform(-5, 4, count)) * unit, change


def carried_out(v: np.ndarray, a: np.ndarray, limits: Limits, periods: int = 2500) -> np.ndarray:
    """Positions of a stop, period by period (T, n), from 0."""
    path = [np.zeros_like(v)]
    for _ in range(periods):
        a = stopping_change(v, a, limits)
        v = v + a
        path.append(path[-1] + v)
    assert not v.any()
    assert not a.any()
    return np.array(path)


def test_a_stop_ends_where_it_is_said_to_end():
    limits, v, a = samples(2000, seed=0, harder=1.0)
    path = carried_out(v, a, limits)
    scale = 1.0 + np.abs(path[-1])
    assert np.abs((rest(v, a, limits) - path[-1]) / scale).max() < 1e-11


def test_a_stop_keeps_its_limits_and_turns_round_at_most_once():
    limits, v, a = samples(2000, seed=1)
    steps = np.diff(carried_out(v, a, limits), axis=0)
    changes = np.diff(np.vstack([v, steps]), axis=0)
    jerks = np.diff(np.vstack([a, changes]), axis=0)
    rounding = 1e-9 * limits.jerk
    assert np.all(np.abs(jerks) <= limits.jerk + rounding)
    assert np.all(np.abs(changes) <= np.maximum(np.abs(a), limits.braking) + rounding)
    sign = np.sign(np.where(np.abs(steps) < rounding, 0.0, steps))
    turned = [np.count_nonzero(np.diff(one[one != 0])) for one in np.vstack([np.sign(v)[None], sign]).T]
    assert max(turned) <= 1


def test_it_never_goes_further_upwards_than_said():
    limits, v, a = samples(2000, seed=2)
    highest = carried_out(v, a, limits).max(axis=0)
    claimed = np.maximum(stopping_distance(v, a, limits), 0.0)
    assert np.all(highest <= claimed + 1e-9 * (1.0 + claimed))


def test_what_a_stop_covers_grows_with_the_change_before_it_and_bends_upwards_only():
    """What `largest_change` rests on: one crossing, and chords above the curve."""
    limits, v, a = samples(20_000, seed=3)
    stop = stopping_change(v, a, limits)
    most = np.minimum(a + limits.jerk, limits.acceleration)
    ahead = v + stop >= 0
    changes = stop + np.linspace(0, 1, 40)[:, None] * np.maximum(most - stop, 0.0)
    covered = (v + changes + stopping_distance(v + changes, changes, limits))[:, ahead] / limits.jerk[ahead]
    slope = np.diff(covered, axis=0)
    assert slope.min() > -1e-7
    assert np.diff(slope, axis=0).min() > -1e-7


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_the_largest_change_uses_the_room_and_no_more(fraction):
    limits, v, a = samples(20_000, seed=4)
    v, a = np.abs(v), np.maximum(a, -limits.braking)
    stop = stopping_change(v, a, limits)
    most = np.maximum(np.minimum(a + limits.jerk, limits.acceleration), stop)
    least, furthest = (v + one + stopping_distance(v + one, one, limits) for one in (stop, most))
    room = least + fraction * (furthest - least)
    change = largest_change(room, v, stop, most, limits)
    covered = v + change + stopping_distance(v + change, change, limits)
    scale = 1.0 + np.abs(room) / limits.jerk
    assert np.all(covered - room <= 1e-9 * limits.jerk * scale)
    assert np.all(room - covered <= 0.1 * (furthest - least) + 1e-9 * limits.jerk * scale)
    assert np.all((change >= stop) & (change <= most))


@given(st.floats(0, 20), st.floats(1e-6, 1e-2))
def test_the_stoppable_step_uses_the_room_up_and_no_more(distance, slowing):
    left = step = float(stoppable_step(np.array(distance), np.array(slowing)))
    total = 0.0
    while left > 0:
        total, left = total + left, left - slowing
    assert step <= distance
    assert total == pytest.approx(distance, rel=1e-9, abs=1e-9)


@given(st.floats(-20, 20), st.floats(1e-6, 1e-2))
def test_it_is_the_same_both_ways(distance, slowing):
    up, down = stoppable_step(np.array([distance, -distance]), np.array(slowing))
    assert up == -down


def test_a_hand_computed_stop():
    """From step 6 at rest of change, braking at most 2 by 1: steps 5, 3, 1, 0 go 9 further."""
    limits = Limits(*(np.array([one]) for one in (np.inf, 2.0, 2.0, 1.0)))
    np.testing.assert_allclose(np.diff(carried_out(np.array([6.0]), np.zeros(1), limits)[:6, 0]), [5, 3, 1, 0, 0])
    assert stopping_distance(np.array([6.0]), np.zeros(1), limits) == pytest.approx(9.0)

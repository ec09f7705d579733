"""Bounds lie below the truth: of a stop's length, of distances along a path, of the half-spaces made from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from geometry_samples import PERIOD, Geometry, limited

from onestride.deploy.safety.braking import Path, Worst, overshoot
from onestride.deploy.safety.clearance import Anchor, Clearance, half_spaces, least
from onestride.deploy.safety.joints import joint_limits
from onestride.deploy.safety.reach import Limits, stopping_change
from onestride.deploy.safety.stopping import Stopping
from onestride.deploy.safety.types import Motion
from onestride.hardware.state import Array

DRIVES = [(None, None), (20.0, None), (20.0, 500.0), (15.0, 100.0)]


class Motions(NamedTuple):
    """Random last steps and changes of an arm's joints (B, n) [rad]."""

    step: Array
    change: Array
    limits: Limits


def motions(acceleration: float | None, jerk: float | None, count: int = 2000, seed: int = 0) -> Motions:
    limits = joint_limits(limited(acceleration, jerk), PERIOD)
    limits = limits._replace(speed=np.append(limits.speed[:6], 0.0))
    rng = np.random.default_rng(seed)
    step = limits.speed * rng.uniform(-1, 1, (count, 7)) * rng.random((count, 7))
    most = np.minimum(limits.acceleration, 4.0 * limits.braking)
    return Motions(step, most * rng.uniform(-1, 1, (count, 7)) * rng.integers(0, 2, (count, 7)), limits)


@pytest.mark.parametrize("drive", DRIVES)
def test_no_stop_leads_further_than_its_bound(drive):
    step, change, limits = motions(*drive)
    down, up = overshoot(step, change, limits)
    gone = np.zeros_like(step)
    for _ in range(400):
        change = stopping_change(step, change, limits)
        step = step + change
        gone = gone + step
        assert np.all((gone <= up + 1e-12) & (gone >= -down - 1e-12))
    assert np.abs(step[:, :6]).max() == 0.0, "the stop has come to rest"
    assert np.median((up - gone)[gone > 0.01] / gone[gone > 0.01]) < 0.25, "the bound is near the truth"


@pytest.mark.parametrize("drive", DRIVES)
def test_a_stop_that_brakes_at_once_is_within_the_bound_too(drive):
    step, change, limits = motions(*drive)
    _, up = overshoot(step, change, limits)
    size = np.maximum(step, 0.0)
    whole = np.floor(size / limits.braking)
    at_once = whole * size - 0.5 * limits.braking * whole * (whole + 1.0)
    assert np.all(at_once <= up + 1e-12)


@pytest.mark.parametrize("drive", DRIVES)
def test_the_cheap_bound_of_a_stop_lies_above_the_other_both_ways(drive):
    step, change, limits = motions(*drive)
    worst, other = Worst.of(limits).overshoot(step, change), np.maximum(*overshoot(step, change, limits))
    assert np.all(other <= worst + 1e-12)
    fast = (np.abs(step) > 0.5 * limits.speed) & (np.arange(7) < 6)
    assert np.median(worst[fast] / other[fast]) < 2.0


@pytest.mark.parametrize("drive", [*DRIVES, (40.0, 500.0)])
def test_whatever_step_of_the_box_is_taken_its_stop_stays_within_the_reach(drive):
    """A joint that is driven away from where it was going has the longer stop at the slower end of the box."""
    last, change, limits = motions(*drive)
    still = np.zeros_like(last)
    motion = Motion(PERIOD, still, still, still, last / PERIOD, change / PERIOD**2)
    ahead = Stopping(limited(*drive)).ahead(motion)
    low, high = ahead.reach.middle - ahead.reach.half, ahead.reach.middle + ahead.reach.half
    rng, beyond = np.random.default_rng(2), 0
    for _ in range(50):
        step = ahead.stop + ahead.spread * rng.uniform(-1, 1, last.shape)
        path = Path.stopped(step, last, limits)
        assert np.all(path.middle - path.half >= low - 1e-12) and np.all(path.middle + path.half <= high + 1e-12)
        fastest = Path.stopped(ahead.stop + ahead.spread, last, limits)
        beyond += np.count_nonzero(path.middle + path.half > fastest.middle + fastest.half + 1e-9)
    assert (beyond > 0) == (drive[1] is not None), "the fastest step is not the furthest where jerk is limited"


def random_clearance(rng: np.random.Generator, count: int) -> Clearance:
    distance = rng.uniform(0.0, 0.5, (count, 9))
    shape = (*distance.shape, 7)
    return Clearance(distance, rng.normal(size=shape), rng.random(shape) * 0.3, np.sqrt(rng.random(shape)))


@pytest.mark.parametrize("drive", DRIVES)
def test_half_spaces_are_never_above_the_bound_that_they_stand_for(drive):
    last, _, limits = motions(*drive, count=300)
    rng = np.random.default_rng(1)
    clear = random_clearance(rng, len(last))
    width = np.minimum(limits.speed, limits.acceleration) * rng.random(last.shape)
    low, high = last - width, last + width * rng.random(last.shape)
    bounds = half_spaces(clear, low, high, last, limits)
    for _ in range(50):
        share = rng.choice([rng.random(last.shape), rng.integers(0, 2, last.shape)])
        step = low + share * (high - low)
        truth = least(clear, Path.stopped(step, last, limits))
        assert np.all(bounds.at(step) <= truth + 1e-12)
        assert np.all(bounds.lowest <= bounds.at(step) + 1e-12)


def test_in_a_box_of_one_step_the_half_spaces_are_the_bound():
    step, change, limits = motions(20.0, 500.0, count=50)
    clear = random_clearance(np.random.default_rng(2), 50)
    bounds = half_spaces(clear, step, step, step - change, limits)
    np.testing.assert_allclose(bounds.at(step), least(clear, Path.stopped(step, step - change, limits)), atol=1e-12)


def test_a_batch_is_its_rows():
    step, _, limits = motions(20.0, 500.0, count=5)
    clear = random_clearance(np.random.default_rng(3), 5)
    together = half_spaces(clear, step, step + 1e-4, step, limits)
    for row in range(5):
        one = slice(row, row + 1)
        parts = (clear.distance, clear.rate, clear.turn, clear.bend)
        alone = half_spaces(Clearance(*(part[one] for part in parts)), step[one], step[one] + 1e-4, step[one], limits)
        np.testing.assert_allclose(together.slope[one], alone.slope, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(together.value[one], alone.value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["workspace", "collision"])
def test_no_distance_of_the_robot_is_ever_below_its_bound(forward, kind):
    """Random postures, and random ways to go from there: single joints and all, short and long."""
    geometry = Geometry(forward)
    clearing = geometry.workspace if kind == "workspace" else geometry.collision
    rng = np.random.default_rng(4)
    nearest = np.inf
    for _ in range(1200):
        position = np.append(rng.uniform(-3, 3, 6), 0.0)
        here = clearing.at(position[None])
        some = rng.integers(0, 2, 7).astype(float) if rng.random() < 0.5 else np.ones(7)
        way = np.append(rng.normal(size=6) * 10 ** rng.uniform(-3, 0), 0.0) * some
        there = clearing.at((position + way)[None]).distance
        bound = least(here, Path.between(way[None], way[None]))
        apart = here.distance > -0.009 if kind == "collision" else np.isfinite(there)  # touching shapes have no normal
        assert np.all((there >= bound - 1e-9)[apart])
        nearest = min(nearest, float(np.min((there - bound)[apart & (bound > 0)], initial=np.inf)))
    assert nearest < 1e-3, "and the bound is of some use"


def test_an_anchor_bounds_what_a_box_of_positions_does():
    """The same numbers as `least` about the way there, in one product; to first order nothing turns or bends."""
    rng = np.random.default_rng(5)
    clear, position = random_clearance(rng, 40), rng.normal(size=(40, 7))
    there, half = position + rng.normal(size=(40, 7)), rng.random((40, 7))
    first, bound = Anchor(position, clear).least(Path.around(there, half))
    np.testing.assert_allclose(bound, least(clear, Path.around(there - position, half)), atol=1e-12)
    flat = Clearance(clear.distance, clear.rate, 0.0 * clear.turn, 0.0 * clear.bend)
    np.testing.assert_allclose(first, least(flat, Path.around(there - position, half)), atol=1e-12)
    np.testing.assert_allclose(Anchor(position, clear).about(position), clear.distance)

"""Where a cheap look suffices, the whole way would have said the same: over many states, limits and levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from limited_arm import limited_ur5e

from onestride.deploy.safety import approach, joints
from onestride.deploy.safety.approach import approaching
from onestride.deploy.safety.braking import Worst
from onestride.deploy.safety.joints import HELD, Reserve, jerk_box, joint_limits
from onestride.deploy.safety.problem import LEVELS, Bounds, gather
from onestride.deploy.safety.reach import Limits
from onestride.deploy.safety.types import Box, Motion, Rows, Yield
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.state import Array

ARMS = {"ur5e_2f85": limited_ur5e(), "panda": load_robot("panda")}
ROBOTS = pytest.mark.parametrize("name", ARMS)
periods = pytest.mark.parametrize("period", [0.001, 0.002, 0.01])
COUNT = 100_000


def moving(robot: RobotDescription, limits: Limits, rng: np.random.Generator) -> tuple[Array, Array]:
    """Last steps and their changes, a hundred thousand of each or a few less, some at the ends, each (B, n) [rad]."""
    shape = COUNT // len(robot.joints), len(robot.joints)
    v = np.where(np.isfinite(robot.velocity_limits), limits.speed * rng.uniform(-1.0, 1.0, shape), 0.0)
    a = limits.acceleration * rng.choice([-1.0, 0.0, 1.0], shape) * rng.random(shape) ** rng.choice([0, 1, 4], shape)
    return v, np.where(v == 0.0, 0.0, a)


@ROBOTS
@periods
def test_a_joint_near_its_limit_is_told_the_same_without_a_close_look(name, period, monkeypatch):
    """A joint that is held at its limit may be told less, by what little is left of the room; never more."""
    robot, rng = ARMS[name], np.random.default_rng(0)
    limits = joint_limits(robot, period)
    reserve = Reserve.of(limits, robot)
    v, a = moving(robot, limits, rng)
    still = rng.random(v.shape) < 0.3
    v, a = np.where(still, 0.0, v), np.where(still, 0.0, a)
    room = reserve.stop.overshoot(v, a) * rng.uniform(0.0, 3.0, (2, *v.shape))
    room = np.where(still, rng.choice([0.0, 0.5 * HELD, HELD, 2.0 * HELD, 1e-3], room.shape), room)
    shortly = np.array(jerk_box(room, v, a, limits, reserve))
    everything = np.full(v.shape[1], 1e9)
    monkeypatch.setattr(joints, "HELD", -np.inf)
    wary = Reserve(everything, everything, Worst(*3 * (everything,)), everything)
    closely = np.array(jerk_box(room, v, a, limits, wary))
    limited = np.isfinite(robot.velocity_limits)  # of the others no limit is reckoned with
    more = (np.array([-1.0, 1.0]).reshape(2, 1, 1) * (shortly - closely))[..., limited]
    held = (still & (room <= HELD))[..., limited]
    assert more.max() <= 1e-15
    assert more[held].min() >= -HELD
    assert more[~held].min() >= -1e-15
    assert held.sum() > 1000
    assert np.count_nonzero(closely[1] < np.minimum(a + limits.jerk, limits.acceleration)) > 1000, "limits bind"


@ROBOTS
@periods
def test_far_from_its_goal_a_joint_does_what_its_stop_would_have_told(name, period, monkeypatch):
    """At the very edge of what the bound on the stop clears, and beyond."""
    robot, rng = ARMS[name], np.random.default_rng(1)
    limits = joint_limits(robot, period)
    limits = limits._replace(braking=limits.acceleration)
    v, a = moving(robot, limits, rng)
    least, most = jerk_box(None, v, a, limits, Reserve.of(limits, robot))
    side, worst = rng.choice([-1.0, 1.0], v.shape), Worst.of(limits)
    end = np.where(side > 0.0, most, -least)
    bound = np.maximum(side * v + end, 0.0) + worst.overshoot(side * v + end, end)
    further = np.maximum(bound, worst.overshoot(v, a)) * rng.choice([1.0 + 1e-12, 1.5, 10.0], v.shape)
    room = side * (further + 1e-15)
    room, v, a, least, most = (one.ravel() for one in (room, v, a, least, most))
    some = Limits(*(np.tile(limit, len(v) // len(limit)) for limit in limits))
    whole = _with_one_that_is_there(room, v, a, (least, most), some)
    monkeypatch.setattr(approach, "rest", None)  # to work the stop out would fail
    shortly = approaching(room, v, a, (least, most), some)
    np.testing.assert_allclose(shortly, whole, rtol=0, atol=1e-15)


def _with_one_that_is_there(room: Array, v: Array, a: Array, ends: tuple[Array, Array], limits: Limits) -> Array:
    """What is answered where another joint at its goal makes that all of them are looked at closely."""
    room, v, a = (np.append(one, 0.0) for one in (room, v, a))
    ends, limits = (np.append(ends[0], -1.0), np.append(ends[1], 1.0)), Limits(*(np.append(one, 1.0) for one in limits))
    return approaching(room, v, a, ends, limits)[:-1]


corners = arrays(float, (6, 2, 3), elements=st.integers(-6, 6).map(float))
levels = st.lists(st.sampled_from(LEVELS), min_size=6, max_size=6)


@given(corners, levels, st.booleans())
def test_boxes_that_all_meet_leave_what_they_would_one_level_after_the_other(corners, levels, wide):
    low, high = corners[:, 0] - 20.0 * wide, corners[:, 1] + 5.0
    boxes = [Box(f"box {i}", low[i, None], high[i, None], level) for i, level in enumerate(levels)]
    still = np.zeros((1, 3))
    problem = gather(
        Motion(0.01, still, still, still, still, still), [("stated", box) for box in boxes], ("a", "b", "c")
    )
    bounds, clash = Bounds(np.full(3, -np.inf), np.full(3, np.inf)), False
    for level in sorted(Yield):
        for own in [_common(boxes, level)]:
            clash |= level == Yield.NEVER and bool((own.low > own.high).any())
            ends = bounds.nearest(own.low), bounds.nearest(own.high)
            bounds = Bounds(np.minimum(*ends), np.maximum(*ends))
        if not clash:
            np.testing.assert_array_equal(problem.bounds_at(level), bounds)
            assert problem.keeps_bounds(bounds.low)
    assert bool(problem.clash) == clash


def _common(boxes: list[Box], level: Yield) -> Bounds:
    """What the boxes of one level have in common."""
    of_level = [box for box in boxes if box.yields == level]
    low = np.max([box.low[0] for box in of_level], axis=0, initial=-np.inf)
    return Bounds(np.asarray(low), np.asarray(np.min([box.high[0] for box in of_level], axis=0, initial=np.inf)))


@pytest.mark.parametrize("level", list(Yield))
def test_a_bound_that_is_not_a_number_is_named(level: Yield):
    """At every level, among bounds of joints and among rows."""
    still, far = np.zeros((1, 2)), np.full((1, 2), 5.0)
    motion = Motion(0.01, still, still, still, still, still)
    sound = ("joints", Box("position", -far, far))
    box = ("tank", Box("tank.braking", -far, np.array([[5.0, np.nan]]), level))
    assert gather(motion, [sound, box], ("a", "b")).clash == "b: a bound is not a number: tank.braking"
    rows = ("workspace", Rows(("floor",), np.ones((1, 1, 2)), np.array([[np.nan]]), level))
    assert gather(motion, [sound, rows], ("a", "b")).clash == "a bound is not a number: workspace.floor"
    assert not gather(motion, [sound], ("a", "b")).clash

"""Whatever is asked for, what is sent keeps the position limits, the speed limits and the way to stop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onestride.deploy.safety.limits import JointLimits, command_box, stoppable_step
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import load_robot
from onestride.hardware.state import Measurement

ROBOT = load_robot("ur5e_2f85")
LOWER, UPPER = ROBOT.position_limits
SPEED, SLOWING = ROBOT.velocity_limits, ROBOT.safe_stop.deceleration
ARM = np.isfinite(SPEED)
PERIOD = 0.005
LIMITS = JointLimits(ROBOT)
STILL = Measurement(np.zeros(7), np.zeros(7))
fractions = arrays(float, 7, elements=st.floats(0, 1))
wild = arrays(float, (8, 7), elements=st.floats(-20, 20) | st.floats(allow_nan=False, allow_infinity=False))


def state(last_sent: np.ndarray, scale: float = 1.0) -> ControlState:
    return ControlState(0.0, PERIOD, STILL, last_sent, speed_scale=scale)


def certified(last_sent: np.ndarray, nominal: np.ndarray, scale: float = 1.0):
    answer = LIMITS.certify(state(last_sent, scale), nominal)
    assert answer.feasible
    return answer


def within(share: np.ndarray) -> np.ndarray:
    return LOWER + share * (UPPER - LOWER)


def stopping_distance(step: np.ndarray) -> np.ndarray:
    """What a step and the declared stop after it cover, added up tick by tick [rad]."""
    total, left = np.zeros_like(step), np.abs(step)
    while np.any(left > 0):
        total += left
        left = np.maximum(left - SLOWING * PERIOD**2, 0.0)
    return total


@given(fractions, wild, st.floats(0.01, 1))
def test_every_command_keeps_position_and_speed_and_can_be_stopped(start, nominals, scale):
    last = within(start)
    for nominal in nominals:
        action = certified(last, nominal, scale).action
        step = (action - last)[ARM]
        assert np.all((action >= LOWER) & (action <= UPPER))
        assert np.all(np.abs(step) <= SPEED[ARM] * PERIOD * scale * (1 + 1e-12) + 1e-15)
        room = np.where(step > 0, UPPER[ARM] - last[ARM], last[ARM] - LOWER[ARM])
        assert np.all(stopping_distance(step) <= room + 1e-12)
        last = action


def test_ten_thousand_random_walks_keep_them_too():
    rng = np.random.default_rng(0)
    reach, slowing = SPEED[ARM] * PERIOD, np.full(6, SLOWING * PERIOD**2)
    lower, upper = LOWER[ARM], UPPER[ARM]
    last = lower + rng.random((10_000, 6)) * (upper - lower)
    last[:5000] = upper - 0.6 * rng.random((5000, 6)) ** 2  # half of them near a limit
    push = rng.choice([-1.0, 1.0], size=last.shape)
    for _ in range(60):
        low, high = command_box(last, reach, slowing, lower, upper)
        assert np.all(low <= high)
        action = np.clip(last + push * rng.exponential(0.05, last.shape), low, high)
        step = action - last
        assert np.all((action >= lower) & (action <= upper) & (np.abs(step) <= reach + 1e-15))
        last = action
    assert np.all(stopping_distance(step) <= np.where(step > 0, upper - last + step, last - step - lower) + 1e-12)


@given(arrays(float, (5, 7), elements=st.floats(0, 1)))
def test_the_box_of_a_batch_is_the_boxes_of_its_rows(shares):
    last = LOWER + shares * (UPPER - LOWER)
    reach, slowing = np.where(ARM, 0.01, np.inf), np.full(7, SLOWING * PERIOD**2)
    low, high = command_box(last, reach, slowing, LOWER, UPPER)
    for row in range(len(last)):
        np.testing.assert_array_equal((low[row], high[row]), command_box(last[row], reach, slowing, LOWER, UPPER))


@given(fractions, arrays(float, 7, elements=st.floats(-1, 1)))
def test_what_keeps_the_limits_is_not_touched(start, share):
    last = within(start)
    step = share * np.where(ARM, SPEED, 0.0) * PERIOD
    room = np.where(step > 0, UPPER - last, last - LOWER)
    step = np.where(ARM & (stopping_distance(step) > room), 0.0, step)
    step[~ARM] = within(np.abs(share))[~ARM] - last[~ARM]
    nominal = last + step
    answer = certified(last, nominal)
    np.testing.assert_allclose(answer.action, nominal, rtol=0, atol=1e-12)
    assert answer.active == ()


@given(fractions, wild)
def test_certifying_twice_changes_nothing_more(start, nominals):
    last = within(start)
    for nominal in nominals:
        first = certified(last, nominal)
        second = certified(last, first.action)
        np.testing.assert_array_equal(second.action, first.action)
        assert second.active == ()


@given(fractions, arrays(float, 7, elements=st.floats(-20, 20)))
def test_it_is_the_nearest_command_that_keeps_them(start, nominal):
    """Moving any joint a little closer to what was asked for would break its limit, its speed or its stop."""
    last = within(start)
    action = certified(last, nominal).action
    closer = action + np.sign(nominal - action) * 1e-6
    for joint in np.flatnonzero(np.abs(nominal - action) > 1e-5):
        step = closer - last
        room = UPPER[joint] - last[joint] if step[joint] > 0 else last[joint] - LOWER[joint]
        outside = not LOWER[joint] <= closer[joint] <= UPPER[joint]
        too_fast = abs(step[joint]) > SPEED[joint] * PERIOD
        assert outside or too_fast or stopping_distance(step)[joint] > room


@given(st.floats(0, 20), st.floats(1e-6, 1e-2))
def test_the_stoppable_step_uses_the_room_up_and_no_more(distance, slowing):
    left = step = float(stoppable_step(np.array(distance), np.array(slowing)))
    total = 0.0
    while left > 0:
        total, left = total + left, left - slowing
    assert step <= distance
    assert total == pytest.approx(distance, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("last", "nominal", "active"),
    [
        (0.0, 0.01, ()),
        (0.0, 0.5, ("velocity",)),
        (UPPER[0], UPPER[0] + 0.01, ("position",)),
        (UPPER[0] - 0.001, UPPER[0] + 1.0, ("position", "velocity")),
        (UPPER[0] - 0.01, UPPER[0] - 0.001, ("stopping",)),
    ],
)
def test_the_rule_that_changed_the_command_is_named(last, nominal, active):
    answer = certified(np.array([last, *np.zeros(6)]), np.array([nominal, *np.zeros(6)]))
    assert answer.active == active


def test_the_grippers_drive_limits_its_own_speed():
    start = np.zeros(7)
    answer = certified(start, np.array([*np.zeros(6), 0.8]))
    assert answer.action[6] == 0.8
    assert answer.active == ()


def test_the_margin_is_the_distance_to_the_nearest_limit():
    near = np.zeros(7)
    near[2], near[6] = UPPER[2] - 0.25, 0.4
    assert certified(near, near).margin == pytest.approx(0.25)


@pytest.mark.parametrize("joint", [0, 3])
def test_a_robot_commanded_outside_its_limits_is_not_certified(joint):
    last = np.zeros(7)
    last[joint] = UPPER[joint] + 0.5
    answer = LIMITS.certify(state(last), np.zeros(7))
    assert not answer.feasible
    assert answer.reason == f"{ROBOT.joint_names[joint]} was commanded outside its limits"

"""The safe stop comes to rest, gently, in time and inside the limits, from anything that was certified."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onestride.deploy.safety.limits import JointLimits
from onestride.deploy.safety.stop import DecelerateAndHold
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import load_robot
from onestride.hardware.state import Measurement

ROBOT = load_robot("ur5e_2f85")
LOWER, UPPER = ROBOT.position_limits
ARM = np.isfinite(ROBOT.velocity_limits)
DECELERATION, WITHIN = ROBOT.safe_stop.deceleration, ROBOT.safe_stop.completes_within
STILL = Measurement(np.zeros(7), np.zeros(7))
shares = arrays(float, 7, elements=st.floats(0, 1))
pushes = arrays(float, (6, 7), elements=st.floats(-8, 8))
periods = st.sampled_from([0.002, 0.005, 0.01])


def certified_motion(start: np.ndarray, nominals: np.ndarray, period: float) -> tuple[np.ndarray, np.ndarray]:
    """The last command and the one before it, after a few certified ones."""
    limits, before = JointLimits(ROBOT), start
    last = start
    for nominal in nominals:
        before, last = last, limits.certify(ControlState(0.0, period, STILL, last), nominal).action
    return last, before


def stop_from(last: np.ndarray, before: np.ndarray, period: float) -> np.ndarray:
    """The commands of a stop until it says that it is at rest, and ten more (T, ..., n)."""
    stop = DecelerateAndHold(ROBOT, period)
    stop.begin(last, before)
    commands = []
    while not stop.at_rest:
        commands.append(stop.next())
        assert len(commands) < 10_000
    return np.array([*commands, *(stop.next() for _ in range(10))])


@given(shares, pushes, periods)
def test_from_any_certified_motion_it_ends_at_rest_as_declared(start, nominals, period):
    last, before = certified_motion(LOWER + start * (UPPER - LOWER), nominals, period)
    commands = stop_from(last, before, period)
    path = np.array([before, last, *commands])[:, ARM]
    velocity = np.diff(path, axis=0) / period
    assert np.all((commands >= LOWER) & (commands <= UPPER))
    assert np.all(np.abs(np.diff(velocity, axis=0)) <= DECELERATION * period + 1e-9)
    assert np.all(velocity[1:] * velocity[:-1] >= 0), "it turned round"
    moving = np.flatnonzero(np.any(np.abs(velocity[1:]) > 1e-12, axis=1))
    assert (moving.max(initial=-1) + 1) * period <= WITHIN
    np.testing.assert_array_equal(commands[-10:], np.broadcast_to(commands[-1], (10, 7)))


@given(shares, pushes)
def test_it_takes_as_long_as_the_speed_needs(start, nominals):
    """Not sooner than the deceleration allows, and not a tick longer than it needs."""
    period = 0.005
    last, before = certified_motion(LOWER + start * (UPPER - LOWER), nominals, period)
    fastest = np.abs((last - before)[ARM] / period).max()
    ticks = len(stop_from(last, before, period)) - 10
    assert abs(ticks - np.ceil(fastest / (DECELERATION * period))) <= 1


@given(shares, arrays(float, 7, elements=st.floats(-1, 1)), periods)
def test_even_from_a_motion_that_was_never_certified_it_stays_inside_the_limits(start, step, period):
    last = LOWER + start * (UPPER - LOWER)
    commands = stop_from(last, last - step, period)
    assert np.all((commands >= LOWER) & (commands <= UPPER))
    assert (len(commands) - 10) * period <= WITHIN + period
    np.testing.assert_array_equal(commands[-1], commands[-10])


@given(arrays(float, (4, 7), elements=st.floats(0, 1)), arrays(float, (4, 7), elements=st.floats(-0.01, 0.01)))
def test_a_batch_stops_as_its_rows_do(start, step):
    last = LOWER + start * (UPPER - LOWER)
    together = stop_from(last, last - step, 0.005)
    for row in range(len(last)):
        alone = stop_from(last[row], (last - step)[row], 0.005)
        np.testing.assert_array_equal(together[: len(alone), row], alone)


def test_the_gripper_holds_at_once():
    last, before = np.zeros(7), np.zeros(7)
    last[6] = 0.5
    np.testing.assert_array_equal(stop_from(last, before, 0.005), np.broadcast_to(last, (10, 7)))


def test_a_robot_at_rest_is_at_rest():
    stop = DecelerateAndHold(ROBOT, 0.005)
    stop.begin(np.full(7, 0.25), np.full(7, 0.25))
    assert stop.at_rest
    np.testing.assert_array_equal(stop.next(), np.full(7, 0.25))

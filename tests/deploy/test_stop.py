"""The safe stop comes to rest, gently, in time and inside the limits, from anything that was certified."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from joint_attacks import Motions, attack, bounds, without
from limited_arm import limited_ur5e

from onestride.deploy.safety.joints import JointLimits
from onestride.deploy.safety.stop import DecelerateAndHold
from onestride.deploy.safety.types import Yield
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.state import Array

UR5E, PANDA, FR3 = load_robot("ur5e_2f85"), load_robot("panda"), load_robot("fr3")
ROBOTS = pytest.mark.parametrize(
    "robot", [UR5E, PANDA, without(UR5E, "acceleration", "jerk")], ids=["ur5e", "panda", "ur5e, speed only"]
)
periods = pytest.mark.parametrize("period", [0.001, 0.005, 0.01])


def stop_from(
    robot: RobotDescription, sent: Array, velocity: Array, acceleration: Array, period: float, **options: bool
) -> Array:
    """The commands of a stop until it says that it is at rest, and ten more (T, ..., n)."""
    stop = DecelerateAndHold(robot, period, **options)
    stop.begin(sent, velocity, acceleration)
    commands = []
    while not stop.at_rest:
        commands.append(stop.next())
        assert len(commands) < 10_000
    return np.array([*commands, *(stop.next() for _ in range(10))])


@ROBOTS
@periods
def test_from_any_certified_motion_it_ends_at_rest_as_declared(robot: RobotDescription, period):
    rng = np.random.default_rng(0)
    motions = Motions.at_rest(robot, period, 100, rng)
    attack(JointLimits(robot), motions, 120, rng)
    commands = stop_from(robot, motions.sent, motions.velocity, motions.acceleration, period)
    moves, limit = np.isfinite(robot.velocity_limits), robot.safe_stop.deceleration
    lower, upper = robot.position_limits
    path = np.concatenate([(motions.sent - period * motions.velocity)[None], motions.sent[None], commands])[..., moves]
    velocity = np.diff(path, axis=0) / period
    acceleration = np.concatenate([motions.acceleration[None][..., moves], np.diff(velocity, axis=0) / period])
    assert np.all((commands >= lower) & (commands <= upper))
    assert np.all(np.abs(np.diff(acceleration, axis=0)) <= robot.jerk_limits[moves] * period + 1e-4)
    assert np.all(np.abs(acceleration) <= np.maximum(np.abs(acceleration[0]), limit) + 1e-6)
    moving = np.flatnonzero(np.any(np.abs(velocity[1:]) > 1e-12, axis=(1, 2)))
    assert (moving.max(initial=-1) + 1) * period <= robot.safe_stop.completes_within
    np.testing.assert_array_equal(commands[-10:], np.broadcast_to(commands[-1], (10, *commands[-1].shape)))


@pytest.mark.parametrize("robot", [limited_ur5e(), PANDA, FR3], ids=["ur5e", "panda", "fr3"])
@periods
def test_after_jerk_and_acceleration_have_yielded_it_brakes_no_harder_than_declared(robot: RobotDescription, period):
    """From any command that the joints' hard boxes allow, half of them on their edge, reached in any way."""
    rng = np.random.default_rng(1)
    motions = Motions.at_rest(robot, period, 400, rng)
    low, high = bounds(JointLimits(robot).rows(motions.motion), Yield.NEVER)
    share = rng.random(low.shape)
    sent = low + np.where(rng.random(low.shape) < 0.5, share.round(), share) * (high - low)
    moves, limit = np.isfinite(robot.velocity_limits), robot.safe_stop.deceleration
    fastest, most = robot.velocity_limits[moves], robot.acceleration_limits
    velocity = (sent - motions.sent) / period
    acceleration = np.where(moves, np.nan_to_num(most), 0.0) * rng.choice([-5, -1, -0.3, 0, 0.3, 1, 5], low.shape)
    commands = stop_from(robot, sent, velocity, acceleration, period)
    lower, upper = robot.position_limits
    assert np.all((commands >= lower) & (commands <= upper))
    path = np.concatenate([motions.sent[None], sent[None], commands])[..., moves]
    speed = np.diff(path, axis=0) / period
    assert np.all(np.abs(speed) <= fastest * (1 + 1e-9))
    ticks = np.arange(1, len(speed))[:, None, None]
    begun = np.clip(acceleration, -most, most)[:, moves]  # what is left of it is let go with the jerk limit
    left = np.abs(begun) - robot.jerk_limits[moves] * period * ticks
    assert np.all(np.abs(np.diff(speed, axis=0)) / period <= np.maximum(limit, left) + 1e-6)
    moving = np.flatnonzero(np.any(np.abs(speed[1:]) > 1e-12, axis=(1, 2)))
    assert (moving.max(initial=-1) + 1) * period <= robot.safe_stop.completes_within


@ROBOTS
def test_it_takes_as_long_as_the_speed_needs(robot: RobotDescription):
    """Not sooner than deceleration and jerk allow, and not two ticks longer than they need."""
    period, moves = 0.005, np.isfinite(robot.velocity_limits)
    speed = np.where(moves, 0.8 * np.minimum(robot.velocity_limits, 3.0), 0.0)
    still = np.zeros_like(speed)
    ticks = len(stop_from(robot, still + 0.5 * sum(robot.position_limits), speed, still, period)) - 10
    ramps = np.where(np.isfinite(robot.jerk_limits), robot.safe_stop.deceleration / robot.jerk_limits, 0.0)
    needed = (speed[moves] / robot.safe_stop.deceleration + ramps[moves]).max() / period
    assert -1 <= ticks - needed <= 2


@given(
    arrays(float, 7, elements=st.floats(0, 1)),
    arrays(float, 7, elements=st.floats(-200, 200)),
    arrays(float, 7, elements=st.floats(-1e5, 1e5)),
    st.sampled_from([0.002, 0.005, 0.01]),
)
def test_even_from_a_motion_that_was_never_certified_it_stays_inside_the_limits(share, speed, acceleration, period):
    lower, upper = UR5E.position_limits
    commands = stop_from(UR5E, lower + share * (upper - lower), speed, acceleration, period)
    assert np.all((commands >= lower) & (commands <= upper))
    assert (len(commands) - 10) * period <= UR5E.safe_stop.completes_within + 2 * period
    np.testing.assert_array_equal(commands[-1], commands[-10])


@given(arrays(float, (4, 7), elements=st.floats(0, 1)), arrays(float, (4, 7), elements=st.floats(-2, 2)))
def test_a_batch_stops_as_its_rows_do(share, speed):
    lower, upper = UR5E.position_limits
    sent, still = lower + share * (upper - lower), np.zeros_like(share)
    together = stop_from(UR5E, sent, speed, still, 0.005)
    for row in range(len(sent)):
        alone = stop_from(UR5E, sent[row], speed[row], still[row], 0.005)
        np.testing.assert_array_equal(together[: len(alone), row], alone)


def test_a_hard_stop_brakes_with_all_that_the_limits_allow_and_at_once_without_them():
    speed, still = np.array([2.0, 0, 0, 0, 0, 0, 0]), np.zeros(7)
    gentle, hard = (len(stop_from(UR5E, still, speed, still, 0.005, hard=hard)) - 10 for hard in (False, True))
    assert hard < gentle / 3
    bare = without(UR5E, "acceleration", "jerk")
    assert not stop_from(bare, still, speed, still, 0.005, hard=True).any()


def test_the_gripper_holds_at_once():
    last = np.zeros(7)
    last[6] = 0.5
    fast = np.array([*np.zeros(6), 40.0])
    np.testing.assert_array_equal(stop_from(UR5E, last, fast, fast, 0.005), np.broadcast_to(last, (10, 7)))


def test_a_robot_at_rest_is_at_rest():
    stop = DecelerateAndHold(UR5E, 0.005)
    stop.begin(np.full(7, 0.25), np.zeros(7), np.zeros(7))
    assert stop.at_rest
    np.testing.assert_array_equal(stop.next(), np.full(7, 0.25))

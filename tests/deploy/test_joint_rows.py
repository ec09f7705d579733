"""Whatever is asked for, what is sent keeps the joints' limits and the way to stop, and some command always does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from joint_attacks import Motions, attack, bounds, without
from limited_arm import limited_ur5e

from onestride.deploy.safety.joints import JointLimits, joint_limits
from onestride.deploy.safety.projection import Projection
from onestride.deploy.safety.reach import stopping_change
from onestride.deploy.safety.types import ControlState, Yield
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.state import Array, Measurement

UR5E = limited_ur5e()
FAST = without(UR5E, "acceleration", "jerk")  # limits of position and speed only
LOWER, UPPER = FAST.position_limits
ARM = np.isfinite(FAST.velocity_limits)
SPEED, SLOWING = FAST.velocity_limits, FAST.safe_stop.deceleration
PERIOD = 0.005
STILL = Measurement(np.zeros(7), np.zeros(7))
PROJECTION = Projection([JointLimits(FAST)], FAST.joint_names)
shares = arrays(float, 7, elements=st.floats(0, 1))
wild = arrays(float, (8, 7), elements=st.floats(-20, 20) | st.floats(allow_nan=False, allow_infinity=False))
ROBOTS = [
    pytest.param(variant(robot), id=f"{robot.id}, {title}")
    for robot in (load_robot("panda"), UR5E)  # every joint with every limit, and a gripper without
    for title, variant in {
        "jerk": lambda robot: robot,
        "no jerk": lambda robot: without(robot, "jerk"),
        "speed only": lambda robot: without(robot, "acceleration", "jerk"),
    }.items()
]


def within(share: Array) -> Array:
    return LOWER + share * (UPPER - LOWER)


def stopping_distance(step: Array) -> Array:
    """What a step and the declared stop after it cover, added up tick by tick [rad]."""
    total, left = np.zeros_like(step), np.abs(step)
    while np.any(left > 0):
        total += left
        left = np.maximum(left - SLOWING * PERIOD**2, 0.0)
    return total


def certified(last_sent: Array, nominal: Array, scale: float = 1.0, projection: Projection = PROJECTION):
    answer = projection.certify(ControlState(0.0, PERIOD, STILL, last_sent, speed_scale=scale), nominal)
    assert answer.feasible
    return answer


# Any number of steps, from anywhere


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("period", [0.001, 0.005, 0.01])
def test_random_and_hostile_steps_keep_every_limit_and_leave_a_next_one(robot: RobotDescription, period):
    rng = np.random.default_rng(0)
    motions = Motions.at_rest(robot, period, 40, rng)
    keeps_all(attack(JointLimits(robot), motions, 250, rng))


@pytest.mark.slow
@pytest.mark.parametrize("robot", ROBOTS)
def test_a_million_of_them_do_too(robot: RobotDescription):
    rng = np.random.default_rng(1)
    for period in (0.001, 0.002, 0.005, 0.01):
        motions = Motions.at_rest(robot, period, 500, rng)
        keeps_all(attack(JointLimits(robot), motions, 500, rng))


def keeps_all(worst: dict[str, float]) -> None:
    assert worst["empty"] <= 1e-10  # rounding: a third of a million steps of float64, speeds kept as quotients
    assert worst["position"] <= 1e-10  # and within that, the projection lets the position limits win
    assert worst["velocity"] <= 1e-9
    assert worst["acceleration"] <= 1e-7
    assert worst["jerk"] <= 1e-5  # a third difference of float64 positions over a millisecond


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_stops_next_command_is_always_permitted(robot: RobotDescription):
    """What makes the joints' rows compatible with every other claim that counts on the stop."""
    rng, period = np.random.default_rng(2), 0.002
    motions, source = Motions.at_rest(robot, period, 200, rng), JointLimits(robot)
    limits = joint_limits(robot, period)
    for _ in range(30):
        attack(source, motions, 5, rng)
        low, high = bounds(source.rows(motions.motion), Yield.JERK)
        v, a = motions.velocity * period, motions.acceleration * period**2
        stop = motions.sent + v + stopping_change(v, a, limits)
        moves = np.isfinite(robot.velocity_limits)
        assert np.all((stop >= low - 1e-12)[:, moves] & (stop <= high + 1e-12)[:, moves])


def test_the_cheap_way_and_the_whole_way_agree():
    """A batch takes the whole way as soon as one of its states is near a limit; no other state may notice."""
    rng, source = np.random.default_rng(3), JointLimits(UR5E)
    motions = Motions.at_rest(UR5E, 0.005, 400, rng)
    attack(source, motions, 40, rng)
    low, high = bounds(source.rows(motions.motion), Yield.JERK)
    for one in range(len(low)):
        state = (whole[one][None] for whole in (motions.sent, motions.velocity, motions.acceleration))
        alone = Motions(UR5E, 0.005, *state).motion
        boxes = source.rows(alone)
        for ours, theirs in zip(bounds(boxes, Yield.JERK), (low, high), strict=True):
            np.testing.assert_allclose(ours[0], theirs[one], rtol=0, atol=1e-12)


# One step


@given(shares, wild, st.floats(0.01, 1))
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


@given(shares, arrays(float, 7, elements=st.floats(-1, 1)))
def test_what_keeps_the_limits_is_passed_on_as_it_is(start, share):
    last = within(start)
    step = share * np.where(ARM, SPEED, 0.0) * PERIOD
    room = np.where(step > 0, UPPER - last, last - LOWER)
    step = np.where(ARM & (stopping_distance(step) > room - 1e-12), 0.0, step)
    step[~ARM] = within(np.abs(share))[~ARM] - last[~ARM]
    nominal = last + step * (1 - 1e-12)
    answer = certified(last, nominal)
    assert answer.action is nominal
    assert answer.active == ()


@given(shares, wild)
def test_certifying_twice_changes_nothing_more(start, nominals):
    last = within(start)
    for nominal in nominals:
        first = certified(last, nominal)
        second = certified(last, first.action)
        np.testing.assert_array_equal(second.action, first.action)
        assert second.active == ()


@given(shares, arrays(float, 7, elements=st.floats(-20, 20)))
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


@pytest.mark.parametrize(
    ("last", "nominal", "active"),
    [
        (0.0, 0.01, ()),
        (0.0, 0.5, ("velocity",)),
        (UPPER[0], UPPER[0] + 0.01, ("position", "stopping")),
        (UPPER[0] - 0.001, UPPER[0] + 1.0, ("position", "velocity", "stopping")),
        (UPPER[0] - 0.01, UPPER[0] - 0.001, ("stopping",)),
    ],
)
def test_the_rules_that_were_broken_are_named(last, nominal, active):
    answer = certified(np.array([last, *np.zeros(6)]), np.array([nominal, *np.zeros(6)]))
    assert answer.active == tuple(f"joints.{rule}" for rule in active)


def test_acceleration_and_jerk_are_named_too():
    projection = Projection([JointLimits(UR5E)], UR5E.joint_names)
    change = np.array([1.5 * 40 * PERIOD**2, *np.zeros(6)])
    assert certified(np.zeros(7), change, projection=projection).active == ("joints.acceleration", "joints.jerk")
    change = np.array([1.5 * 4000 * PERIOD**3, *np.zeros(6)])
    answer = certified(np.zeros(7), change, projection=projection)
    assert answer.active == ("joints.jerk",)
    assert answer.action[0] == pytest.approx(4000 * PERIOD**3)


def test_the_grippers_drive_limits_its_own_speed():
    for robot in (FAST, UR5E):
        answer = certified(
            np.zeros(7), np.array([*np.zeros(6), 0.8]), projection=Projection([JointLimits(robot)], robot.joint_names)
        )
        assert answer.action[6] == 0.8
        assert answer.active == ()


def test_the_margin_is_the_distance_to_the_nearest_position_limit():
    near = np.zeros(7)
    near[2], near[6] = UPPER[2] - 0.25, 0.4
    assert certified(near, near).margin == pytest.approx(0.25)


@pytest.mark.parametrize("joint", [0, 3])
def test_a_robot_commanded_outside_its_limits_is_not_certified(joint):
    last = np.zeros(7)
    last[joint] = UPPER[joint] + 0.5
    answer = PROJECTION.certify(ControlState(0.0, PERIOD, STILL, last), np.zeros(7))
    assert not answer.feasible
    assert answer.reason.startswith(f"no command of {FAST.joint_names[joint]} keeps joints.velocity (at least ")

"""Nominal commands are followed where the joints can follow, and otherwise neared without flying past them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from joint_attacks import without
from limited_arm import limited_ur5e

from onestride.deploy.safety.approach import Approach
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.joints import JointLimits
from onestride.deploy.safety.projection import Projection
from onestride.deploy.safety.types import ControlState, Filter
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.state import Array, Measurement

ARMS = {"ur5e_2f85": limited_ur5e(), "panda": load_robot("panda")}
ROBOTS = pytest.mark.parametrize("name", ARMS)
periods = pytest.mark.parametrize("period", [0.001, 0.002, 0.005, 0.01])


def home(robot: RobotDescription) -> Array:
    return np.array([joint.default for joint in robot.joints])


def followed(robot: RobotDescription, nominals: Array, period: float, *, smoothly: bool = True) -> tuple[Array, Chain]:
    """What is sent for nominal commands (T, n), one after another from rest at the default pose (T, n)."""
    projection = Projection([JointLimits(robot)], robot.joint_names)
    filters: list[Filter] = [Approach(robot), projection] if smoothly else [projection]
    chain, sent = Chain(filters), home(robot)
    velocity = acceleration = np.zeros_like(sent)
    commands = []
    for nominal in nominals:
        measurement = Measurement(sent, velocity)
        state = ControlState(0.0, period, measurement, sent, sent_velocity=velocity, sent_acceleration=acceleration)
        answer = chain.certify(state, nominal)
        assert answer.feasible, answer.reason
        before, velocity = velocity, (answer.action - sent) / period
        acceleration, sent = (velocity - before) / period, answer.action
        commands.append(sent)
    return np.array(commands), chain


@ROBOTS
@periods
def test_a_jump_is_neared_without_overshoot_and_reached_for_good(name, period):
    robot = ARMS[name]
    target = home(robot) + 0.3
    commands, _ = followed(robot, np.tile(target, (round(0.7 / period), 1)), period)
    assert np.all(commands <= target + 1e-3)
    np.testing.assert_allclose(commands[-5:], np.tile(target, (5, 1)), rtol=0, atol=1e-9)


@ROBOTS
def test_it_is_almost_as_fast_as_may_be(name):
    """The shortest time for such a way, by the limits of each joint in continuous time."""
    robot, period, way = ARMS[name], 0.002, 0.3
    commands, _ = followed(robot, np.tile(home(robot) + way, (1500, 1)), period)
    arms = np.isfinite(robot.velocity_limits)
    arrived = np.argmax(np.abs(commands - home(robot) - way) < 1e-3, axis=0)[arms] * period
    v, a, j = (limit[arms] for limit in (robot.velocity_limits, robot.acceleration_limits, robot.jerk_limits))
    top = np.minimum(v, np.sqrt(way * a + (a * a / j) ** 2 / 4) - a * a / j / 2)
    shortest = way / top + top / a + a / j
    assert np.all(arrived <= 1.15 * shortest + 3 * period)


@ROBOTS
@periods
def test_without_it_a_jump_makes_the_joints_swing(name, period):
    """What it is there for: commands that are merely clipped do not settle."""
    robot = ARMS[name]
    target = home(robot) + 0.3
    commands, _ = followed(robot, np.tile(target, (round(0.7 / period), 1)), period, smoothly=False)
    assert np.abs(commands[-50:] - target).max() > 0.02


@ROBOTS
@periods
def test_a_motion_within_the_limits_is_passed_on_exactly(name, period):
    robot = ARMS[name]
    arms = np.isfinite(robot.velocity_limits)
    time = np.arange(round(1.0 / period))[:, None] * period
    nominals = home(robot) + np.where(arms, 0.1 * (1 - np.cos(3.0 * time)) ** 2, 0.0)
    commands, chain = followed(robot, nominals, period)
    np.testing.assert_array_equal(commands, nominals)
    assert chain.counters["interventions"] == 0


@ROBOTS
def test_a_ramp_is_caught_up_with_and_left_without_swinging(name):
    """Twenty policy steps of 50 ms, each a straight line on, then one target for good."""
    robot, period = ARMS[name], 0.005
    arms = np.isfinite(robot.velocity_limits)
    ramp = np.minimum(np.arange(1, 401) / 200.0, 1.0)[:, None]
    commands, _ = followed(robot, home(robot) + np.where(arms, 0.8, 0.0) * ramp, period)
    end = home(robot) + np.where(arms, 0.8, 0.0)
    assert np.abs(commands[120:195] - (home(robot) + np.where(arms, 0.8, 0.0) * ramp[120:195])).max() < 1e-7
    unavoidable = 0.8**2 / (2 * robot.acceleration_limits[arms].min()) + 0.01
    assert (commands - end).max() < unavoidable
    np.testing.assert_allclose(commands[-50:], np.tile(end, (50, 1)), rtol=0, atol=1e-9)


@given(arrays(float, (6, 7), elements=st.floats(-1, 1)))
def test_whatever_is_asked_for_the_last_target_is_reached_and_kept(moves):
    robot = load_robot("panda")
    lower, upper = robot.position_limits
    targets = np.clip(home(robot) + moves, lower, upper)
    nominals = np.concatenate([np.repeat(targets[:-1], 10, axis=0), np.tile(targets[-1], (400, 1))])
    commands, _ = followed(robot, nominals, 0.005)
    np.testing.assert_allclose(commands[-20:], np.tile(targets[-1], (20, 1)), rtol=0, atol=1e-6)


def test_without_acceleration_limits_it_does_nothing():
    robot = without(load_robot("ur5e_2f85"), "acceleration", "jerk")
    nominal = home(robot) + 1.0
    state = ControlState(0.0, 0.005, Measurement(nominal, nominal), home(robot))
    assert Approach(robot).certify(state, nominal).action is nominal


def test_asked_again_in_a_tick_it_has_no_opinion():
    robot = load_robot("panda")
    approach, state = Approach(robot), ControlState(0.0, 0.005, Measurement(home(robot), np.zeros(7)), home(robot))
    assert approach.certify(state, home(robot) + 1.0).warnings == ("slowed",)
    assert approach.certify(state, home(robot) + 0.5).active == ()


@ROBOTS
def test_during_a_soft_start_the_limits_that_are_in_force_then_count(name):
    """Otherwise they would be the projection's to keep, and a jump at the start of every run an intervention."""
    robot, period = ARMS[name], 0.005
    chain, sent = Chain([Approach(robot), Projection([JointLimits(robot)], robot.joint_names)]), home(robot)
    velocity, acceleration = np.zeros_like(sent), np.zeros_like(sent)
    target = home(robot) + np.where(np.isfinite(robot.velocity_limits), 0.3, 0.0)
    for tick in range(40):
        scale = min(1.0, (tick + 1) * period / 0.2)
        measurement = Measurement(sent, velocity)
        state = ControlState(0.0, period, measurement, sent, 0.0, scale, velocity, acceleration)
        answer = chain.certify(state, target)
        assert answer.feasible, answer.reason
        before, velocity = velocity, (answer.action - sent) / period
        acceleration, sent = (velocity - before) / period, answer.action
    assert chain.counters["approach.slowed"] > 30
    assert chain.counters["interventions"] == 0

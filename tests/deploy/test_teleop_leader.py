"""A leader arm and the robot that follows it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from teleop_drive import DEADMAN, STEP, pinch, pressed, rests, within_limits

from onestride.deploy.controller import Actor
from onestride.deploy.teleop.mapping import Mapping, load_mapping
from onestride.deploy.teleop.operator import Operator
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Measurement


def leader_names(robot):
    return [f"leader_{name}" for name in robot.joint_names[:6]]


def leader_mapping(robot, **said):
    joints = {name: {"name": f"leader_{name}"} for name in robot.joint_names[:6]}
    return {"leader": Mapping.model_validate({"leader": {"joints": joints, **said}}).leader}


@pytest.mark.parametrize("follow", ["relative", "absolute"])
def test_the_robot_follows_a_leader(person, robot, forward, follow):
    """Where the leader's frame goes, the robot's goes: exactly there, or by as much as the leader has moved."""
    one = person("leader", **leader_mapping(robot, follow=follow))
    here = one.plant.read().position
    leader = here[:6] + (0.3 if follow == "relative" else 0.0) * np.array([1, 0, 0, 0, 0, 0])
    names = leader_names(robot)
    one.leads(names, leader, ticks=STEP)
    one.leads(names, leader, DEADMAN, ticks=2 * STEP)
    started, led = pinch(one, forward), _frame(forward, leader)
    if follow == "relative":
        assert np.abs(one.commands[-1] - here)[:6].max() < 0.02, "taking the robot does not move it"
    for part in np.linspace(0, 1, 40):
        moved = leader + part * np.array([-0.1, 0.05, -0.05, 0.0, 0.0, 0.0])
        one.leads(names[::-1], moved[::-1], DEADMAN, ticks=STEP)
    one.leads(names, moved, DEADMAN, ticks=10 * STEP)
    target = _frame(forward, moved) if follow == "absolute" else started + _frame(forward, moved) - led
    np.testing.assert_allclose(pinch(one, forward), target, atol=1e-2)  # a loaded arm hangs 6 mm low
    within_limits(one)


def _frame(forward, arm):
    forward.place(np.append(arm, 0.0))
    return forward.position("pinch")


def test_a_leader_far_away_is_followed_at_the_boxs_pace(person, robot):
    one = person("leader", **leader_mapping(robot, follow="absolute"))
    far = one.plant.read().position[:6] + np.array([1.5, 0, 0, 0, 0, 0])
    one.leads(leader_names(robot), far, ticks=STEP)
    ticks = one.leads(leader_names(robot), far, DEADMAN, ticks=3 * STEP)
    for tick in ticks:
        if tick.action is not None:
            assert np.abs(tick.action).max() <= 1.0
    assert max(np.abs(tick.action).max() for tick in ticks if tick.action is not None) == 1.0


def gripping(contract, robot, forward, follow):
    mapping = load_mapping(None, contract)
    grip = {"name": "trigger", "open": 0.0, "closed": -0.9}
    said = leader_mapping(robot, gripper=grip, follow=follow)
    return Operator(contract, mapping.model_copy(update=said), forward, "leader", supervises=False)


@given(st.floats(-1, 2))
def test_the_leaders_grip_places_the_gripper(contract, robot, forward, reading):
    operator = gripping(contract, robot, forward, "absolute")
    here = np.array([joint.default for joint in robot.joints])
    operator.hear_leader([*leader_names(robot), "trigger"], [*here[:6], -0.9 * reading], 0.0)
    operator.hear_joy([], pressed(), 0.0)
    operator.look(0.0)
    operator.hear_joy([], pressed(DEADMAN), 0.0)
    assert operator.look(0.0) is Actor.OPERATOR
    action = operator.action(Measurement(here, np.zeros(7)), here)
    assert here[6] + 0.8 * action[4] == pytest.approx(0.8 * np.clip(reading, 0, 1), abs=1e-9)
    np.testing.assert_allclose(action[:4], 0.0, atol=1e-9)


def test_taking_the_robot_leaves_its_gripper_until_the_leaders_grip_moves(contract, robot, forward):
    operator = gripping(contract, robot, forward, "relative")
    here = np.array([joint.default for joint in robot.joints])
    asked = []
    for button, reading in [(0, -0.9), (DEADMAN, -0.9), (DEADMAN, -0.87), (DEADMAN, -0.63), (DEADMAN, -0.9)]:
        operator.hear_leader([*leader_names(robot), "trigger"], [*here[:6], reading], 0.0)
        operator.hear_joy([], pressed(button), 0.0)
        if operator.look(0.0) is Actor.OPERATOR:
            asked.append(0.8 * operator.action(Measurement(here, np.zeros(7)), here)[4])
    np.testing.assert_allclose(here[6] + np.array(asked), [here[6], here[6], 0.56, 0.8], atol=1e-9)


def test_a_leader_without_a_joint_is_refused_by_name(person, robot, contract, forward):
    one = person("leader", **leader_mapping(robot))
    names = leader_names(robot)[:-1]
    one.leads(names, np.zeros(5), ticks=STEP)
    assert rests(one.leads(names, np.zeros(5), DEADMAN, ticks=2 * STEP))
    assert "leader: expected once each: leader_wrist_3_joint; got leader_shoulder" in one.operator.problem(one.now)
    some = leader_mapping(robot)["leader"]
    del some.joints["elbow_joint"]
    mapping = load_mapping(None, contract).model_copy(update={"leader": some})
    with pytest.raises(OneStrideError, match="got none for elbow_joint"):
        Operator(contract, mapping, forward, "leader", supervises=False)

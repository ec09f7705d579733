"""Descriptions of robots on legs and of drivers refuse contradictions by name."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
import yaml

from onestride.hardware.description import DampingStop, load_robot, parse_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.chain import USUAL_CHAIN


@pytest.fixture
def content():
    return yaml.safe_load((resources.files("onestride.hardware") / "robots" / "go2.yaml").read_text())


USUAL = [terms.model_dump() for terms in USUAL_CHAIN]
PORT = {"name": "leg", "joints": ["FL_hip_joint"], "initial": 60.0, "minimum": 1.0, "capacity": 60.0}
HOLD = {"kind": "decelerate_and_hold", "deceleration": 10, "completes_within": 9.0}


def lowcmd(content):
    return content["drivers"]["unitree_ros2"]["commands"]["lowcmd"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(command_mode="position", safety=[]), "safety: expected finite as the first filter"),
        (
            lambda c: c.update(command_mode="position", safety=USUAL),
            "expected decelerate_and_hold from drives that take positions",
        ),
        (
            lambda c: c["safety"][-1]["rows"].append({"row": "tank", "ports": [PORT]}),
            "safety: expected no row tank with command_mode impedance",
        ),
        (lambda c: c["joints"][3].pop("effort"), "joint FL_hip_joint: expected an effort limit"),
        (lambda c: c["safe_stop"].update(kind="sit"), "expected tags: 'decelerate_and_hold', 'damping'"),
        (lambda c: c["safe_stop"].update(deceleration=5), "safe_stop.damping.deceleration: Extra inputs"),
        (lambda c: c["base"].update(tilt=-1.0), "base.tilt: Input should be greater than 0"),
        (lambda c: c["base"]["feet"].clear(), "base.feet: Tuple should have at least 1 item"),
        (lambda c: c["base"]["feet"].append(dict(c["base"]["feet"][0])), "base: expected every foot once"),
        (lambda c: c["base"]["feet"][1].update(joints=c["base"]["feet"][0]["joints"]), "expected every leg joint once"),
        (lambda c: c["base"]["feet"][1]["joints"].__setitem__(2, "knee"), "base: expected joints of .*, got 'knee'"),
        (lambda c: lowcmd(c)["joints"].__setitem__(0, "knee"), "driver unitree_ros2, lowcmd: expected joints of"),
        (lambda c: lowcmd(c).update(message="LowCmd"), "lowcmd.message: String should match pattern"),
        (lambda c: lowcmd(c).update(kind="magic"), "lowcmd.kind: Input should be 'forward_command'"),
        (lambda c: c["drivers"]["unitree_ros2"].update(commands={}), "expected at least one command"),
        (
            lambda c: c["drivers"]["unitree_ros2"]["states"].pop("joints"),
            "expected the stream joints, got foot_forces_raw, imu",
        ),
        (lambda c: c["drivers"]["unitree_ros2"].update(docs="see below"), "docs: String should match pattern"),
        (lambda c: c.update(model={"package": "torch", "file": "x"}), "model.PackagedModel.package"),
    ],
)
def test_contradictions_are_named(content, change, message):
    change(content)
    with pytest.raises(OneStrideError, match=message):
        parse_robot(yaml.safe_dump(content), source="test.yaml")


def test_impedance_goes_to_one_topic(content):
    joints = content["commands"][0]["joints"]
    content["commands"] = [{"topic": "front", "joints": joints[:6]}, {"topic": "rear", "joints": joints[6:]}]
    with pytest.raises(OneStrideError, match="expected one impedance topic for all joints, got 2"):
        parse_robot(yaml.safe_dump(content), source="test.yaml")


def test_an_arm_without_any_of_it_is_as_before():
    robot = load_robot("ur5e_2f85")
    assert robot.base is None
    assert robot.command_mode == "position"
    assert robot.safe_stop.kind == "decelerate_and_hold"


def test_a_stop_that_asks_for_no_position_limits_no_command():
    robot = load_robot("go2")
    assert isinstance(robot.safe_stop, DampingStop)
    assert np.isinf(robot.safe_stop.deceleration)


def test_an_impedance_robot_may_hold_as_well(content):
    content["safe_stop"] = HOLD
    assert parse_robot(yaml.safe_dump(content), source="test.yaml").safe_stop.deceleration == 10


@pytest.mark.parametrize("name", ["go1", "go2", "spot"])
def test_right_legs_mirror_left_ones(name):
    joints = {joint.name: joint for joint in load_robot(name).joints}
    for joint in joints.values():
        twin = joints[joint.name.replace("FR_", "FL_").replace("RR_", "RL_").replace("right", "left")]
        abduction = "hip_joint" in joint.name or "hip_x" in joint.name
        assert (joint.velocity, joint.effort, joint.stiffness) == (twin.velocity, twin.effort, twin.stiffness)
        sign = -1.0 if abduction and twin is not joint else 1.0
        assert joint.default == sign * twin.default

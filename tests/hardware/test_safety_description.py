"""Limits and chains that contradict themselves are refused when a robot is loaded, by name."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
import yaml
from limited_arm import limited_ur5e

from onestride.hardware.description import Joint, RobotDescription, available_robots, load_robot, parse_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.chain import USUAL_CHAIN


def content(name: str = "panda") -> dict:
    return yaml.safe_load((resources.files("onestride.hardware") / "robots" / f"{name}.yaml").read_text())


def with_chain(*filters: object):
    return lambda c: c.update(safety=[*filters])


FINITE, JOINTS = {"filter": "finite"}, {"filter": "projection", "rows": [{"row": "joints"}]}
SPHERE = {"name": "ball", "centre": [0, 0, 0], "radius": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["joints"][0].update(acceleration=-1), r"joints\.0\.acceleration: Input should be greater than 0"),
        (lambda c: c["joints"][0].update(jerk=".inf"), r"joints\.0\.jerk"),
        (
            lambda c: c["joints"][0].update(acceleration=None),
            "joint panda_joint1: expected no jerk limit without one of acceleration",
        ),
        (
            lambda c: c["joints"][0].update(velocity=None),
            "joint panda_joint1: expected no acceleration limit without one of velocity",
        ),
        (
            lambda c: c["joints"][3].update(acceleration=7.0),
            r"a deceleration that joint panda_joint4 may brake with, at most 7.0 rad/s\^2, got 7.5",
        ),
        (lambda c: c["joints"][1].update(jerk=20), r"complete within 0.5 s, but braking from .* takes 1\.040 s"),
        (with_chain(), "expected finite as the first filter, got none"),
        (with_chain(JOINTS, FINITE), "expected finite as the first filter, got projection"),
        (with_chain(FINITE), "expected exactly one projection, got 0"),
        (with_chain(FINITE, JOINTS, JOINTS), "expected exactly one projection, got 2"),
        (with_chain(FINITE, JOINTS, {"filter": "approach"}), "approach modifies commands, expected it before"),
        (with_chain(FINITE, {"filter": "projection", "rows": []}), "expected the row joints in the projection, got no"),
        (
            with_chain(FINITE, {"filter": "projection", "rows": [{"row": "impedance"}]}),
            "expected the row joints in the projection, got impedance",
        ),
        (
            with_chain(FINITE, {"filter": "projection", "rows": [{"row": "joints"}, {"row": "impedance"}]}),
            "expected no row impedance beside joints: it is for other drives",
        ),
        (
            with_chain(FINITE, {"filter": "projection", "rows": [{"row": "joints"}, {"row": "joints"}]}),
            "expected the row joints once, got it 2 times",
        ),
        (with_chain(FINITE, {"filter": "magic"}, JOINTS), r"safety\.1: Input tag 'magic' .* does not match any"),
        (
            with_chain(FINITE, {"filter": "projection", "rows": [{"row": "magic"}]}),
            r"safety\.1\.projection\.rows\.0: Input tag 'magic'",
        ),
        (with_chain({"filter": "finite", "colour": "red"}, JOINTS), r"safety\.0\.finite\.colour: Extra inputs"),
        (
            with_chain(
                FINITE,
                {
                    "filter": "projection",
                    "rows": [
                        {"row": "joints"},
                        {"row": "workspace", "frames": {"elbow": 0.1}, "spheres": [SPHERE]},
                    ],
                },
            ),
            "unknown frame: got 'elbow', available: hand",
        ),
    ],
)
def test_contradictions_are_named(change, message):
    changed = content()
    change(changed)
    with pytest.raises(OneStrideError, match=message):
        parse_robot(yaml.safe_dump(changed), source="test.yaml")


def test_a_robot_that_declares_no_chain_has_the_usual_one():
    changed = content("ur5e_2f85")
    del changed["safety"]
    robot = parse_robot(yaml.safe_dump(changed), source="test.yaml")
    assert robot.safety == USUAL_CHAIN
    assert [terms.filter for terms in robot.safety][-1] == "projection"


def test_arrays_of_limits_follow_the_joints():
    robot = limited_ur5e()
    np.testing.assert_array_equal(robot.acceleration_limits, [40.0] * 6 + [np.inf])
    np.testing.assert_array_equal(robot.jerk_limits, [4000.0] * 6 + [np.inf])
    np.testing.assert_array_equal(load_robot("ur5e_2f85").acceleration_limits, np.inf)
    panda = load_robot("panda")
    np.testing.assert_array_equal(panda.acceleration_limits, [15, 7.5, 10, 12.5, 15, 20, 20])


@pytest.mark.parametrize("name", available_robots())
def test_a_robot_is_the_same_after_writing_and_reading(name):
    robot = load_robot(name)
    assert RobotDescription.model_validate_json(robot.model_dump_json()) == robot


def test_a_copy_with_other_limits_forgets_what_was_derived_from_the_old():
    robot = load_robot("panda")
    assert robot.acceleration_limits[0] == 15.0
    joints = tuple(joint.model_copy(update={"acceleration": 8.0}) for joint in robot.joints)
    assert robot.model_copy(update={"joints": joints}).acceleration_limits.tolist() == [8.0] * 7


def test_the_longest_stop_of_a_joint_by_hand():
    """At 2 rad/s, speeding up with 20 rad/s^2: 0.02 s to let go of that, 0.2 s of braking, 0.01 s of jerk."""
    joint = Joint(
        name="a", model_joint="a", actuator="a", position=(-1, 1), velocity=2.0, acceleration=20.0, jerk=1000.0,
        stiffness=1.0, damping=1.0, default=0.0,
    )  # fmt: skip
    assert joint.stopping_time(10.0) == pytest.approx(0.02 + 0.2 + 0.01)

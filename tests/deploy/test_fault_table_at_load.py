"""The rows of the table of faults that are refused before anything moves, by name."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources

import pytest
from controller_drive import Always
from policy_samples import changed, parse

from onestride.deploy.controller import Controller
from onestride.deploy.runtime import load_contract
from onestride.hardware.description import parse_robot
from onestride.hardware.errors import OneStrideError


def test_corrupted_onnx(sample_policy, tmp_path):
    data = bytearray(sample_policy.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(bytes(data))
    with pytest.raises(OneStrideError, match=r"damaged.onnx: damaged or changed after export"):
        load_contract(damaged)


def refused(contract, robot, forward, change) -> str:
    """What a controller says of a changed contract."""
    with pytest.raises(OneStrideError) as error:
        Controller(parse(changed(contract, change)), robot, forward, Always())
    return str(error.value)


def test_wrong_robot(contract, robot, forward):
    words = refused(contract, robot, forward, lambda c: c["robot"].update(id="panda"))
    assert "does not fit robot ur5e_2f85: robot.id: contract has panda" in words


def test_missing_joint(contract, robot, forward):
    """The contract moves a joint that it does not describe, or one that the robot does not have."""

    def undescribed(content):
        for values in content["robot"].values():
            if isinstance(values, list) and len(values) == len(contract.robot.joints):
                del values[0]

    with pytest.raises(OneStrideError, match=r"joint 'shoulder_pan_joint' is not one of robot.joints"):
        parse(changed(contract, undescribed))
    text = contract.model_dump_json().replace("wrist_3_joint", "wrist_9_joint")
    with pytest.raises(OneStrideError, match=r"does not fit robot ur5e_2f85: robot.joints: .*'wrist_9_joint'"):
        Controller(type(contract).model_validate_json(text), robot, forward, Always())


def test_permuted_joints(contract, robot, forward):
    words = refused(contract, robot, forward, lambda c: c["robot"]["joints"].sort())
    assert "robot.joints: contract has ('elbow_joint', " in words


def test_unknown_frame(contract, robot, forward):
    words = refused(contract, robot, forward, lambda c: c["kinematics"].update(frame="tool9"))
    assert "frame: contract names 'tool9', robot ur5e_2f85 has pinch, flange" in words


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("position: [-3.1415, 3.1415]", "position: [3.1415, -3.1415]", "expected lower < upper"),
        ("default: 1.5708", "default: 4.0", "joint elbow_joint: expected default within"),
        ("completes_within: 0.5", "completes_within: 0.05", "safe stop: expected to complete within 0.05 s"),
    ],
)
def test_contradictory_limits(before, after, words):
    text = (resources.files("onestride.hardware") / "robots" / "ur5e_2f85.yaml").read_text()
    assert before in text
    with pytest.raises(OneStrideError, match=words):
        parse_robot(text.replace(before, after), source="test.yaml")


def test_joint_state_of_a_subset_of_the_joints(drive, start):
    """Before activation it is refused; a driver that names its joints is refused by name, see tests/ros."""
    driven = drive(spoil=lambda _, m: replace(m, position=m.position[:6], velocity=m.velocity[:6]))
    with pytest.raises(OneStrideError, match="cannot activate: expected 7 measured positions, got shape"):
        driven.activate(start)

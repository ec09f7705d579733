"""Terms name their elements and units, read what they say they read, and refuse what does not fit together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_samples import changed, cube_contract, parse
from pydantic import ValidationError

from onestride.deploy.actions import ActionMapper
from onestride.deploy.observe import Observer
from onestride.deploy.terms import (
    ActionTerm,
    DatasetSource,
    FrameSource,
    JointSource,
    ObjectSource,
    ObservationTerm,
    ScalarSource,
)
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Measurement, Pose

ROBOT = load_robot("ur5e_2f85")
WITHOUT_MODEL: Any = SimpleNamespace(robot=ROBOT)  # all that joints, objects and scalars need of the kinematics
JOINTS = ("elbow_joint", "shoulder_pan_joint")
numbers = st.floats(-10, 10)


def seven(draw):
    return np.array(draw(st.lists(numbers, min_size=7, max_size=7)))


def contract_of(observation: dict, names: list[str], units: list[str]):
    """The cube contract with one observation term in place of all of them."""

    def change(content):
        content["observations"] = [observation]
        content["dataset"] |= {"observation_names": names, "observation_units": units}
        content["dataset"] |= {"minimum": [0.0] * len(names), "maximum": [1.0] * len(names)}

    return parse(changed(cube_contract(), change))


# Names and units


@pytest.mark.parametrize(
    ("source", "unit", "parts"),
    [
        (JointSource(field="position", joints=JOINTS), "rad", JOINTS),
        (JointSource(field="velocity", joints=JOINTS), "rad/s", JOINTS),
        (FrameSource(field="position", frame="pinch"), "m", ("x", "y", "z")),
        (FrameSource(field="quaternion", frame="pinch"), "1", ("w", "x", "y", "z")),
        (ObjectSource(field="yaw", object="block"), "rad", ("yaw",)),
        (ScalarSource(scalar="force", unit="N"), "N", ("value",)),
    ],
)
def test_elements_are_named_after_term_and_part(source, unit, parts):
    term = ObservationTerm(name="seen", source=source, unit=unit)
    assert term.element_names == tuple(f"seen.{part}" for part in parts)
    assert term.element_units == (unit,) * len(parts)
    assert term.size == len(parts)


def test_a_dataset_term_keeps_the_datasets_names():
    term = ObservationTerm(name="seen", source=DatasetSource(feature="f", names=("a", "b"), units=("m", "")), unit=None)
    assert (term.element_names, term.element_units) == (("a", "b"), ("m", ""))
    assert not term.needs_robot


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "rad/s"}, "expected unit 'rad' for its source, got 'rad/s'"),
        ({"unit": None}, "expected unit 'rad' for its source, got None"),
        ({"offset": (1.0,)}, "expected 2 offsets, got 1"),
        ({"source": FrameSource(field="position", frame="f"), "unit": "m", "encoding": "cos_sin"}, "expects an angle"),
        ({"clip": (1.0, 1.0)}, "expected lower < upper"),
        ({"source": JointSource.model_construct(field="position", joints=())}, "at least 1 item"),
        ({"max_age": 0.0}, "greater than 0"),
    ],
)
def test_an_observation_term_that_contradicts_itself_is_refused(change, message):
    given = {"name": "seen", "source": {"kind": "joint", "field": "position", "joints": JOINTS}, "unit": "rad"}
    given |= {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in change.items()}
    with pytest.raises(ValidationError, match=message):
        ObservationTerm.model_validate(given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "m"}, "expected unit 'rad' for joint_increment, got 'm'"),
        ({"names": ("a", "b")}, "expected 1 names for joint_increment, got 2"),
        ({"mode": "effector_position_increment", "unit": "m"}, "expected 3 names for effector_position_increment"),
        ({"mode": "effector_yaw_increment", "unit": "m"}, "expected unit 'rad'"),
        ({"mode": "dataset"}, "expected unit None for dataset, got 'rad'"),
        ({"mode": "torque"}, "mode"),
        ({"scale": 0.0}, "greater than 0"),
    ],
)
def test_an_action_term_that_contradicts_itself_is_refused(change, message):
    given = {"name": "move", "mode": "joint_increment", "unit": "rad", "joints": ("elbow_joint",), "names": ("elbow",)}
    with pytest.raises(ValidationError, match=message):
        ActionTerm.model_validate({**given, **change})


# Observations


@given(st.data())
def test_an_observation_is_the_encoded_offset_scaled_clipped_reading(data):
    field = data.draw(st.sampled_from(["position", "velocity"]))
    encoded = field == "position" and data.draw(st.booleans())
    size = 4 if encoded else 2
    offset = data.draw(st.none() | st.lists(numbers, min_size=size, max_size=size))
    clip = data.draw(st.none() | st.tuples(st.floats(-3, 0), st.floats(0.5, 3)))
    scale = data.draw(numbers)
    unit = "rad" if field == "position" else "rad/s"
    term = {
        "name": "seen",
        "source": {"kind": "joint", "field": field, "joints": JOINTS},
        "unit": unit,
        "encoding": "cos_sin" if encoded else "none",
        "offset": offset or [],
        "scale": scale,
        "clip": clip,
    }
    names = [f"seen.{joint}" for joint in JOINTS]
    names = [f"{name}.{part}" for part in ("cos", "sin") for name in names] if encoded else names
    observer = Observer(contract_of(term, names, [unit] * size), WITHOUT_MODEL)
    measurement = Measurement(seven(data.draw), seven(data.draw))
    reading = [getattr(measurement, field)[ROBOT.joint_names.index(joint)] for joint in JOINTS]
    if encoded:
        reading = [*np.cos(reading), *np.sin(reading)]
    expected = [(value - shift) * scale for value, shift in zip(reading, offset or [0.0] * size, strict=True)]
    if clip:
        expected = [min(max(value, clip[0]), clip[1]) for value in expected]
    np.testing.assert_allclose(observer.step(measurement), expected, rtol=1e-12, atol=1e-12)


def observer_of(source: dict, names: list[str], unit: str) -> Observer:
    contract = contract_of({"name": "seen", "source": source, "unit": unit}, names, [unit] * len(names))
    return Observer(contract, WITHOUT_MODEL)


def test_an_object_or_scalar_that_nobody_measures_is_named():
    there = Measurement(np.zeros(7), np.zeros(7), {"cup": Pose(np.zeros(3), np.array([1.0, 0, 0, 0]))}, {"force": 2.0})
    names = ["seen.x", "seen.y", "seen.z"]
    block = observer_of({"kind": "object", "field": "position", "object": "block"}, names, "m")
    assert block.missing_sources(there) == ["block"]
    with pytest.raises(OneStrideError, match="unknown object pose: got 'block', available: cup"):
        block.step(there)
    touch = observer_of({"kind": "scalar", "scalar": "touch"}, ["seen.value"], "1")
    assert touch.missing_sources(there) == ["touch"]
    with pytest.raises(OneStrideError, match="unknown scalar reading: got 'touch', available: force"):
        touch.step(there)
    force = observer_of({"kind": "scalar", "scalar": "force", "unit": "N"}, ["seen.value"], "N")
    assert force.missing_sources(there) == []
    assert force.step(there) == [2.0]


def test_what_is_known_only_from_the_dataset_cannot_be_observed():
    with pytest.raises(OneStrideError, match="observation seen has no live source"):
        source = {"kind": "dataset", "feature": "f", "names": ["a"], "units": [""]}
        contract = contract_of({"name": "seen", "source": source, "unit": None}, ["a"], [""])
        Observer(contract, WITHOUT_MODEL)


# Actions


def mapper_of(scale: float, clip: tuple[float, float]) -> ActionMapper:
    """One action: the elbow and the gripper, moved from where they are measured."""
    joints = ["elbow_joint", "right_driver_joint"]
    action = {"name": "move", "mode": "joint_increment", "unit": "rad", "scale": scale, "clip": clip}

    def change(content):
        content["kinematics"] = None
        content["actions"] = [{**action, "joints": joints, "names": ["elbow", "gripper"]}]
        content["dataset"]["action_names"] = ["move.elbow", "move.gripper"]

    contract = parse(changed(cube_contract(), change))
    return ActionMapper(contract, WITHOUT_MODEL)


@given(st.data(), st.floats(0.01, 5), st.floats(-2, -0.1), st.floats(0.1, 2))
def test_a_joint_increment_starts_at_the_measured_joint_and_stays_within_its_limits(data, scale, low, high):
    measured, last_sent = seven(data.draw), seven(data.draw)
    action = np.array([data.draw(numbers), data.draw(numbers)])
    target = mapper_of(scale, (low, high)).target(Measurement(measured, np.zeros(7)), action, last_sent)
    for joint, value in ((2, action[0]), (6, action[1])):
        lower, upper = ROBOT.joints[joint].position
        started = min(max(measured[joint], lower), upper)
        expected = min(max(started + min(max(value, low), high) * scale, lower), upper)
        assert target[joint] == pytest.approx(expected, abs=1e-12)
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(target[others], last_sent[others])


def test_an_action_known_only_from_the_dataset_cannot_be_run():
    def change(content):
        content["actions"] = [{"name": "move", "mode": "dataset", "unit": None, "names": ["a"]}]
        content["dataset"]["action_names"] = ["a"]

    contract = parse(changed(cube_contract(), change))
    with pytest.raises(OneStrideError, match="action move cannot be run: it is known only as in its dataset"):
        ActionMapper(contract, WITHOUT_MODEL)

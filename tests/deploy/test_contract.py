"""A contract survives the round trip bit for bit, and every contradiction in it is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from policy_samples import changed, cube_contract, parse
from pydantic import BaseModel

from onestride.deploy.contract import Contract, RobotTerms, parse_contract
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError

CONTRACT = cube_contract()
SIZE = CONTRACT.observation_size
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def required_fields(model: BaseModel, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of every field without a default, in the whole tree."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if field.is_required():
            yield (*path, name)
        if isinstance(value, BaseModel):
            yield from required_fields(value, (*path, name))
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for index, item in enumerate(value):
                yield from required_fields(item, (*path, name, index))


def leaves(content, path=()) -> Iterator[tuple[str | int, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def at(content, path):
    for key in path:
        content = content[key]
    return content


REQUIRED = sorted(required_fields(CONTRACT), key=str)
PLACES = list(leaves(json.loads(CONTRACT.model_dump_json())))


@given(st.lists(finite, min_size=SIZE, max_size=SIZE), finite, finite.filter(lambda rate: rate > 0))
@example([0.1 + 0.2] * SIZE, 5e-324, 1.7976931348623157e308)
def test_the_round_trip_keeps_every_bit(values, scale, rate):
    def change(content):
        content["dataset"]["minimum"] = values
        content["observations"][0]["scale"] = scale
        content["execution"] |= {"policy_rate": rate, "control_rate": rate}

    contract = parse(changed(CONTRACT, change))
    assert contract.dataset.minimum == tuple(values)
    assert contract.observations[0].scale == scale
    assert parse_contract(contract.model_dump_json(), "again") == contract


def test_sizes_and_names_are_the_environments():
    assert (CONTRACT.observation_size, CONTRACT.action_size) == (28, 5)
    assert CONTRACT.observation_names[:2] == ("arm_position.shoulder_pan_joint", "arm_position.shoulder_lift_joint")
    assert CONTRACT.observation_names[12:17] == (
        "effector_position.x",
        "effector_position.y",
        "effector_position.z",
        "effector_yaw.yaw.cos",
        "effector_yaw.yaw.sin",
    )
    assert CONTRACT.observation_units[6] == "rad/s"
    assert CONTRACT.action_names[3:] == ("effector_yaw.yaw", "gripper.opening")


def test_the_walk_over_required_fields_reaches_all_of_them():
    assert {("schema_version",), ("robot", "joints"), ("kinematics", "workspace"), ("dataset", "minimum")} <= set(
        REQUIRED
    )
    assert ("observations", 8, "source", "object") in REQUIRED
    assert ("export", "parity") in REQUIRED


@pytest.mark.parametrize("path", REQUIRED, ids=lambda path: ".".join(map(str, path)))
def test_a_removed_field_is_named(path):
    content = changed(CONTRACT, lambda content: at(content, path[:-1]).pop(path[-1]))
    missing = rf"({path[-1]}: Field required|discriminator '{path[-1]}')"
    with pytest.raises(OneStrideError, match=rf"test\.onnx: contract: .*{missing}"):
        parse(content)


@pytest.mark.parametrize(
    "path", [(), ("policy",), ("robot",), ("robot", "safe_stop"), ("observations", 0), ("actions", 0), ("export",)]
)
def test_a_field_too_many_is_named(path):
    content = changed(CONTRACT, lambda content: at(content, path).update(colour="blue"))
    with pytest.raises(OneStrideError, match="colour: Extra inputs are not permitted"):
        parse(content)


def swap(values: list) -> None:
    values[0], values[1] = values[1], values[0]


CONTRADICTIONS = {
    "version": (lambda c: c.update(schema_version=2), "expected schema_version 1, got 2"),
    "no version": (lambda c: c.pop("schema_version"), "schema_version: Field required"),
    "joints permuted": (
        lambda c: swap(c["observations"][0]["source"]["joints"]),
        "observation element 0: the terms give 'arm_position.shoulder_lift_joint', "
        "the dataset has 'arm_position.shoulder_pan_joint'",
    ),
    "terms permuted": (lambda c: swap(c["observations"]), "observation element 0: .*arm_velocity.*arm_position"),
    "actions permuted": (lambda c: swap(c["actions"]), "action element 0: .*effector_yaw.yaw.*effector_position.x"),
    "term missing": (lambda c: c["observations"].pop(), "the terms give 26, the dataset has 28"),
    "observation unit": (
        lambda c: c["observations"][0].update(unit="m"),
        "arm_position: expected unit 'rad' for its source, got 'm'",
    ),
    "unknown unit": (lambda c: c["observations"][0].update(unit="degree"), "observations.0.unit: .*'rad'"),
    "dataset unit": (
        lambda c: c["dataset"]["observation_units"].__setitem__(6, "rad"),
        "observation unit 6: the terms give 'rad/s', the dataset has 'rad'",
    ),
    "action unit": (lambda c: c["actions"][0].update(unit="rad"), "effector_position: expected unit 'm' .*got 'rad'"),
    "control below policy": (
        lambda c: c["execution"].update(control_rate=10.0),
        "expected control_rate to be a whole multiple of policy_rate, got 10.0 and 20.0",
    ),
    "no whole multiple": (lambda c: c["execution"].update(control_rate=130.0), "whole multiple.*130.0 and 20.0"),
    "no rate": (lambda c: c["execution"].update(policy_rate=0.0), "execution.policy_rate: .*greater than 0"),
    "more steps than predicted": (
        lambda c: c["execution"].update(n_action_steps=6),
        "expected n_action_steps <= horizon 5, got 6",
    ),
    "no kinematics": (lambda c: c.update(kinematics=None), "kinematics: expected terms, .* got null"),
    "no robot": (lambda c: c.update(robot=None), "robot: expected a robot, .* got null"),
    "observed joint": (
        lambda c: c["robot"]["joints"].__setitem__(2, "elbow"),
        "arm_position: joint 'elbow_joint' is not one of robot.joints",
    ),
    "solved joint": (
        lambda c: c["kinematics"].update(joints=["shoulder"]),
        "kinematics: joint 'shoulder' is not one of robot.joints",
    ),
    "joint twice": (lambda c: c["robot"]["joints"].__setitem__(0, "elbow_joint"), "expected every joint once"),
    "limits too few": (lambda c: c["robot"]["position"].pop(), "position: expected 7 values, one per joint, got 6"),
    "gains too few": (lambda c: c["robot"]["stiffness"].pop(), "stiffness: expected 7 values, one per joint, got 6"),
    "statistics missing": (lambda c: c["dataset"]["minimum"].pop(), "dataset.minimum: expected 28 values, got 27"),
    "two actions on a joint": (
        lambda c: c["actions"][2].update(joints=["elbow_joint"]),
        "expected one action to move it, got more for elbow_joint",
    ),
    "workspace inside out": (lambda c: c["kinematics"]["workspace"].reverse(), "expected lowest < highest corner"),
    "no unit quaternion": (
        lambda c: c["kinematics"].update(orientation=[0.0, 2.0, 0.0, 0.0]),
        "expected a unit quaternion",
    ),
    "clip inside out": (lambda c: c["actions"][0].update(clip=[1.0, -1.0]), "expected lower < upper"),
    "no evaluations": (lambda c: c["policy"].update(nfe=[]), "policy.nfe"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_named(name):
    change, message = CONTRADICTIONS[name]
    with pytest.raises(OneStrideError, match=message):
        parse(changed(CONTRACT, change))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("path", [("observations", 2, "scale"), ("dataset", "maximum", 3), ("robot", "default", 0)])
def test_numbers_are_finite(path, number):
    content = changed(CONTRACT, lambda content: at(content, path[:-1]).__setitem__(path[-1], number))
    with pytest.raises(OneStrideError, match=rf"{path[0]}.*finite number"):
        parse(content)


@given(st.binary(max_size=60) | st.text(max_size=60))
@example(b"\xff\xfe")
@example("[" * 10_000)
@example('{"schema_version": 1}')
def test_anything_else_is_refused_and_nothing_crashes(text):
    with pytest.raises(OneStrideError, match="anything: contract: "):
        parse_contract(text, "anything")


@given(st.sampled_from(PLACES), json_values)
def test_a_contract_with_one_value_replaced_is_read_or_refused(path, value):
    content = changed(CONTRACT, lambda content: at(content, path[:-1]).__setitem__(path[-1], value))
    try:
        contract = parse(content)
    except OneStrideError as error:
        assert str(error).startswith("test.onnx: contract: ")
    else:
        assert parse_contract(contract.model_dump_json(), "again").observation_names == contract.observation_names


# What differs between the robot promised and the robot found


def test_the_robot_it_was_made_for_fits(robot):
    assert CONTRACT.differences(robot) == []
    assert RobotTerms.of(robot) == CONTRACT.robot


@pytest.mark.parametrize(
    ("field", "change", "promised"),
    [
        ("id", lambda r: r.update(id="panda"), "panda"),
        ("velocity", lambda r: r["velocity"].__setitem__(0, 1.5), "1.5"),
        ("stiffness", lambda r: r["stiffness"].__setitem__(2, 777.0), "777.0"),
        ("damping", lambda r: r["damping"].__setitem__(2, 33.0), "33.0"),
        ("position", lambda r: r["position"].__setitem__(1, [-1.25, 1.25]), "1.25"),
        ("default", lambda r: r["default"].__setitem__(0, 0.125), "0.125"),
        ("joints", lambda r: swap(r["joints"]), "shoulder_lift_joint', 'shoulder_pan_joint'"),
        ("safe_stop", lambda r: r["safe_stop"].update(deceleration=9.75), "9.75"),
        ("acceleration", lambda r: r["acceleration"].__setitem__(0, 39.5), "39.5"),
        ("jerk", lambda r: r["jerk"].__setitem__(5, 3999.5), "3999.5"),
        ("safety", lambda r: r["safety"].insert(1, {"filter": "clock", "jump": 0.125}), "jump=0.125"),
    ],
)
def test_a_difference_names_both_sides(robot, field, change, promised):
    contract = parse(changed(CONTRACT, lambda content: change(content["robot"])))
    (line,) = contract.differences(robot)
    assert line.startswith(f"robot.{field}: contract has ")
    there, _, here = line.partition(", robot ur5e_2f85 has ")
    assert promised in there
    assert promised not in here
    assert str(getattr(RobotTerms.of(robot), field)) == here


def test_a_contract_from_before_chains_were_recorded_is_read_and_fits(robot):
    def forget(content):
        for name in ("acceleration", "jerk", "safety"):
            del content["robot"][name]

    old = parse(changed(CONTRACT, forget))
    assert old.robot is not None
    assert old.robot.safety is None
    assert old.differences(robot) == []


def test_a_chain_survives_writing_and_reading():
    """Also where a name in YAML is no name in Python."""
    rows = [
        {"row": "joints"},
        {"row": "collision", "capsules": [{"body": "a", "from": [0, 0, 0], "to": [0, 0, 1], "radius": 0.1}]},
    ]
    chain = [{"filter": "finite"}, {"filter": "projection", "rows": rows}]
    contract = parse(changed(CONTRACT, lambda content: content["robot"].update(safety=chain)))
    assert parse_contract(contract.model_dump_json(), "again") == contract


def test_every_difference_is_told(robot):
    def change(content):
        content["robot"]["velocity"][0] = 1.0
        content["robot"]["damping"][0] = 1.0

    assert len(parse(changed(CONTRACT, change)).differences(robot)) == 2


def test_a_frame_the_robot_lacks_is_told(robot):
    contract = parse(changed(CONTRACT, lambda content: content["kinematics"].update(frame="tool0")))
    assert contract.differences(robot) == ["frame: contract names 'tool0', robot ur5e_2f85 has pinch, flange"]


def test_actions_as_in_the_dataset_fit_no_robot():
    source = {"kind": "dataset", "feature": "observation", "names": ["a", "b"], "units": ["", ""]}

    def change(content):
        content.update(robot=None, kinematics=None)
        content["observations"] = [{"name": "observation", "source": source, "unit": None}]
        content["actions"] = [{"name": "action", "mode": "dataset", "unit": None, "names": ["c"]}]
        content["execution"]["control_rate"] = None
        content["dataset"] |= {"observation_names": ["a", "b"], "observation_units": ["", ""], "action_names": ["c"]}
        content["dataset"] |= {"minimum": [0.0, 0.0], "maximum": [1.0, 1.0]}

    contract = parse(changed(CONTRACT, change))
    assert contract.action_names == ("c",)
    (line,) = contract.differences(load_robot("ur5e_2f85"))
    assert "names none" in line


def test_the_schema_is_printable_and_complete():
    schema = json.loads(json.dumps(Contract.model_json_schema()))
    assert schema["properties"].keys() == Contract.model_fields.keys()
    assert set(schema["required"]) == {name for name, field in Contract.model_fields.items() if field.is_required()}
    assert {"RobotTerms", "ObservationTerm", "IncrementKinematics"} <= schema["$defs"].keys()

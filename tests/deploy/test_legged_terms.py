"""What a policy on legs sees and does, against references that share no code with it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from legged_samples import JOINTS, POSE, legged_contract, legged_measurement, parsed, term
from pydantic import ValidationError

from onestride.deploy.actions import ActionMapper
from onestride.deploy.contract import Contract
from onestride.deploy.observe import Observer, gravity
from onestride.deploy.terms import ActionTerm, ObservationTerm, VelocityCommandSource
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Inertial, Measurement

ROBOT = load_robot("go1")
FORWARD: Any = SimpleNamespace(robot=ROBOT)  # all that these terms need of the kinematics
CONTRACT = legged_contract()
LOW, HIGH = (-0.5, -0.4, -1.0), (1.0, 0.4, 1.0)

numbers = st.floats(-5, 5)
threes = st.lists(numbers, min_size=3, max_size=3).map(np.array)
twelves = st.lists(numbers, min_size=12, max_size=12).map(np.array)
orientations = (
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).map(np.array).filter(lambda q: np.linalg.norm(q) > 0.1)
)


class Told:
    """Stands in for the estimator: the velocity that the tests expect."""

    def velocity(self, measurement: Measurement) -> np.ndarray:
        del measurement
        return np.array([0.1, 0.2, 0.3])


def observer(contract: Contract = CONTRACT) -> Observer:
    return Observer(contract, FORWARD, Told())


def observed(term: dict[str, Any], measurement) -> np.ndarray:
    return observer(legged_contract(observations=[term])).step(measurement)


def imu(**parts) -> Inertial:
    return replace(Inertial(np.array([1.0, 0, 0, 0]), np.zeros(3), np.zeros(3)), **parts)


# One term at a time


@given(orientations)
def test_gravity_is_what_scipy_turns_down_into_the_bases_frame(quaternion):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    quaternion = quaternion / np.linalg.norm(quaternion)
    expected = rotation.from_quat(quaternion[[1, 2, 3, 0]]).inv().apply([0.0, 0.0, -1.0])
    assert gravity(imu(orientation=quaternion)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("quaternion", "expected"),
    [
        ([1, 0, 0, 0], [0, 0, -1]),
        ([0, 1, 0, 0], [0, 0, 1]),  # on its back
        ([np.sqrt(0.5), 0, np.sqrt(0.5), 0], [1, 0, 0]),  # nose down: it falls forwards
        ([np.sqrt(0.5), np.sqrt(0.5), 0, 0], [0, -1, 0]),  # on its right side
        ([np.sqrt(0.5), 0, 0, np.sqrt(0.5)], [0, 0, -1]),  # turned to the left, upright
    ],
)
def test_gravity_of_postures_that_can_be_told_by_hand(quaternion, expected):
    found = observed(
        term("gravity", {"kind": "imu", "field": "gravity"}, "1"),
        legged_measurement(imu=imu(orientation=np.array(quaternion, float))),
    )
    assert found == pytest.approx(np.array(expected, float), abs=1e-12)


@given(threes, threes, orientations)
def test_the_sensors_other_readings_are_passed_on(angular, acceleration, quaternion):
    measurement = legged_measurement(imu=Inertial(quaternion, angular, acceleration))
    for field, unit, expected in [
        ("angular_velocity", "rad/s", angular),
        ("acceleration", "m/s^2", acceleration),
        ("quaternion", "1", quaternion),
    ]:
        assert (observed(term("seen", {"kind": "imu", "field": field}, unit), measurement) == expected).all()


@given(threes, twelves)
def test_scale_and_offset_may_be_one_for_each_element_and_the_clip_comes_last(scale, position):
    source = {"kind": "joint", "field": "position", "joints": JOINTS[:3]}
    seen = observed(
        term("seen", source, "rad", offset=POSE[:3], scale=scale.tolist(), clip=[-0.5, 0.7]),
        legged_measurement(position=position),
    )
    expected = [min(max((p - o) * s, -0.5), 0.7) for p, o, s in zip(position[:3], POSE[:3], scale, strict=True)]
    assert seen == pytest.approx(expected)


@given(threes)
def test_a_velocity_command_is_held_within_its_limits(asked):
    seen = observed(command_term(), legged_measurement(vectors={"velocity_command": asked}))
    assert seen.tolist() == [min(max(value, low), high) for value, low, high in zip(asked, LOW, HIGH, strict=True)]


def command_term(**options) -> dict[str, Any]:
    return term("asked", {"kind": "velocity_command", "low": LOW, "high": HIGH, "timeout": 0.25, **options}, None)


@pytest.mark.parametrize(
    ("received", "counts"),
    [
        ({"joints": 10.0, "velocity_command": 9.8}, True),
        ({"joints": 10.0, "velocity_command": 9.7}, False),
        ({"joints": 10.0}, False),
    ],
)
def test_an_old_velocity_command_counts_as_zero(received, counts):
    measurement = legged_measurement(vectors={"velocity_command": np.array([0.3, 0.1, -0.2])}, received=received)
    assert observed(command_term(), measurement).tolist() == ([0.3, 0.1, -0.2] if counts else [0.0, 0.0, 0.0])


def test_base_velocity_comes_from_where_the_contract_says():
    measurement = legged_measurement(vectors={"base_velocity": np.array([1.0, 2.0, 3.0])})
    for origin, expected in [("odometry", [1.0, 2.0, 3.0]), ("estimator", [0.1, 0.2, 0.3])]:
        seen = observed(term("v", {"kind": "base_velocity", "origin": origin}, "m/s"), measurement)
        assert seen.tolist() == expected


def test_without_an_estimator_a_policy_that_needs_one_is_refused():
    with pytest.raises(OneStrideError, match="base_velocity: expected an estimator of the base's velocity, got none"):
        Observer(CONTRACT, FORWARD)


def test_without_an_inertial_sensor_the_reading_is_an_error():
    with pytest.raises(OneStrideError, match="expected an inertial sensor for gravity"):
        observed(term("gravity", {"kind": "imu", "field": "gravity"}, "1"), legged_measurement(imu=None))


# The whole observation


@given(twelves, twelves, twelves, threes)
def test_the_terms_follow_each_other_as_the_contract_lists_them(position, velocity, action, command):
    measurement = legged_measurement(
        position=position, velocity=velocity, imu=imu(angular_velocity=command), vectors={"velocity_command": command}
    )
    one = observer()
    one.acted(action)
    expected = [
        [0.1, 0.2, 0.3],
        command,
        [0.0, 0.0, -1.0],
        position - np.array(POSE),
        velocity,
        action,
        np.clip(command, LOW, HIGH),
    ]
    assert one.step(measurement) == pytest.approx(np.concatenate(expected))


@pytest.mark.parametrize("order", ["step_major", "term_major"])
@given(st.integers(1, 5), st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_a_history_is_laid_out_as_the_contract_says(order, steps, moments):
    """The reference keeps whole readings in lists and joins them as the words say."""
    contract = legged_contract(
        history=steps,
        history_order=order,
        observations=[
            term("q", {"kind": "joint", "field": "position", "joints": JOINTS[:2]}, "rad"),
            term("w", {"kind": "imu", "field": "angular_velocity"}, "rad/s"),
        ],
    )
    one, past = observer(contract), []
    for moment in moments:
        q, w = np.full(12, float(moment)) + np.arange(12) / 100, moment * np.array([10.0, 20.0, 30.0])
        found = one.build(legged_measurement(position=q, imu=imu(angular_velocity=w)))
        past = [*past, (q[:2], w)] if past else [(q[:2], w)] * steps
        window = past[-steps:]
        step_major = [part for step in window for part in step]
        term_major = [step[index] for index in (0, 1) for step in window]
        assert found.tolist() == np.concatenate(step_major if order == "step_major" else term_major).tolist()
        assert found[contract.newest_step].tolist() == np.concatenate(window[-1]).tolist()


@given(twelves, twelves)
def test_the_last_action_is_remembered_until_the_reset(first, second):
    one = observer(legged_contract(observations=[term("did", {"kind": "last_action", "names": NAMES}, "1")]))
    assert (one.step(legged_measurement()) == 0.0).all()
    for action in (first, second):
        one.acted(action)
        assert (one.step(legged_measurement()) == action).all()
    one.reset()
    assert (one.build(legged_measurement()) == 0.0).all()


NAMES = [f"legs.{joint}" for joint in JOINTS]


def test_an_action_that_is_remembered_is_a_copy():
    action, one = (
        np.ones(12),
        observer(legged_contract(observations=[term("did", {"kind": "last_action", "names": NAMES}, "1")])),
    )
    one.acted(action)
    action[:] = 7.0
    assert (one.step(legged_measurement()) == 1.0).all()


# Streams


def test_the_contract_lists_the_streams_it_needs():
    streams = {stream.name: (stream.kind, stream.required) for stream in CONTRACT.streams}
    assert streams == {
        "joints": ("joints", True),
        "imu": ("imu", True),
        "velocity_command": ("vector", False),
    }
    assert CONTRACT.streams[0].name == "joints"
    assert CONTRACT.needs_estimator
    driver = legged_contract(observations=[term("v", {"kind": "base_velocity", "origin": "odometry"}, "m/s")])
    assert [stream.name for stream in driver.streams] == ["joints", "base_velocity"]
    assert not driver.needs_estimator


def test_what_is_missing_is_named_but_not_a_velocity_command():
    one = observer(
        legged_contract(
            observations=[
                term("v", {"kind": "base_velocity", "origin": "odometry"}, "m/s"),
                term("w", {"kind": "imu", "field": "gravity"}, "1"),
                command_term(),
            ]
        )
    )
    assert one.missing_sources(legged_measurement(imu=None, vectors={})) == ["base_velocity", "imu"]
    assert one.missing_sources(legged_measurement(vectors={"base_velocity": np.zeros(3)})) == []


def test_ranges_are_the_datas_as_the_policy_sees_them():
    seen = [
        term("q", {"kind": "joint", "field": "position", "joints": JOINTS[:2]}, "rad"),
        term("w", {"kind": "imu", "field": "angular_velocity"}, "rad/s"),
    ]
    contract = legged_contract(history=2, history_order="term_major", observations=seen)
    assert contract.ranges == ((-1.0,) * 10, (1.0,) * 10)
    content = json.loads(contract.model_dump_json())
    content["dataset"] |= {"episodes": 3, "minimum": [0, 1, 2, 3, 4], "maximum": [5, 6, 7, 8, 9]}
    assert parsed(content).ranges == ((0, 1, 0, 1, 2, 3, 4, 2, 3, 4), (5, 6, 5, 6, 7, 8, 9, 7, 8, 9))


# Actions


@given(twelves, st.lists(st.floats(0.01, 2.0), min_size=12, max_size=12))
def test_joint_positions_are_offset_plus_scale_times_action_within_the_limits(action, scale):
    contract = legged_contract(scale=scale)
    found = ActionMapper(contract, FORWARD).target(legged_measurement(), action, np.zeros(12))
    low, high = np.array([joint.position for joint in ROBOT.joints]).T
    assert found == pytest.approx(np.clip(np.array(POSE) + np.array(scale) * action, low, high))


def test_positions_of_joints_in_another_order_reach_their_joints():
    swapped = [JOINTS[index] for index in (3, 4, 5, 0, 1, 2)]
    contract = legged_contract(joints=swapped, pose=[0.0, 1.0, -1.0, 0.2, 1.2, -1.2], scale=1.0)
    found = ActionMapper(contract, FORWARD).target(legged_measurement(), np.zeros(6), np.full(12, 9.0))
    assert found[:6].tolist() == [0.2, 1.2, -1.2, 0.0, 1.0, -1.0]
    assert (found[6:] == 9.0).all()  # nobody moves them


def test_an_output_is_clipped_where_the_contract_says_so():
    contract = legged_contract(scale=0.1, clip=[-1.0, 1.0])
    found = ActionMapper(contract, FORWARD).target(legged_measurement(), np.full(12, 50.0), np.zeros(12))
    assert found == pytest.approx(np.array(POSE) + 0.1)


# Contradictions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": [0.1]}, "expected 12 offsets for joint_position, got 1"),
        ({"offset": []}, "expected 12 offsets for joint_position, got 0"),
        ({"scale": [0.5, 0.5]}, "expected one scale for joint_position or 12, got 2"),
        ({"scale": 0.0}, "greater than 0"),
        ({"unit": "m"}, "expected unit 'rad' for joint_position, got 'm'"),
        ({"mode": "joint_increment"}, "expected 0 offsets for joint_increment, got 12"),
        (
            {"mode": "joint_increment", "offset": [], "scale": [0.5] * 12},
            "expected one scale for joint_increment, got 12",
        ),
    ],
)
def test_an_action_term_that_contradicts_itself_is_refused(change, message):
    given = CONTRACT.actions[0].model_dump() | change
    with pytest.raises(ValidationError, match=message):
        ActionTerm.model_validate(given)


def test_scales_must_be_one_or_one_for_each():
    with pytest.raises(ValidationError, match="w: expected one scale or 3, got 2"):
        ObservationTerm.model_validate(
            {"name": "w", "source": {"kind": "imu", "field": "gravity"}, "unit": "1", "scale": [1.0, 2.0]}
        )


def test_limits_of_a_command_must_allow_standing_still():
    with pytest.raises(ValidationError, match=r"velocity command vx: expected limits around 0, got 0\.2 and 1\.0"):
        VelocityCommandSource(low=(0.2, -0.1, -0.1), high=(1.0, 0.1, 0.1))


def test_a_last_action_of_other_elements_is_refused():
    wrong = [*NAMES[1:], NAMES[0]]
    with pytest.raises(
        OneStrideError, match=r"did: action element 0: the terms give 'legs.FR_thigh_joint', the contract"
    ):
        legged_contract(observations=[term("did", {"kind": "last_action", "names": wrong}, "1")])


def test_an_unknown_history_order_is_refused():
    with pytest.raises(OneStrideError, match="history_order"):
        legged_contract(history_order="newest_first")


@pytest.mark.parametrize("name", ["position", "velocity", "safe_stop"])
def test_what_only_a_foreign_policy_may_leave_out_is_missed_in_our_own(name):
    content = json.loads(CONTRACT.model_dump_json())
    content["robot"][name] = None
    with pytest.raises(OneStrideError, match=rf"robot\.{name}: Field required"):
        parsed(content)


def test_the_round_trip_keeps_every_number():
    assert parsed(json.loads(CONTRACT.model_dump_json())) == CONTRACT

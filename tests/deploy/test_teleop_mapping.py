"""From a person's messages to the contract's action units: laws for all inputs, and every way a mapping is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from policy_samples import cube_contract

from onestride.deploy.contract import Contract
from onestride.deploy.teleop.events import Events
from onestride.deploy.teleop.mapping import EpisodeButtons, Mapping, load_mapping
from onestride.deploy.teleop.motions import AxesMotion, TwistMotion, action_box, by_name, deflection, finite
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Measurement

CONTRACT = cube_contract()
STILL = Measurement(np.zeros(7), np.zeros(7))
MEASURED = {"reference": "measured"}
AXES = arrays(float, 8, elements=st.floats(-1, 1))


def boxed(low: float, high: float) -> Contract:
    """The contract with another box for every action."""
    terms = tuple(term.model_copy(update={"clip": (low, high)}) for term in CONTRACT.actions)
    return CONTRACT.model_copy(update={"actions": terms})


def written(motion, message, contract=CONTRACT, staying=np.nan):
    action = np.full(contract.action_size, staying)
    motion.write(action, np.asarray(message, dtype=float), STILL)
    return action


# Axes


@given(st.floats(-2, 2), st.floats(0, 0.99))
def test_deflection_is_odd_bounded_continuous_and_zero_inside_the_dead_zone(value, dead):
    got = deflection(np.array([value, -value]), dead)
    assert got[0] == -got[1]
    assert abs(got[0]) <= 1
    assert (got[0] == 0) == (abs(np.clip(value, -1, 1)) <= dead)
    near = deflection(np.array([value + 1e-9]), dead)
    assert abs(near[0] - got[0]) < 1e-6


@given(st.floats(0, 0.9))
def test_full_deflection_is_the_whole_box_and_more_asks_for_more(dead):
    values = deflection(np.linspace(-1, 1, 201), dead)
    assert (values[0], values[-1]) == (-1.0, 1.0)
    assert (np.diff(values) >= 0).all()


@given(AXES, st.floats(-3, -0.1), st.floats(0.1, 3), st.floats(-1, 1))
def test_an_axis_asks_for_its_share_of_the_box(axes, low, high, gain):
    contract = boxed(low, high)
    mapping = Mapping.model_validate(
        {"axes": {"effector_position.y": {"axis": 3, "gain": gain}}, "dead_zone": 0.0, **MEASURED}
    )
    action = written(AxesMotion(contract, mapping), axes, contract)
    share = gain * axes[3]
    assert action[1] == pytest.approx(share * high if share >= 0 else -share * low)
    assert np.isnan(np.delete(action, 1)).all(), "elements without an axis are left as they are"
    assert low <= action[1] <= high


def test_the_defaults_are_a_gamepads_sticks():
    mapping = load_mapping(None, CONTRACT)
    axes = {name: axis.axis for name, axis in mapping.axes.items()}
    assert axes == {"effector_position.x": 1, "effector_position.y": 0, "effector_position.z": 4, "effector_yaw.yaw": 3}
    assert mapping.gripper is not None
    assert mapping.gripper.element == "gripper.opening"
    assert CONTRACT.kinematics is not None
    assert tuple(mapping.leader.joints) == CONTRACT.kinematics.joints
    message = np.zeros(8)
    message[1], message[4] = 1.0, -1.0
    action = written(AxesMotion(CONTRACT, mapping), message, staying=0.125)
    np.testing.assert_array_equal(action, [1.125, 0.125, -0.875, 0.125, 0.125])


# Twist


@given(arrays(float, 6, elements=st.floats(-3, 3)))
def test_a_twist_in_si_is_what_moves_that_far_in_one_policy_step(twist):
    action = written(TwistMotion(CONTRACT, Mapping.model_validate(MEASURED)), twist)
    scale = np.array([0.05, 0.05, 0.05, 0.3])
    np.testing.assert_allclose(action[:4] * scale * 20.0, twist[[0, 1, 2, 5]], atol=1e-12)
    assert np.isnan(action[4])


def test_a_unitless_twist_is_a_share_of_the_box():
    motion = TwistMotion(CONTRACT, Mapping(twist="unitless"))
    action = written(motion, [0.5, -1.0, 0.25, 9.0, 9.0, -0.5], staying=0.25)
    np.testing.assert_array_equal(action, [0.75, -0.75, 0.5, -0.25, 0.25])


def test_a_twist_needs_an_effector():
    (gripper,) = (term for term in CONTRACT.actions if term.mode == "joint_increment")
    with pytest.raises(OneStrideError, match="expected effector increments among the actions, got joint_increment"):
        TwistMotion(CONTRACT.model_copy(update={"actions": (gripper,)}), Mapping())


# Messages


@given(arrays(float, st.integers(0, 9), elements=st.floats(allow_nan=True, allow_infinity=True)), st.integers(0, 9))
def test_only_whole_and_finite_numbers_pass(values, size):
    fits = len(values) == size and np.isfinite(values).all()
    if fits:
        np.testing.assert_array_equal(finite("axes", values, size), values)
    else:
        with pytest.raises(ValueError, match=r"expected|not finite"):
            finite("axes", values, size)


@given(st.permutations(["a", "b", "c", "d"]))
def test_joints_are_found_by_name_in_any_order(order):
    reading = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    got = by_name(("c", "a"), order, [reading[name] for name in order])
    np.testing.assert_array_equal(got, [3.0, 1.0])


@pytest.mark.parametrize(
    ("names", "positions", "reason"),
    [
        ([], [], "expected once each: a, b; got no names"),
        (["a"], [1.0], "expected once each: b; got a"),
        (["a", "b", "b"], [1.0, 2.0, 3.0], "expected once each: b; got a, b, b"),
        (["a", "b"], [1.0], "expected one position per name, got 1 for 2 names"),
        (["a", "b"], [1.0, np.nan], "joint positions not finite"),
    ],
)
def test_a_leader_that_lacks_something_is_told_what(names, positions, reason):
    with pytest.raises(ValueError) as error:
        by_name(("a", "b"), names, positions)
    assert str(error.value) == reason


def test_box_and_names_have_one_element_each():
    low, high = action_box(CONTRACT)
    assert low.shape == high.shape == (len(CONTRACT.action_names),)


# Events


def test_a_button_speaks_when_it_goes_down():
    events = Events(EpisodeButtons())
    up, start, both = [0] * 8, [0] * 7 + [1], [0, 0, 0, 1, 0, 0, 0, 1]
    assert events.hear(start) == [], "held from the beginning"
    assert events.hear(up) == []
    assert events.hear(start) == ["start"]
    assert events.hear(start) == []
    assert events.hear([1]) == [], "too short: not a message"
    assert events.hear(both) == ["success"]


# Files


def mapped(tmp_path: Path, text: str) -> Mapping:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    return load_mapping(path, CONTRACT)


def test_a_file_says_what_differs(tmp_path):
    mapping = mapped(tmp_path, "deadman: 4\nstale: 0.5\ngripper: {open: 9}\naxes: {effector_position.z: {axis: 6}}\n")
    assert (mapping.deadman, mapping.stale, mapping.buttons) == (4, 0.5, 10)
    assert mapping.gripper is not None
    assert (mapping.gripper.element, mapping.gripper.open, mapping.gripper.close) == ("gripper.opening", 9, 0)
    assert list(mapping.axes) == ["effector_position.z"]
    assert mapped(tmp_path, "") == load_mapping(None, CONTRACT)
    assert mapped(tmp_path, "gripper: null").gripper is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "axes: {effector.x: {axis: 1}}",
            r"unknown element of the action .*'effector.x', available: effector_po",
        ),
        ("axes: {gripper.opening: {axis: 1}}", "gripper.opening has an axis and the gripper's buttons"),
        ("deadman: 7", "button 7 means deadman and start"),
        ("deadman: -1", "deadman: .*greater than or equal to 0"),
        ("dead_zone: .nan", "dead_zone: "),
        ("dead_zone: 1.0", "dead_zone: .*less than 1"),
        ("stale: 60", "stale: .*less than or equal to 2"),
        ("axes: {effector_position.x: {axis: 1, gain: 1.5}}", "gain: .*less than or equal to 1"),
        ("speed: 3", "speed: Extra inputs"),
        ("[1, 2]", "expected fields with names, got list"),
        ("axes: {", "not readable as YAML"),
        ("deadman: !!python/object/apply:os.getcwd []", "not readable as YAML"),
        ("gripper: {element: grip}", "unknown element of the action .*'grip'"),
        ("leader: {joints: {wrist: {name: w}}}", "unknown joint of the robot .*'wrist'"),
        ("leader: {follow: sideways}", "leader.follow"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_in_one_line(tmp_path, text, reason):
    with pytest.raises(OneStrideError, match=reason) as error:
        mapped(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(OneStrideError, match=r"cannot read .*none.yaml: No such file"):
        load_mapping(tmp_path / "none.yaml", CONTRACT)

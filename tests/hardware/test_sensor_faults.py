"""What faulty sensors report: each fault changes what it names, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.faults import JUMP, LEAN, Fault, SensorFault
from onestride.hardware.state import Inertial, Measurement, Pose

ARM, LEGS = load_robot("ur5e_2f85"), load_robot("go1")


def measured(robot, seed: int) -> Measurement:
    rng, count = np.random.default_rng(seed), len(robot.joints)
    upright = Inertial(np.array([1.0, 0.0, 0.0, 0.0]), rng.normal(size=3), rng.normal(size=3))
    return Measurement(
        rng.normal(size=count),
        rng.normal(size=count),
        objects={"block_0": Pose(rng.normal(size=3), np.array([1.0, 0.0, 0.0, 0.0]))},
        scalars={"gripper_contact": 0.5},
        effort=rng.normal(size=count),
        imu=None if robot.base is None else upright,
    )


def reported(robot, text: str) -> tuple[Measurement, Measurement, Measurement]:
    """The first and a later measurement, and what becomes of the later one."""
    faulty = SensorFault(Fault.parse(text), robot, ("gripper_contact",))
    first, later = measured(robot, 1), measured(robot, 2)
    faulty(first)
    return first, later, faulty(later)


def changed(before: Measurement, after: Measurement) -> set[str]:
    """Names of the fields that are another object."""
    return {name for name in before.__dataclass_fields__ if getattr(before, name) is not getattr(after, name)}


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("not_finite elbow_joint", {"position"}),
        ("infinite elbow_joint", {"velocity"}),
        ("frozen", {"position", "velocity"}),
        ("mirrored elbow_joint", {"position", "velocity"}),
        ("backwards", {"velocity"}),
        ("jumped elbow_joint", {"position"}),
        ("racing elbow_joint", {"velocity"}),
        ("unseen", {"objects"}),
        ("stuck gripper_contact 3.5", {"scalars"}),
    ],
)
def test_a_fault_changes_what_it_names_and_nothing_else(text, fields):
    truth = measured(ARM, 2)
    _, later, after = reported(ARM, text)
    assert changed(later, after) == fields
    np.testing.assert_array_equal(later.position, truth.position, "the truth itself is not written to")
    np.testing.assert_array_equal(later.velocity, truth.velocity)


@pytest.mark.parametrize("text", ["not_finite elbow_joint", "jumped elbow_joint", "mirrored elbow_joint"])
def test_one_joint_only(text):
    _, later, after = reported(ARM, text)
    assert np.flatnonzero(~np.isclose(after.position, later.position, equal_nan=False)).tolist() == [2]


def test_a_mirrored_joint_turns_the_other_way_from_where_it_was():
    first, later, after = reported(ARM, "mirrored elbow_joint")
    assert after.position[2] - first.position[2] == pytest.approx(first.position[2] - later.position[2])
    assert after.velocity[2] == -later.velocity[2]
    np.testing.assert_array_equal(SensorFault(Fault("mirrored"), ARM)(first).position, first.position, "without a jump")


def test_frozen_is_what_it_was():
    first, _, after = reported(ARM, "frozen")
    np.testing.assert_array_equal(after.position, first.position)
    first, later, after = reported(LEGS, "frozen_imu")
    assert after.imu is first.imu
    np.testing.assert_array_equal(after.position, later.position)


def test_a_jump_and_a_stuck_reading():
    _, later, after = reported(ARM, "jumped")
    assert after.position[0] - later.position[0] == pytest.approx(JUMP)
    _, _, after = reported(ARM, "stuck gripper_contact nan")
    assert np.isnan(after.scalars["gripper_contact"])


def test_a_base_seems_to_lean():
    _, later, after = reported(LEGS, "leaning")
    assert after.imu is not None
    w, x, y, z = after.imu.orientation
    assert 2 * np.arccos(w) == pytest.approx(LEAN)
    assert np.linalg.norm((w, x, y, z)) == pytest.approx(1.0)
    assert changed(later, after) == {"imu"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"expected KIND \[WHERE \[VALUE\]\], got ''"),
        ("stuck gripper_contact 1 2", r"expected KIND \[WHERE \[VALUE\]\]"),
        ("stuck gripper_contact one", r"expected KIND \[WHERE \[VALUE\]\]"),
        ("broken", "unknown fault: got 'broken', available: stuck, not_finite, "),
        ("leaning", "unknown fault: got 'leaning'"),
        ("jumped knee", "unknown joint of robot ur5e_2f85: got 'knee'"),
        ("stuck nose 1", "unknown scalar: got 'nose', available: gripper_contact"),
    ],
)
def test_what_there_is_not_is_refused(text, words):
    with pytest.raises(OneStrideError, match=words):
        SensorFault(Fault.parse(text), ARM, ("gripper_contact",))

"""Frames are where MuJoCo says they are, and joint targets move them by the increment that was asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from policy_samples import changed, cube_contract, parse
from scipy.spatial.transform import Rotation

from onestride.deploy.kinematics import (
    ForwardKinematics,
    IncrementSolver,
    wrap,
    yaw_of_matrix,
    yaw_of_quaternion,
)
from onestride.deploy.observe import Observer
from onestride.deploy.terms import IncrementKinematics
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Measurement, Pose
from onestride.training.environments.ogbench_interface import cube_interface

mujoco: Any = import_module("mujoco")  # its compiled modules declare no types
ROBOT = load_robot("ur5e_2f85")
TERMS = cast(IncrementKinematics, cube_interface(1).kinematics)
LOWEST, HIGHEST = np.array(TERMS.workspace)
STILL = np.zeros(7)
joints = arrays(float, 7, elements=st.floats(-1.5, 1.5))
quaternions = arrays(float, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 1e-2)


class Reference:
    """Forward kinematics by a model of its own, through MuJoCo's full pipeline and by names alone."""

    def __init__(self, path) -> None:
        self.model = mujoco.MjModel.from_xml_path(str(path))
        self.data = mujoco.MjData(self.model)

    def pose(self, frame: str, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`p_WF` (3,) and `R_WF` (3, 3) at the joints (k <= n,)."""
        for joint, value in zip(ROBOT.joints, position, strict=False):
            self.data.joint(joint.model_joint).qpos[0] = value
        mujoco.mj_forward(self.model, self.data)
        site = self.data.site(ROBOT.frames[frame])
        return site.xpos.copy(), site.xmat.reshape(3, 3).copy()


@pytest.fixture(scope="module")
def reference(cube_scene) -> Reference:
    return Reference(cube_scene.model_path)


@pytest.fixture(scope="module")
def solver(forward) -> IncrementSolver:
    return IncrementSolver(TERMS.model_copy(update={"delay": 0.0}), forward)


# Angles


@given(quaternions)
def test_yaw_is_the_rotation_about_the_worlds_z_axis(quaternion):
    quaternion = quaternion / np.linalg.norm(quaternion)
    rotation = Rotation.from_quat(quaternion, scalar_first=True)
    x, y, _ = rotation.apply([1.0, 0.0, 0.0])
    assume(np.hypot(x, y) > 1e-3)  # the frame's x axis is upright: yaw has no meaning
    yaw = np.arctan2(y, x)
    assert wrap(yaw_of_matrix(rotation.as_matrix()) - yaw) == pytest.approx(0, abs=1e-9)
    assert wrap(yaw_of_quaternion(quaternion) - yaw) == pytest.approx(0, abs=1e-9)


@given(st.floats(-100, 100))
def test_a_wrapped_angle_is_the_same_angle(angle):
    assert -np.pi <= wrap(angle) <= np.pi
    assert np.exp(1j * wrap(angle)) == pytest.approx(np.exp(1j * angle), abs=1e-12)


# Forward


@given(joints, st.sampled_from(sorted(ROBOT.frames)))
def test_frames_are_where_mujoco_has_them(forward, reference, position, frame):
    forward.place(position)
    expected, rotation = reference.pose(frame, position)
    np.testing.assert_allclose(forward.position(frame), expected, atol=1e-12)
    np.testing.assert_allclose(forward.rotation(frame), rotation, atol=1e-12)


@given(joints, arrays(float, 7, elements=st.floats(-3, 3)), st.floats(0, 0.01))
def test_a_delay_takes_the_joints_back_along_their_velocity(forward, reference, position, velocity, delay):
    forward.place(position, velocity, delay)
    expected, _ = reference.pose("pinch", position - delay * velocity)
    np.testing.assert_allclose(forward.position("pinch"), expected, atol=1e-12)


@given(joints, quaternions)
def test_observed_quaternions_and_yaws_are_those_of_the_pose(forward, reference, position, quaternion):
    quaternion = quaternion / np.linalg.norm(quaternion)
    _, rotation = reference.pose("pinch", position)
    x, y, _ = Rotation.from_quat(quaternion, scalar_first=True).apply([1.0, 0.0, 0.0])
    assume(np.hypot(x, y) > 1e-3)  # as above
    measurement = Measurement(position, STILL, {"cup": Pose(np.array([1.0, 2.0, 3.0]), quaternion)})
    seen = pose_observer(forward).step(measurement)
    assert abs(seen[:4] @ Rotation.from_matrix(rotation).as_quat(scalar_first=True)) == pytest.approx(1, abs=1e-9)
    np.testing.assert_array_equal(seen[4:8], quaternion)
    assert wrap(seen[8] - np.arctan2(y, x)) == pytest.approx(0, abs=1e-9)


def pose_observer(forward: ForwardKinematics) -> Observer:
    sources = [
        ("tip", {"kind": "frame", "field": "quaternion", "frame": "pinch"}, "1", "wxyz"),
        ("cup", {"kind": "object", "field": "quaternion", "object": "cup"}, "1", "wxyz"),
        ("turn", {"kind": "object", "field": "yaw", "object": "cup"}, "rad", ("yaw",)),
    ]
    names = [f"{name}.{part}" for name, _, _, parts in sources for part in parts]

    def change(content):
        content["observations"] = [{"name": name, "source": source, "unit": unit} for name, source, unit, _ in sources]
        content["dataset"] |= {"observation_names": names, "observation_units": ["1"] * 8 + ["rad"]}
        content["dataset"] |= {"minimum": [0.0] * 9, "maximum": [1.0] * 9}

    return Observer(parse(changed(cube_contract(), change)), forward)


def test_a_frame_or_joint_that_is_not_there_is_named(forward, cube_scene):
    with pytest.raises(OneStrideError, match="unknown frame of robot ur5e_2f85: got 'tool0', available: pinch, flange"):
        forward.site("tool0")
    for change, message in (
        ({"frames": {"pinch": "nowhere"}}, "frame of robot ur5e_2f85 in its model: got 'nowhere', available: .*pinch"),
        (
            {"joints": (ROBOT.joints[0].model_copy(update={"model_joint": "hinge"}),)},
            "joint of robot ur5e_2f85 in its model: got 'hinge', available: .*elbow_joint",
        ),
    ):
        with pytest.raises(OneStrideError, match=message):
            ForwardKinematics.load(cube_scene.model_path, ROBOT.model_copy(update=change))


def test_a_model_that_is_none_is_refused(tmp_path):
    path = tmp_path / "model.xml"
    path.write_text("<mujoco><worldbody></mujoco>")
    with pytest.raises(OneStrideError, match=r"model\.xml: MuJoCo refuses the model"):
        ForwardKinematics.load(path, ROBOT)


# Inverse


def reach(solver: IncrementSolver, reference: Reference, point: np.ndarray, yaw: float) -> np.ndarray:
    """Measured joints (n,) with the moved frame at a point of the workspace, tool down."""
    position = np.array([joint.default for joint in ROBOT.joints])
    for _ in range(8):
        place, rotation = reference.pose(TERMS.frame, position)
        position[:6] = solver.target(position, STILL, point - place, wrap(yaw - yaw_of_matrix(rotation)))
    assert np.linalg.norm(reference.pose(TERMS.frame, position)[0] - point) < 1e-3
    return position


points = st.tuples(*(st.floats(low + 0.02, high - 0.02) for low, high in zip(LOWEST, HIGHEST, strict=True)))


@given(points, st.floats(-2, 2), st.tuples(*[st.floats(-0.05, 0.05)] * 3), st.floats(-0.3, 0.3))
def test_the_frame_moves_by_the_increment_and_stays_in_the_workspace(solver, reference, point, yaw, translation, turn):
    measured = reach(solver, reference, np.array(point), yaw)
    before, rotation = reference.pose(TERMS.frame, measured)
    target = solver.target(measured, STILL, np.array(translation), turn)
    after, turned = reference.pose(TERMS.frame, np.append(target, measured[6]))
    np.testing.assert_allclose(after, np.clip(before + translation, LOWEST, HIGHEST), atol=2 * TERMS.position_tolerance)
    wanted = Rotation.from_euler("z", yaw_of_matrix(rotation) + turn) * Rotation.from_quat(
        TERMS.orientation, scalar_first=True
    )
    assert (wanted.inv() * Rotation.from_matrix(turned)).magnitude() < 2 * TERMS.orientation_tolerance
    if np.all(before + translation == np.clip(before + translation, LOWEST, HIGHEST)):
        np.testing.assert_allclose(after - before, translation, atol=2 * TERMS.position_tolerance)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [-1, 1])
def test_at_the_workspaces_wall_the_target_is_the_wall(solver, reference, axis, side):
    point = (LOWEST + HIGHEST) / 2
    wall = (LOWEST if side < 0 else HIGHEST)[axis]
    point[axis] = wall - side * 0.01
    measured = reach(solver, reference, point, 0.0)
    push = np.zeros(3)
    push[axis] = side * 0.05
    target = solver.target(measured, STILL, push, 0.0)
    after, _ = reference.pose(TERMS.frame, np.append(target, measured[6]))
    assert after[axis] == pytest.approx(wall, abs=2 * TERMS.position_tolerance)


def test_the_solver_takes_the_measured_pose_back_by_its_delay(forward, reference, solver):
    """The increment starts where the frame was `delay` ago."""
    delayed = IncrementSolver(TERMS.model_copy(update={"delay": 0.02}), forward)
    measured = reach(solver, reference, np.array([0.4, 0.1, 0.2]), 0.3)
    velocity = np.array([0.5, -0.3, 0.2, 0.1, -0.2, 0.4, 0.0])
    target = delayed.target(measured, velocity, np.array([0.01, 0.0, 0.0]), 0.0)
    before, _ = reference.pose(TERMS.frame, measured - 0.02 * velocity)
    after, _ = reference.pose(TERMS.frame, np.append(target, measured[6]))
    np.testing.assert_allclose(after - before, [0.01, 0.0, 0.0], atol=2 * TERMS.position_tolerance)


def test_a_frame_the_robot_lacks_is_refused_by_the_solver(forward):
    with pytest.raises(OneStrideError, match="unknown frame of robot ur5e_2f85: got 'tool0'"):
        IncrementSolver(TERMS.model_copy(update={"solved_frame": "tool0"}), forward)

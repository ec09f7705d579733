"""The closed forms of a quadruped's legs against MuJoCo's kinematics of the Go2 and against each other."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("robosuite_models", reason="needs the Go2's model")

from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.models import robot_scene
from onestride.training.environments.quadruped import Legs

GO2 = load_robot("go2")
MODEL = mujoco.MjModel.from_xml_path(str(robot_scene(GO2).model_path))
LEGS = Legs.of(MODEL, GO2)
angles = st.lists(
    st.tuples(st.floats(-0.8, 0.8), st.floats(-0.8, 2.5), st.floats(-2.6, -0.5)), min_size=4, max_size=4
).map(np.array)


def test_dimensions_are_the_robots():
    assert LEGS.link == pytest.approx(0.213)
    assert LEGS.radius == pytest.approx(0.022)
    np.testing.assert_allclose(LEGS.offsets, [-0.0955, 0.0955, -0.0955, 0.0955])
    np.testing.assert_allclose(LEGS.hips[0], [0.1934, -0.0465, 0.0], atol=1e-12)
    with pytest.raises(OneStrideError, match="expected a floating base"):
        Legs.of(MODEL, load_robot("panda"))


@given(angles)
@settings(deadline=None, max_examples=50)
def test_feet_are_where_the_model_has_them(legs):
    """The model's feet are 2 mm off the axis of the calf, which the closed form leaves out."""
    data = mujoco.MjData(MODEL)
    data.qpos[:7] = 0, 0, 0, 1, 0, 0, 0
    for joint, angle in zip(GO2.joints, legs.ravel(), strict=True):
        data.joint(joint.model_joint).qpos = angle
    mujoco.mj_kinematics(MODEL, data)
    assert GO2.base is not None
    feet = np.array([data.geom(foot.geom).xpos for foot in GO2.base.feet])
    np.testing.assert_allclose(LEGS.hips + LEGS.feet(legs), feet, atol=2.1e-3)


@given(angles)
@settings(deadline=None)
def test_angles_undo_feet(legs):
    """Where a foot can be reached in two ways, the way with the foot below its abduction axis is found."""
    feet = LEGS.feet(legs)
    _, thigh, calf = legs.T
    below = np.cos(thigh) + np.cos(thigh + calf) > 0.2
    np.testing.assert_allclose(LEGS.angles(feet)[below], legs[below], atol=1e-6)


@given(angles)
@settings(deadline=None)
def test_jacobians_are_derivatives(legs):
    step = 1e-6
    for joint in range(3):
        moved = np.zeros(3)
        moved[joint] = step
        slope = (LEGS.feet(legs + moved) - LEGS.feet(legs - moved)) / (2 * step)
        np.testing.assert_allclose(LEGS.jacobians(legs)[:, :, joint], slope, atol=1e-8)

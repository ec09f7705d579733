"""Axes and levers are the model's, whatever way they are come by."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from geometry_samples import HOME, ROBOT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onestride.deploy.safety.frames import Frames, cross, rates
from onestride.hardware.errors import OneStrideError

mujoco: Any = import_module("mujoco")  # its compiled modules declare no types
postures = arrays(float, 7, elements=st.floats(-3, 3))


@pytest.fixture(scope="module")
def frames(forward) -> Frames:
    return Frames(forward)


@given(arrays(float, (4, 2, 3), elements=st.floats(-10, 10)), arrays(float, (4, 1, 3), elements=st.floats(-10, 10)))
def test_cross_products_are_numpys(a, b):
    np.testing.assert_allclose(cross(a, b), np.cross(a, b), atol=1e-12)


@given(postures, st.sampled_from(["ur5e/forearm_link", "ur5e/wrist_3_link", "ur5e/robotiq/base"]), st.data())
def test_rates_of_points_are_mujocos_jacobians(frames, posture, body, data):
    point = data.draw(arrays(float, 3, elements=st.floats(-1, 1)))
    direction = data.draw(arrays(float, 3, elements=st.floats(-1, 1)))
    frames.place(posture)
    index = frames.body(body)
    jacobian = np.empty((3, frames.model.nv))
    mujoco.mj_jac(frames.model, frames.data, jacobian, None, point, index)
    expected = direction @ jacobian[:, frames.forward.dofs]
    moves = frames.moved_by(index).astype(float)
    np.testing.assert_allclose(rates(point, direction, moves, frames.screws), expected, atol=1e-12)


@given(postures)
def test_a_sites_jacobian_is_the_derivative_of_its_position(frames, posture):
    site, h = frames.forward.site("pinch"), 1e-6
    frames.place(posture)
    jacobian = frames.site_jacobian(site)
    for joint in range(7):
        ends = []
        for side in (-h, h):
            frames.place(posture + side * np.eye(7)[joint])
            ends.append(frames.data.site_xpos[site].copy())
        np.testing.assert_allclose(jacobian[:, joint], (ends[1] - ends[0]) / (2 * h), atol=1e-8)


def test_no_point_gets_further_from_an_axis_than_its_lever(frames):
    model, rng, furthest = frames.model, np.random.default_rng(0), np.zeros(7)
    site = frames.forward.site("pinch")
    body = int(model.site_bodyid[site])
    levers = frames.levers(body, float(np.linalg.norm(model.site_pos[site])))
    for _ in range(5000):
        frames.place(np.append(rng.uniform(-3.14, 3.14, 6), 0.0))
        furthest = np.maximum(furthest, np.linalg.norm(frames.site_jacobian(site), axis=0))
    assert np.all(furthest <= levers + 1e-12)
    assert np.all(np.diff(levers) <= 0), "a joint further in has the longer lever"
    assert levers[6] == 0.0, "the gripper's own joint does not move it"
    assert furthest[1] > 0.8 * levers[1], "and the bound is near what is reached"


def test_who_moves_a_body(frames):
    np.testing.assert_array_equal(frames.moved_by(frames.body("ur5e/forearm_link")), [1, 1, 1, 0, 0, 0, 0])
    assert frames.unstoppable(frames.body("ur5e/forearm_link")) == []
    assert frames.unstoppable(frames.body("ur5e/robotiq/left_pad"))[0] == "ur5e/robotiq/left_follower_joint"
    assert "ur5e/robotiq/right_driver_joint" in frames.unstoppable(frames.body("ur5e/robotiq/right_driver"))


def test_the_same_posture_is_computed_once(frames, monkeypatch):
    calls = []
    frames.place(HOME + 0.1)
    monkeypatch.setattr(mujoco, "mj_kinematics", lambda *_: calls.append(1))
    frames.place(HOME + 0.1)
    assert calls == []
    frames.place(HOME + 0.2)
    assert calls == [1]


def test_a_body_that_is_not_there_is_named(frames):
    with pytest.raises(OneStrideError, match=r"body of the model of robot ur5e_2f85: got 'elbow', available: world"):
        frames.body("elbow")


def test_a_robot_with_a_slide_is_refused(tmp_path):
    from onestride.deploy.kinematics import ForwardKinematics

    path = tmp_path / "slide.xml"
    path.write_text(
        "<mujoco><worldbody><body><joint name='hinge' type='slide'/><geom size='0.1'/></body></worldbody></mujoco>"
    )
    joint = ROBOT.joints[0].model_copy(update={"model_joint": "hinge"})
    slide = ROBOT.model_copy(update={"joints": (joint,), "frames": {}})
    with pytest.raises(OneStrideError, match="expected hinges, but joint shoulder_pan_joint is none"):
        Frames(ForwardKinematics.load(path, slide))

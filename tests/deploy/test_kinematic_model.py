"""The model that kinematics works on: lighter, and in every number that kinematics asks for the plant's own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from geometry_samples import ROBOT as ARM

from onestride.deploy.kinematic_model import kinematic_model, needs_solids
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.collision import Collision
from onestride.deploy.safety.frames import Frames
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.models import robot_scene
from onestride.hardware.safety.chain import ProjectionFilter
from onestride.hardware.safety.geometry import CollisionRow

mujoco: Any = import_module("mujoco")  # its compiled modules declare no types

#: A model in which everything that may hold on to a mesh does, and whose second body states no mass.
HELD = """<mujoco>
  <default><geom material="paint"/></default>
  <asset>
    <texture name="paint" type="2d" builtin="checker" width="512" height="512"/><material name="paint" texture="paint"/>
    <mesh name="eye" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/><mesh name="solid" vertex="0 0 0  1 0 0  0 1 0  0 0 2"/>
    <mesh name="mass" vertex="0 0 0  1 0 0  0 1 0  0 0 3"/>
  </asset>
  <worldbody>
    <geom name="ground" type="mesh" mesh="eye" contype="0" conaffinity="0"/>
    <body name="a"><joint name="j"/><inertial pos="0 0 0" mass="2" diaginertia="1 1 1"/>
      <geom name="shown" type="mesh" mesh="eye" contype="0" conaffinity="0"/>
      <geom name="felt" type="mesh" mesh="solid"/><geom name="ball" size=".1"/><site name="tip" pos="0 0 1"/>
      <body name="b" pos="0 0 1"><geom name="heavy" type="mesh" mesh="mass" contype="0" conaffinity="0"/></body>
    </body>
  </worldbody>
  <contact><pair geom1="shown" geom2="ground"/></contact>
  <sensor><distance geom1="shown" geom2="ground"/></sensor>
</mujoco>"""


def names(model: Any) -> list[str]:
    return [model.geom(index).name for index in range(model.ngeom)]


@pytest.fixture
def held(tmp_path):
    path = tmp_path / "held.xml"
    path.write_text(HELD)
    return path


def test_what_is_left_out(held):
    kept = kinematic_model(held, ARM)
    assert names(kept) == ["felt", "ball", "heavy"], "a shape that gives its body a mass is kept"
    assert (kept.ntex, kept.nmesh, kept.nsensor, kept.npair) == (0, 2, 0, 0)
    light = kinematic_model(held, ARM, solids=False)
    assert names(light) == ["ball", "heavy"]
    whole = mujoco.MjModel.from_xml_path(str(held))
    for model in (kept, light):
        np.testing.assert_array_equal(model.body_mass[1:], whole.body_mass[1:])
        np.testing.assert_array_equal(model.body_inertia[1:], whole.body_inertia[1:])


def test_a_model_whose_shapes_always_give_the_mass_keeps_them(held):
    held.write_text(HELD.replace("<default>", '<compiler inertiafromgeom="true"/><default>'))
    assert names(kinematic_model(held, ARM, solids=False)) == ["shown", "felt", "ball", "heavy"]


@pytest.fixture(scope="module", params=["ur5e_2f85", "go2"])
def pair(request) -> tuple[Any, Any, RobotDescription]:
    """The plant's model and the lightest one for kinematics, of an arm and of a quadruped."""
    robot = load_robot(request.param)
    if robot.base is None:
        path = request.getfixturevalue("cube_scene").model_path
    else:
        pytest.importorskip("robosuite_models", reason="needs requirements/stage2.txt")
        path = robot_scene(robot).model_path
    return mujoco.MjModel.from_xml_path(str(path)), kinematic_model(path, robot, solids=False), robot


def test_frames_feet_axes_and_masses_are_the_plants(pair):
    whole, light, robot = pair
    assert light.nbuffer < whole.nbuffer / 4
    np.testing.assert_array_equal(light.body_subtreemass[1:], whole.body_subtreemass[1:])
    rng, feet = np.random.default_rng(5), [foot.geom for foot in robot.base.feet] if robot.base else []
    places = [mujoco.MjData(model) for model in (whole, light)]
    for _ in range(20):
        position = rng.uniform(-1.5, 1.5, whole.nq)
        for model, data in zip((whole, light), places, strict=True):
            data.qpos[:] = position
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
        for name in ("site_xpos", "site_xmat", "xpos", "xmat", "xaxis", "xanchor", "cdof"):
            np.testing.assert_array_equal(getattr(places[1], name), getattr(places[0], name), err_msg=name)
        for foot in feet:
            np.testing.assert_array_equal(places[1].geom(foot).xpos, places[0].geom(foot).xpos)


def test_everything_that_may_touch_is_kept_unless_told_otherwise(cube_scene, robot):
    whole = mujoco.MjModel.from_xml_path(str(cube_scene.model_path))
    model = kinematic_model(cube_scene.model_path, robot)
    solid = [np.flatnonzero(one.geom_contype | one.geom_conaffinity) for one in (whole, model)]
    for field in ("geom_bodyid", "geom_type", "geom_pos", "geom_quat", "geom_size", "geom_rbound", "geom_contype"):
        kept = (getattr(one, field)[which] for one, which in zip((whole, model), solid, strict=True))
        np.testing.assert_array_equal(*kept, err_msg=field)


def test_a_collision_row_asks_for_solids_and_is_refused_without(cube_scene, robot):
    declared = robot.model_copy(update={"safety": (ProjectionFilter(rows=(CollisionRow(),)),)})
    assert needs_solids(declared)
    assert not needs_solids(robot)
    light = Frames(ForwardKinematics.load(cube_scene.model_path, robot, solids=False))
    with pytest.raises(OneStrideError, match="collision: expected a model with the shapes that may touch"):
        Collision(CollisionRow(), light)

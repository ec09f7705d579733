"""Scenes of a robot alone: kept by all they depend on, and what is missing is said by name."""

from __future__ import annotations

import importlib.util

import mujoco
import numpy as np
import pytest
import yaml

from onestride.deploy.cli import main
from onestride.hardware.description import load_robot, parse_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.model_files import model_file
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.scene import find_scene

STICK = """
<mujoco>
  <compiler angle="radian"/>
  <asset>
    <mesh name="shell" file="shell.stl"/>
    <material name="red" rgba="1 0 0 1"/>
  </asset>
  <worldbody>
    <body name="foot" pos="0 0 0.5">
      <joint name="hinge" type="hinge" axis="0 1 0" range="-1 1" damping="0.3"/>
      <geom name="rod" type="capsule" size="0.02" fromto="0 0 0 0 0 0.3" mass="1" group="3"/>
      <geom type="mesh" mesh="shell" contype="0" conaffinity="0" material="red"/>
      <site name="tip" pos="0 0 0.3"/>
    </body>
  </worldbody>
  <actuator><motor name="old" joint="hinge" gear="7"/></actuator>
  <keyframe><key name="home" qpos="0.2" ctrl="3"/></keyframe>
</mujoco>
"""

DESCRIPTION = """
schema_version: 1
id: stick
title: A stick on a hinge
joints:
  - {name: hinge, model_joint: hinge, actuator: hinge, position: [-1, 1], velocity: 2, effort: 20,
     stiffness: 100, damping: 10, default: 0.3}
commands: [{topic: commands, joints: [hinge]}]
frames: {tip: tip}
control_rates: [50, 500]
detection: {joints_stale: 0.1, objects_stale: 0.1, policy_stall: 0.1}
safe_stop: {kind: decelerate_and_hold, deceleration: 20, completes_within: 0.5}
"""


@pytest.fixture
def stick():
    return parse_robot(DESCRIPTION, "stick.yaml")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "stick.xml"
    path.write_text(STICK)
    return path


def changed(**fields):
    return parse_robot(yaml.safe_dump({**yaml.safe_load(DESCRIPTION), **fields}), "stick.yaml")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_missing_mesh_for_the_eye_is_left_out_and_the_old_drives_are_replaced(stick, model):
    scene = robot_scene(stick, model)
    plant = Plant(scene, stick)
    assert plant.model.nmesh == 0
    assert plant.model.nkey == 0
    assert [plant.model.actuator(i).name for i in range(plant.model.nu)] == ["hinge"]
    assert plant.model.geom("rod").group[0] <= 2, "shown, because there is nothing else to see"
    plant.command([0.5])
    plant.step(1000)
    assert plant.read().position[0] == pytest.approx(0.5, abs=1e-3)


def test_a_missing_mesh_that_touches_things_is_refused(stick, model):
    model.write_text(STICK.replace('mesh="shell" contype="0"', 'mesh="shell" contype="1"'))
    with pytest.raises(OneStrideError, match=r"mesh shell, which touches things, is missing: shell\.stl"):
        robot_scene(stick, model)


def test_meshes_travel_with_the_scene(stick, model, tmp_path):
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32) * 0.05
    faces = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]
    triangles = b"".join(np.vstack([np.zeros(3, np.float32), corners[face]]).tobytes() + b"\0\0" for face in faces)
    (model.parent / "shell.stl").write_bytes(b"\0" * 80 + np.uint32(4).tobytes() + triangles)
    scene = robot_scene(stick, model)
    model.parent.joinpath("shell.stl").unlink()
    moved = scene.folder.rename(tmp_path / "moved")
    loaded = mujoco.MjModel.from_xml_path(str(moved / scene.description.model))
    assert loaded.nmesh == 1
    assert loaded.geom("rod").group[0] > 2, "hidden behind the mesh"


def test_a_scene_is_kept_until_something_it_depends_on_changes(stick, model):
    first = robot_scene(stick, model)
    stamp = first.model_path.stat().st_mtime_ns
    assert robot_scene(stick, model).model_path.stat().st_mtime_ns == stamp
    others = {
        robot_scene(stick, model, friction=0.6).folder,
        robot_scene(changed(title="Another"), model).folder,
    }
    model.write_text(STICK.replace('damping="0.3"', 'damping="0.4"'))
    others.add(robot_scene(stick, model).folder)
    assert len(others | {first.folder}) == 4
    assert find_scene("robot/stick").description.robot == "stick"


def test_a_folder_with_another_scene_is_left_alone(stick, model, tmp_path):
    folder = robot_scene(stick, model, folder=tmp_path / "mine").folder
    assert robot_scene(stick, model, folder=folder).folder == folder
    with pytest.raises(OneStrideError, match=r"expected no other scene, got that of robot/stick \(stick\.xml"):
        robot_scene(stick, model, friction=0.6, folder=folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'joint name="hinge"',
            'joint name="other"',
            "unknown joint in the robot's model: got 'hinge', available: other",
        ),
        ("<mujoco>", "<mujoco><nonsense/>", "MuJoCo refuses the model"),
    ],
)
def test_what_the_model_lacks_is_named(stick, model, old, new, message):
    model.write_text(
        STICK.replace(old, new).replace('joint="hinge"', 'joint="other"' if "other" in new else 'joint="hinge"')
    )
    with pytest.raises(OneStrideError, match=message):
        robot_scene(stick, model)


def test_a_drive_without_declared_effort_has_to_be_in_the_model(model):
    joint = {key: value for key, value in yaml.safe_load(DESCRIPTION)["joints"][0].items() if key != "effort"}
    with pytest.raises(OneStrideError, match="expected the actuator hinge in its model, which lacks it"):
        robot_scene(changed(joints=[joint]), model)
    kept = Plant(
        robot_scene(changed(joints=[{**joint, "actuator": "old"}]), model),
        changed(joints=[{**joint, "actuator": "old"}]),
    )
    assert kept.model.actuator("old").gear[0] == 7.0


def test_where_a_model_may_come_from(stick, tmp_path, monkeypatch):
    monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
    with pytest.raises(OneStrideError, match="no package has its model; give its MuJoCo XML: --model PATH"):
        model_file(stick)
    with pytest.raises(OneStrideError, match=r"model of stick: expected a file, got .*none.xml"):
        model_file(stick, tmp_path / "none.xml")
    shelf = changed(model={"menagerie": "stick/stick.xml"})
    with pytest.raises(OneStrideError, match="expected MENAGERIE_ROOT"):
        model_file(shelf)
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    with pytest.raises(OneStrideError, match="in MENAGERIE_ROOT: expected a file"):
        model_file(shelf)
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "stick.xml").write_text(STICK)
    assert model_file(shelf) == tmp_path / "stick" / "stick.xml"
    assert Plant(robot_scene(shelf), shelf).scene.environment == "robot/stick"


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(OneStrideError, match="in the Python package robosuite_models, which is not installed"):
        model_file(load_robot("go2"))


@pytest.mark.parametrize("friction", [0.0, -1.0, float("nan"), 100.0])
def test_friction_is_refused_where_it_makes_no_sense(stick, model, friction):
    with pytest.raises(OneStrideError, match="expected a friction"):
        robot_scene(stick, model, friction=friction)


def test_the_command(model, tmp_path, capsys):
    description = tmp_path / "stick.yaml"
    description.write_text(DESCRIPTION)
    assert main(["scene", "--robot", str(description), "--model", str(model)]) == 0
    assert str(find_scene("robot/stick").folder) in capsys.readouterr().out
    for arguments in ([], ["cube", "--robot", "go2"], ["cube", "--model", str(model)], ["--robot", "r2d2"]):
        assert main(["scene", *arguments]) == 1
        assert capsys.readouterr().err.startswith("onestride: ")

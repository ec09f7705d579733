"""Every robot we ship: its model is found, its scene builds, and the simulated robot is what the description says."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path

import mujoco
import numpy as np
import pytest

from onestride.hardware.description import DampingStop, RobotDescription, available_robots, load_robot
from onestride.hardware.models import TIMESTEP, robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.scenery import CAMERA, FLOOR
from onestride.hardware.sources import MenagerieModel, PackagedModel

ROBOTS = available_robots()
LEGGED = [name for name in ROBOTS if load_robot(name).base is not None]
FRICTION = 0.7
AT_REST = 0.05  # [m/s] and [rad/s] of the base


def given_model(robot: RobotDescription, shared_data: Path) -> Path | None:
    """The file that a robot's model has to be given as; skips where the robot's own source is not here."""
    if isinstance(robot.model, PackagedModel):
        if importlib.util.find_spec(robot.model.package) is None:
            pytest.skip(f"the model of {robot.id} is in {robot.model.package}, which is not installed")
        return None
    if isinstance(robot.model, MenagerieModel):
        if "MENAGERIE_ROOT" not in os.environ:
            pytest.skip(f"the model of {robot.id} is in MuJoCo Menagerie: MENAGERIE_ROOT is not set")
        return None
    return shared_data / "policies" / "go1_joystick" / "go1_mjx_feetonly.xml"


@pytest.fixture(scope="module")
def plant_of(tmp_path_factory, shared_data):
    @cache
    def make(name: str) -> Plant:
        robot = load_robot(name)
        folder = tmp_path_factory.mktemp(name) / "scene"
        return Plant(robot_scene(robot, given_model(robot, shared_data), friction=FRICTION, folder=folder), robot)

    return make


@pytest.fixture
def plant(plant_of, request) -> Plant:
    plant = plant_of(request.param)
    plant.reset()
    return plant


every_robot = pytest.mark.parametrize("plant", ROBOTS, indirect=True)
every_legged = pytest.mark.parametrize("plant", LEGGED, indirect=True)


def default_pose(robot: RobotDescription) -> np.ndarray:
    return np.array([joint.default for joint in robot.joints])


def pressure(plant: Plant, contact: int) -> float:
    """Normal force of a contact [N]."""
    wrench = np.empty(6)
    mujoco.mj_contactForce(plant.model, plant.data, contact, wrench)
    return float(wrench[0])


@every_robot
def test_the_default_pose_is_held_for_two_seconds(plant):
    robot, pose = plant.robot, default_pose(plant.robot)
    plant.command(pose)
    plant.step(round(2.0 / TIMESTEP))
    measured = plant.read()
    if robot.base is None:
        np.testing.assert_allclose(measured.position, pose, atol=0.01)
        np.testing.assert_allclose(measured.velocity, 0.0, atol=0.01)
    else:  # soft drives sag under the robot's weight, but it stands
        np.testing.assert_allclose(measured.position, pose, atol=0.25)
        assert plant.data.body(robot.base.body).xpos[2] > 0.75 * plant.model.qpos0[2]
        assert plant.data.body(robot.base.body).xmat[8] > np.cos(0.1)


@every_robot
def test_every_joint_may_do_no_more_than_its_model_allows(plant):
    for joint in plant.robot.joints:
        there = plant.model.joint(joint.model_joint)
        if plant.model.jnt_limited[there.id]:
            low, high = there.range
            assert low - 1e-3 <= joint.position[0] < joint.position[1] <= high + 1e-3, joint.name


@every_robot
def test_every_drive_is_the_declared_one(plant):
    model = plant.model
    assert sorted(model.actuator(i).name for i in range(model.nu)) == sorted(j.actuator for j in plant.robot.joints)
    for joint in plant.robot.joints:
        drive = model.actuator(joint.actuator)
        if joint.effort is None:
            continue
        assert drive.trnid[0] == model.joint(joint.model_joint).id
        np.testing.assert_allclose(drive.forcerange, [-joint.effort, joint.effort])
        if plant.robot.command_mode == "position":
            assert drive.gainprm[0] == pytest.approx(joint.stiffness)
            np.testing.assert_allclose(drive.biasprm[:3], [0.0, -joint.stiffness, -joint.damping])
        else:
            assert drive.gainprm[0] == 1.0
            assert not drive.biasprm.any()
            assert not drive.ctrllimited


@every_robot
def test_its_frames_exist_and_it_can_be_filmed(plant):
    for site in plant.robot.frames.values():
        assert mujoco.mj_name2id(plant.model, mujoco.mjtObj.mjOBJ_SITE, site) >= 0
    assert plant.scene.camera == CAMERA
    camera, base = plant.data.camera(CAMERA), plant.model.camera(CAMERA).bodyid[0]
    looks = -camera.xmat.reshape(3, 3)[:, 2]
    towards = plant.data.xipos[base] + [0.0, 0.0, 0.0 if plant.robot.base else 0.45] - camera.xpos
    assert looks @ towards / np.linalg.norm(towards) > 0.98


@every_legged
def test_it_stands_on_its_feet_with_the_friction_that_was_asked_for(plant):
    base = plant.robot.base
    plant.command(default_pose(plant.robot))
    plant.step(round(3.0 / TIMESTEP))
    floor = plant.model.geom(FLOOR).id
    touching = [contact for contact in plant.data.contact if floor in contact.geom]
    assert {max(contact.geom) for contact in touching} >= {plant.model.geom(foot.geom).id for foot in base.feet}
    assert all(contact.friction[0] == pytest.approx(FRICTION) for contact in touching)
    weight = plant.model.body_mass.sum() * 9.81
    assert sum(pressure(plant, index) for index in range(plant.data.ncon)) == pytest.approx(weight, rel=0.01)
    # The rest is carried by shins: Spot's reach the floor where its soft feet give way.
    assert 0.85 * weight < plant.read().vectors["foot_forces"].sum() < 1.05 * weight


@every_legged
def test_the_feet_touch_the_floor_before_the_first_step(plant):
    feet = [plant.model.geom(foot.geom).id for foot in plant.robot.base.feet]
    heights = plant.data.geom_xpos[feet, 2] - plant.model.geom_size[feet, 0]
    assert heights.min() == pytest.approx(0.0, abs=1e-6)


@every_legged
def test_the_damping_stop_lays_it_down_in_the_declared_time(plant):
    robot = plant.robot
    assert isinstance(robot.safe_stop, DampingStop)
    plant.command(default_pose(robot))
    plant.step(500)
    plant.damp()
    plant.step(round(robot.safe_stop.completes_within / TIMESTEP))
    assert np.abs(plant.data.qvel[:6]).max() < AT_REST
    assert np.abs(plant.read().velocity).max() < 2 * AT_REST
    lying = plant.data.body(robot.base.body).xpos[2]
    assert 0.02 < lying < 0.5 * plant.model.qpos0[2], "expected it on the floor, not in it"


@every_legged
def test_every_leg_ends_in_its_foot(plant):
    """The joints of a foot are the joints between it and the base, from the base down."""
    model, names = plant.model, {joint.name: joint.model_joint for joint in plant.robot.joints}
    for foot in plant.robot.base.feet:
        body, chain = model.geom(foot.geom).bodyid[0], []
        while body != model.body(plant.robot.base.body).id:
            chain[:0] = [model.joint(j).name for j in range(model.njnt) if model.jnt_bodyid[j] == body]
            body = model.body_parentid[body]
        assert chain == [names[name] for name in foot.joints]


@pytest.mark.parametrize("name", ROBOTS)
def test_a_driver_speaks_of_the_robots_joints_at_a_rate_the_robot_has(name):
    robot = load_robot(name)
    assert robot.drivers, "expected at least one ROS 2 driver"
    for profile in robot.drivers.values():
        commands = list(profile.commands.values())
        assert profile.streaming is commands[0]
        for command in commands:
            assert set(command.joints) <= set(robot.joint_names)
            assert command.rate is None or command.rate[1] <= robot.control_rates[1]
        arms = {joint.name for joint in robot.joints if joint.velocity is not None}
        assert arms <= set(profile.streaming.joints), "the streamed command moves every joint that takes setpoints"

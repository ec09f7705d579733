"""The plant's own measure of a walk, against motions that are known beforehand."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.scene import Scene
from onestride.hardware.walking import SETTLING, WalkMeter, command_at

ROBOT = load_robot("go1")


@pytest.fixture(scope="module")
def scene(shared_data: Path, tmp_path_factory) -> Scene:
    model = shared_data / "policies" / "go1_joystick" / "go1_mjx_feetonly.xml"
    return robot_scene("go1", model, folder=tmp_path_factory.mktemp("walking") / "scene")


@pytest.fixture
def floating(scene) -> Plant:
    """A robot without weight that touches nothing: what it is given as velocity, it keeps."""
    plant = Plant(scene, ROBOT)
    plant.model.opt.gravity[:] = 0.0
    plant.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    plant.reset()
    return plant


def drift(plant: Plant, meter: WalkMeter, seconds: float) -> None:
    for _ in range(round(seconds / plant.scene.physics_timestep)):
        plant.step()
        meter.see()


def test_velocities_are_those_of_the_base_in_its_own_frame(floating):
    meter, yaw = WalkMeter(floating), 0.7
    floating.data.qpos[3:7] = np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
    ahead, left = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    floating.data.qvel[:2] = 0.5 * ahead - 0.2 * left
    mujoco.mj_forward(floating.model, floating.data)
    meter.ask((0.4, -0.2, 0.1))
    drift(floating, meter, SETTLING + 1.0)
    found = meter.progress()
    (stretch,) = found["stretches"]
    np.testing.assert_allclose(stretch["velocity"], (0.5, -0.2, 0.0), atol=2e-3)
    assert stretch["error"] == pytest.approx(0.1, abs=3e-3)
    assert stretch["turn_error"] == pytest.approx(0.1, abs=3e-3)
    assert found["upright"]
    assert found["most_tilt"] < 0.01


def test_each_command_is_judged_once_it_had_time_to_be_followed(floating):
    meter = WalkMeter(floating)
    floating.data.qvel[0] = 0.3
    for command in ((0.3, 0.0, 0.0), (0.3, 0.0, 0.0), (0.0, 0.0, 0.0)):
        meter.ask(command)
        drift(floating, meter, SETTLING + 0.5)
    first, second = meter.progress()["stretches"]
    assert first["error"] == pytest.approx(0.0, abs=3e-3)
    assert second["error"] == pytest.approx(0.3, abs=3e-3)
    assert first["seconds"] == pytest.approx(SETTLING + 1.0, abs=0.05)
    assert second["seconds"] == pytest.approx(0.5, abs=0.05)


def test_who_leans_too_far_or_sinks_has_fallen(floating):
    meter = WalkMeter(floating)
    floating.data.qpos[3:7] = np.cos(0.5), np.sin(0.5), 0.0, 0.0
    drift(floating, meter, 0.1)
    assert not meter.progress()["upright"]
    assert meter.progress()["most_tilt"] == pytest.approx(1.0, abs=0.02)
    floating.reset()
    meter.begin()
    assert meter.progress()["upright"]
    floating.data.qpos[2] *= 0.4
    drift(floating, meter, 0.1)
    assert not meter.progress()["upright"]


def test_a_robot_without_legs_does_not_walk(cube_scene):
    with pytest.raises(OneStrideError, match="robot ur5e_2f85: expected a floating base, got none"):
        WalkMeter(Plant(cube_scene, load_robot("ur5e_2f85")))


@pytest.mark.parametrize(("time", "index"), [(0.0, 0), (4.99, 0), (5.0, 1), (9.99, 1), (10.0, 1), (11.0, 1)])
def test_commands_share_the_time(time, index):
    commands = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    assert command_at(commands, 10.0, time) == commands[index]

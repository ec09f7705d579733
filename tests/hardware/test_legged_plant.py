"""A plant on legs measures what MuJoCo's own sensors do, and its drives obey the law of impedance at every step."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from legged_samples import ROBOT

from onestride.hardware.errors import OneStrideError
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant

HOME = np.array([joint.default for joint in ROBOT.joints])
EFFORT = np.array([joint.effort for joint in ROBOT.joints])


@pytest.fixture(scope="module")
def scene(shared_data, tmp_path_factory):
    model = shared_data / "policies" / "go1_joystick" / "go1_mjx_feetonly.xml"
    return robot_scene("go1", model, folder=tmp_path_factory.mktemp("go1") / "scene")


@pytest.fixture
def plant(scene):
    return Plant(scene, ROBOT, odometry=True)


def tumble(plant: Plant, seed: int) -> None:
    """Any state that a robot in the air may be in."""
    rng, data = np.random.default_rng(seed), plant.data
    data.qpos[:3], data.qpos[3:7] = rng.normal(size=3) + np.array([0, 0, 3]), rng.normal(size=4)
    data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
    data.qvel[:] = rng.normal(size=len(data.qvel))


@pytest.mark.parametrize("seed", range(5))
def test_the_inertial_sensor_reads_as_mujocos_own(plant, seed):
    tumble(plant, seed)
    mujoco.mj_forward(plant.model, plant.data)
    imu, own = plant.read().imu, plant.data.sensor
    turned = own("orientation").data
    assert min(np.abs(imu.orientation - turned).max(), np.abs(imu.orientation + turned).max()) < 1e-12
    np.testing.assert_allclose(imu.angular_velocity, own("gyro").data, atol=1e-12)
    np.testing.assert_allclose(imu.acceleration, own("accelerometer").data, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_odometry_is_the_true_velocity_of_the_sensor(plant, seed):
    tumble(plant, seed)
    mujoco.mj_forward(plant.model, plant.data)
    np.testing.assert_allclose(
        plant.read().vectors["base_velocity"], plant.data.sensor("local_linvel").data, atol=1e-12
    )


def test_odometry_is_published_only_when_it_is_asked_for(scene):
    measurement = Plant(scene, ROBOT).read()
    assert list(measurement.vectors) == ["foot_forces"]
    assert set(measurement.received) == {"joints", "imu", "foot_forces"}


def test_standing_feet_carry_the_weight_and_a_robot_in_the_air_has_none_on_them(plant):
    plant.step(1500)
    forces = plant.read().vectors["foot_forces"]
    assert forces.min() > 0.0
    assert forces.sum() == pytest.approx(9.81 * plant.model.body_mass.sum(), rel=0.02)
    assert plant.read().imu.acceleration[2] == pytest.approx(9.81, abs=0.1)
    tumble(plant, 0)
    mujoco.mj_forward(plant.model, plant.data)
    np.testing.assert_array_equal(plant.read().vectors["foot_forces"], 0.0)


@pytest.mark.parametrize("push", [0.05, 2.0])
def test_the_drives_give_at_every_step_what_the_law_asks_and_they_have(plant, push):
    plant.reset()
    plant.command(HOME + push)
    for _ in range(20):
        before = plant.read()
        plant.step()
        asked = 35.0 * (HOME + push - before.position) - 0.5 * before.velocity
        np.testing.assert_allclose(plant.read().effort, np.clip(asked, -EFFORT, EFFORT), atol=1e-9)


def test_everything_that_a_row_says_reaches_the_drives(plant):
    rng = np.random.default_rng(3)
    parts = rng.normal(size=(3, 12)), rng.uniform(0, 5, size=(2, 12))
    command = ImpedanceCommand(*parts[0], *parts[1])
    plant.impede(ImpedanceCommand.from_row(command.row()))
    before = plant.read()
    plant.step()
    np.testing.assert_allclose(plant.read().effort, command.torque(before.position, before.velocity), atol=1e-9)


def test_a_damped_robot_sinks_and_lies_still_in_the_declared_time(plant):
    plant.step(500)
    standing = plant.data.qpos[2]
    plant.damp()
    for _ in range(round(ROBOT.safe_stop.completes_within / plant.scene.physics_timestep)):
        before = plant.read().velocity
        plant.step()
        assert np.all(plant.data.ctrl * before <= 0.0)
    assert plant.data.qpos[2] < 0.5 * standing
    assert np.abs(plant.read().velocity).max() < 0.05


def test_a_scene_that_asks_for_nothing_is_never_solved(plant):
    plant.step(plant.scene.substeps * 3)
    assert not plant.progress.success


def test_commands_for_others_are_refused_and_the_last_one_stays(plant):
    plant.reset()
    plant.command(HOME + 0.1)
    with pytest.raises(OneStrideError, match="expected a command of 12 joints, got 1"):
        plant.impede(ImpedanceCommand.from_row([0, 0, 0, 0, 0]))
    with pytest.raises(OneStrideError, match="expected 12 finite joint targets"):
        plant.command(np.full(12, np.nan))
    plant.step()
    np.testing.assert_allclose(plant.read().effort, np.minimum(3.5, EFFORT), atol=1e-6)

"""The base's velocity from legs and inertial sensor: exact where a foot stands, near the truth where it slips."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from go1_walks import BASE, FIGURES, REAL, Course
from legged_samples import ROBOT

from onestride.deploy.estimator import BaseVelocityEstimator, Legs
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.simulation import simulate_episode
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant
from onestride.hardware.readings import BaseReadings
from onestride.hardware.state import Array, Measurement

Log = list[tuple[Measurement, Array]]


@pytest.fixture(scope="module")
def course(shared_data, tmp_path_factory):
    return Course.lay(shared_data, tmp_path_factory.mktemp("go1"), "odometry", control_rate=500.0)


@pytest.fixture(scope="module")
def forward(course):
    return ForwardKinematics.load(course.scene.model_path, ROBOT)


@pytest.fixture(scope="module")
def walks(course) -> dict[str, Log]:
    """Noisy measurements of walks at 500 Hz, and the true velocity at each."""
    logs = {}
    for name, (command, _) in FIGURES.items():
        controller, plant = course.controller(), course.plant(0)
        truth, log = BaseReadings(plant.model, plant.data, BASE), []
        simulate_episode(
            controller,
            plant,
            None,
            0,
            lambda _, measurement, log=log, truth=truth: log.append((measurement, truth.velocity())),
            velocity=lambda _, command=command: command,
            duration=2.5,
        )
        logs[name] = log
    return logs


def rms(errors: list[Array]) -> float:
    """Of each element [m/s]."""
    return float(np.sqrt(np.square(errors).mean()))


@pytest.mark.parametrize("rate", [50, 500])
@pytest.mark.parametrize("forces", [True, False], ids=["foot forces", "joint efforts"])
@pytest.mark.parametrize("name", FIGURES)
def test_it_is_within_a_tenth_of_a_metre_per_second_on_a_noisy_walk(walks, forward, name, rate, forces):
    estimator, errors = BaseVelocityEstimator(ROBOT, forward), []
    for measurement, true in walks[name][:: 500 // rate]:
        seen = measurement if forces else replace(measurement, vectors={})
        errors.append(estimator.update(seen, 1.0 / rate) - true)
    moving = rms([true for _, true in walks[name]])
    assert rms(errors) <= 0.1
    assert name == "wz" or rms(errors) < 0.35 * moving  # turning on the spot is not much of a velocity


@pytest.mark.parametrize("seed", range(5))
def test_a_leg_says_the_bases_velocity_less_that_of_the_foots_lowest_point(course, forward, seed):
    """Against MuJoCo's Jacobian of the whole robot, floating base and all."""
    plant, rng = Plant(course.scene, ROBOT, odometry=True), np.random.default_rng(seed)
    model, data = plant.model, plant.data
    data.qpos[3:7] = rng.normal(size=4)
    data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
    data.qpos[7:] += 0.2 * rng.normal(size=12)
    data.qvel[:] = rng.normal(size=model.nv)
    mujoco.mj_forward(model, data)
    measurement, imu = plant.read(), BaseReadings(model, data, BASE).inertial()
    site = data.site(BASE.imu).xmat.reshape(3, 3)
    down = site.T @ [0.0, 0.0, -1.0]
    said = Legs(ROBOT, forward).motion(measurement, imu, down).velocity
    for foot, velocity in zip(BASE.feet, said, strict=True):
        geom, jacobian = model.geom(foot.geom), np.zeros((3, model.nv))
        lowest = data.geom_xpos[geom.id] - [0.0, 0.0, geom.size[0]]
        mujoco.mj_jac(model, data, jacobian, None, lowest, int(geom.bodyid[0]))
        expected = measurement.vectors["base_velocity"] - site.T @ (jacobian @ data.qvel)
        np.testing.assert_allclose(velocity, expected, atol=1e-9)


def test_efforts_tell_who_carries_the_robot(course, forward):
    """Standing, the drives' efforts press the feet down with the weight that the legs do not have themselves."""
    plant = Plant(course.scene, ROBOT)
    plant.step(1500)
    measurement, imu = plant.read(), BaseReadings(plant.model, plant.data, BASE).inertial()
    legs, down = Legs(ROBOT, forward), np.array([0.0, 0.0, -1.0])
    felt = legs.motion(measurement, imu, down).load
    guessed = legs.motion(replace(measurement, vectors={}), imu, down).load
    np.testing.assert_allclose(felt.sum(), 1.0, atol=0.05)
    np.testing.assert_allclose(guessed, felt, atol=0.12)


def test_a_robot_in_the_air_falls_as_the_sensor_says(course, forward):
    """Free fall: nothing is felt, no foot carries, the speed downwards is g t."""
    plant = Plant(course.scene, ROBOT, odometry=True)
    plant.data.qpos[2] += 2.0
    plant.damp()
    mujoco.mj_forward(plant.model, plant.data)
    estimator = BaseVelocityEstimator(ROBOT, forward)
    for _ in range(100):
        plant.step()
        estimator.update(plant.read(), 0.002)
    np.testing.assert_allclose(estimator.velocity(plant.read()), [0.0, 0.0, -9.81 * 0.2], atol=0.03)
    np.testing.assert_allclose(plant.read().vectors["base_velocity"], [0.0, 0.0, -9.81 * 0.2], atol=0.03)


def test_what_is_no_measurement_changes_nothing(walks, forward):
    estimator = BaseVelocityEstimator(ROBOT, forward)
    for measurement, _ in walks["vx"][:500]:
        estimator.update(measurement, 0.002)
    before = estimator.velocity(measurement)
    blind = replace(measurement, imu=None)
    spoilt = replace(measurement, velocity=np.full(12, np.nan))
    unturned = replace(measurement, imu=replace(measurement.imu, orientation=np.zeros(4)))
    short = replace(measurement, position=np.zeros(11))
    for bad in (blind, spoilt, unturned, short):
        np.testing.assert_array_equal(estimator.update(bad, 0.002), before)


@pytest.mark.parametrize(
    "forces",
    [np.full(4, np.nan), np.array([40.0, np.inf, 40.0, 40.0]), np.full(3, 40.0), np.full(12, 40.0)],
    ids=["nan", "inf", "three", "twelve"],
)
def test_forces_that_are_none_are_not_believed(walks, forward, forces):
    legs, down = Legs(ROBOT, forward), np.array([0.0, 0.0, -1.0])
    measurement, _ = walks["vx"][200]
    by_effort = legs.motion(replace(measurement, vectors={}), measurement.imu, down).load
    found = legs.motion(replace(measurement, vectors={"foot_forces": forces}), measurement.imu, down).load
    np.testing.assert_array_equal(found, by_effort)


def test_forces_are_believed_as_long_as_they_are_of_the_same_time_as_the_legs(walks, forward):
    legs, down = Legs(ROBOT, forward), np.array([0.0, 0.0, -1.0])
    measurement, _ = walks["vx"][200]
    newest, stale = measurement.received["joints"], ROBOT.detection.joints_stale

    def load(received: dict[str, float]) -> Array:
        seen = replace(measurement, received={"joints": newest, "imu": newest, **received})
        return legs.motion(seen, measurement.imu, down).load

    by_effort = legs.motion(replace(measurement, vectors={}), measurement.imu, down).load
    felt = load({"foot_forces": newest})
    assert np.abs(felt - by_effort).max() > 0.01
    np.testing.assert_array_equal(load({"foot_forces": newest - 0.9 * stale}), felt)
    np.testing.assert_array_equal(load({"foot_forces": newest - 1.1 * stale}), by_effort)
    np.testing.assert_array_equal(load({}), by_effort)


def test_it_goes_by_the_time_between_inertial_samples(walks, forward):
    """As `update` by hand, with samples seen several times, late by different times, and a silence that is too long."""
    followed, by_hand = BaseVelocityEstimator(ROBOT, forward), BaseVelocityEstimator(ROBOT, forward)
    rng, time, stale = np.random.default_rng(3), 5.0, ROBOT.detection.joints_stale
    for index, (measurement, _) in enumerate(walks["vx"][:60]):
        elapsed = 3.0 * stale if index == 40 else float(rng.uniform(0.0005, 0.01))
        time += elapsed
        by_hand.update(measurement, 0.0 if index == 0 else min(elapsed, stale))
        for _ in range(int(rng.integers(1, 4))):
            followed.follow(replace(measurement, received={**measurement.received, "imu": time}))
        np.testing.assert_allclose(followed.velocity(measurement), by_hand.velocity(measurement), atol=1e-9)
    before = followed.velocity(measurement)
    followed.follow(replace(measurement, received={**measurement.received, "imu": time - 0.01}))
    followed.follow(replace(measurement, received={}))
    np.testing.assert_array_equal(followed.velocity(measurement), before)


def test_it_forgets_at_an_activation(walks, forward):
    fresh, used = BaseVelocityEstimator(ROBOT, forward), BaseVelocityEstimator(ROBOT, forward)
    for measurement, _ in walks["vx"][:100]:
        used.update(measurement, 0.002)
    used.reset()
    np.testing.assert_array_equal(used.update(measurement, 0.002), fresh.update(measurement, 0.002))


def test_a_robot_without_legs_is_refused(forward):
    with pytest.raises(OneStrideError, match="panda: expected a floating base"):
        BaseVelocityEstimator(load_robot("panda"), forward)


def test_the_walks_were_noisy(walks):
    """Or the figures above would mean little."""
    assert REAL.noise.velocity > 0.1
    standing = [measurement.imu.acceleration for measurement, _ in walks["wz"][:20]]
    assert np.std(standing, axis=0).min() > 0.1

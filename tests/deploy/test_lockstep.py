"""The robot side sees what the environment sees, and commands what the environment commands."""

from __future__ import annotations

import numpy as np
import pytest
from environment_pair import same_controls

from onestride.deploy.actions import ActionMapper
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.observe import Observer
from onestride.deploy.runtime import load_contract
from onestride.hardware.description import load_robot
from onestride.hardware.plant import Plant

CUBE = "ogbench/cube-single-singletask-task2-v0"


@pytest.fixture(scope="module")
def sides(small_run, cube_scene):
    """The environment, and what knows only contract and scene: plant, observer, action mapper."""
    from onestride.training.environments.ogbench_cube import make_cube

    environment = make_cube(CUBE)
    contract, _ = load_contract(small_run.policy)
    robot = load_robot("ur5e_2f85")
    forward = ForwardKinematics.load(cube_scene.model_path, robot)
    yield environment, Plant(cube_scene, robot), Observer(contract, forward), ActionMapper(contract, forward)
    environment.close()


@pytest.mark.parametrize("seed", [21, 22])
def test_observation_and_target_are_the_environments_over_an_episode(sides, seed, monkeypatch):
    environment, plant, observer, mapper = sides
    scale = same_controls(environment, plant, monkeypatch)
    expected = environment.reset(seed)
    controls = environment.inner.data.ctrl
    plant.reset(environment.state())
    oracle, rng = environment.oracle("markov", seed), np.random.default_rng(seed)
    for _ in range(environment.horizon):
        measurement = plant.read()
        np.testing.assert_allclose(observer.step(measurement), expected, rtol=0, atol=1e-6)
        action = np.clip(oracle.act() + 0.3 * rng.standard_normal(5), -1, 1)
        target = mapper.target(measurement, action, last_sent=measurement.position)
        step = environment.step(action)
        expected = step.observation
        np.testing.assert_allclose(target, controls / scale, rtol=0, atol=1e-6)
        if step.success:
            return
        plant.command(controls / scale)
        plant.step(plant.scene.substeps)
    pytest.fail("the oracle should have solved the task")


def test_the_site_delay_is_what_makes_them_equal(sides):
    """Without the contract's delay the effector's pose is a physics step newer than the environment's."""
    environment, plant, observer, _ = sides
    environment.reset(23)
    for _ in range(3):
        expected, *_ = environment.step(np.array([1.0, 1.0, -1.0, 0.0, 0.0]))
    plant.reset(environment.state())
    forward = observer._forward
    measurement = plant.read()
    effector = expected[12:15]
    forward.place(measurement.position)
    undelayed = (forward.position("pinch") - np.array([0.425, 0.0, 0.0])) * 10.0
    assert np.abs(undelayed - effector).max() > 1e-3
    np.testing.assert_allclose(observer.step(measurement)[12:15], effector, atol=1e-9)


def test_history_is_oldest_first_and_starts_full(sides):
    environment, plant, observer, _ = sides
    contract = observer.contract.model_copy(update={"history": 3})
    observer = Observer(contract, observer._forward)
    environment.reset(24)
    first = plant.reset(environment.state())
    size = contract.observation_size
    np.testing.assert_array_equal(observer.build(first).reshape(3, size), [observer.step(first)] * 3)
    environment.step(np.ones(5))
    second = plant.reset(environment.state())
    built = observer.build(second).reshape(3, size)
    np.testing.assert_array_equal(built, [observer.step(first)] * 2 + [observer.step(second)])
    observer.reset()
    np.testing.assert_array_equal(observer.build(second).reshape(3, size), [observer.step(second)] * 3)

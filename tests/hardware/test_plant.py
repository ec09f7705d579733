"""The plant is the environment's simulation, without the environment."""

from __future__ import annotations

import numpy as np
import pytest
from environment_pair import same_controls

from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant

pytest.importorskip("ogbench", reason="needs the extra `sim`")

NAME = "ogbench/cube-single-singletask-task2-v0"
STEPS = 200


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    from onestride.training.environments.ogbench_cube import make_cube
    from onestride.training.environments.scenes import export_scene

    environment = make_cube(NAME)
    scene = export_scene(environment, tmp_path_factory.mktemp("scene") / "cube")
    yield environment, Plant(scene, load_robot("ur5e_2f85"))
    environment.close()


@pytest.mark.parametrize("seed", [6, 8])
def test_plant_is_the_environment_over_200_steps(pair, seed, monkeypatch):
    environment, plant = pair
    inner, scale = environment.inner, same_controls(environment, plant, monkeypatch)
    environment.reset(seed=seed)
    plant.reset(environment.state())
    oracle, rng = environment.oracle("markov", seed=seed), np.random.default_rng(seed)
    solved_after = None
    for step in range(STEPS):
        action = oracle.act() + (0.0 if step % 4 else rng.normal(size=5))
        success = environment.step(action).success
        plant.command(inner.data.ctrl / scale)
        plant.step(plant.scene.substeps)
        np.testing.assert_allclose(plant.data.qpos, inner.data.qpos, rtol=0, atol=1e-9)
        if success and solved_after is None:
            solved_after = step  # OGBench judges before it acts: this is the state after `step` periods
            assert plant.progress.solved_after == solved_after
    assert plant.progress.solved_after == solved_after
    assert solved_after is not None, "the oracle should have solved the task, or the measure was never tested"


def test_measurement_is_the_environments_reading(pair):
    environment, plant = pair
    environment.reset(seed=7)
    measured, info = plant.reset(environment.state()), environment.info
    np.testing.assert_allclose(measured.position[:6], info["proprio/joint_pos"], atol=1e-12)
    np.testing.assert_allclose(measured.objects["block_0"].position, info["privileged/block_0_pos"], atol=1e-12)
    np.testing.assert_allclose(measured.objects["block_0"].quaternion, info["privileged/block_0_quat"], atol=1e-12)
    assert measured.scalars["gripper_contact"] == pytest.approx(info["proprio/gripper_contact"][0], abs=1e-9)


def test_efforts_are_what_the_joint_controllers_say(pair):
    """Gain times error less damping times velocity, as OGBench sets its servos; of the state before the last step."""
    environment, plant = pair
    environment.reset(seed=7)
    start = plant.reset(environment.state())
    np.testing.assert_allclose(start.effort[:6], 0.0, atol=1.0)
    target = start.position + np.array([0.02, -0.01, 0.03, 0.0, -0.01, 0.01, 0.0])
    plant.command(target)
    for _ in range(5):
        before = plant.read()
        plant.step()
        expected = [
            joint.stiffness * (target[i] - before.position[i]) - joint.damping * before.velocity[i]
            for i, joint in enumerate(plant.robot.joints[:6])
        ]
        np.testing.assert_allclose(plant.read().effort[:6], expected, rtol=1e-9, atol=1e-9)


def test_a_seed_means_one_start(pair):
    environment, _ = pair
    environment.reset(seed=11)
    first = environment.state()
    environment.reset(seed=12)
    other = environment.state()
    environment.reset(seed=11)
    np.testing.assert_array_equal(environment.state(), first)
    assert not np.array_equal(other, first)


def test_the_plant_holds_its_pose_without_commands(pair):
    environment, plant = pair
    environment.reset(seed=3)
    start = plant.reset(environment.state()).position
    plant.step(500)
    np.testing.assert_allclose(plant.read().position[:6], start[:6], atol=0.02)


@pytest.mark.parametrize("target", [np.full(7, np.nan), np.zeros(6), np.array([0, 0, 0, np.inf, 0, 0, 0])])
def test_a_bad_command_is_refused_and_the_last_one_stays(pair, target):
    _, plant = pair
    plant.reset()
    before = plant.data.ctrl.copy()
    with pytest.raises(OneStrideError, match="expected 7 finite joint targets"):
        plant.command(target)
    np.testing.assert_array_equal(plant.data.ctrl, before)


def test_a_scene_for_another_robot_is_refused(pair):
    _, plant = pair
    from onestride.hardware.scene import Scene

    scene = Scene(plant.scene_folder, plant.scene.model_copy(update={"robot": "panda"}))
    with pytest.raises(OneStrideError, match="expected robot panda, got ur5e_2f85"):
        Plant(scene, plant.robot)


def test_a_bad_state_is_refused(pair):
    _, plant = pair
    with pytest.raises(OneStrideError, match="expected a finite state of length"):
        plant.reset(np.zeros(3))

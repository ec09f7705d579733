"""The walking task: what is seen is what the robot measures, episodes repeat, and its scripted expert walks."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

pytest.importorskip("robosuite_models", reason="needs the Go2's model")

from onestride.hardware.errors import OneStrideError
from onestride.training.environments.go2_walk import Go2Walk
from onestride.training.environments.own_tasks import WALK
from onestride.training.environments.registry import canonical, interface, make, patterns

QUIET = {"noise": 0.0, "push": 0.0, "latency": 0.0, "variation": 0.0, "friction": (0.8, 0.8)}


def made(**settings) -> Go2Walk:
    environment = make(WALK, settings)
    assert isinstance(environment, Go2Walk)
    return environment


@pytest.fixture(scope="module")
def quiet():
    return made(**QUIET)


def walked(environment, seed, steps, command=None):
    """The expert's walk: observations, base velocities, and the way gone in the plane."""
    observations, oracle, velocities = [environment.reset(seed)], environment.oracle("trot", seed), []
    start = environment.plant.data.qpos[:2].copy()
    for _ in range(steps):
        if command is not None:
            environment.command = np.array(command)
        step = environment.step(oracle.act())
        assert not step.terminal
        observations.append(step.observation)
        velocities.append(environment.truth.vectors["base_velocity"][:2])
    return np.array(observations), np.array(velocities), environment.plant.data.qpos[:2] - start


def test_the_task_has_a_name_and_terms():
    assert canonical(WALK) == WALK and WALK in patterns()
    known = interface(WALK)
    assert known is not None and known.robot == "go2"
    assert len(known.observation_names) == 45 and len(known.action_names) == 12
    assert "base_velocity" not in " ".join(known.observation_names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wind": 1.0}, "available: command_period, standing, push"),
        ({"push": -1.0}, "push: expected >= 0"),
        ({"friction": (0.9, 0.5)}, "expected 0 < smallest <= largest"),
        ({"standing": 2.0}, "expected shares"),
        ({"push_period": 0.0}, "push_period: expected >= 0.02 s"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(OneStrideError, match=message):
        made(**settings)


def test_one_seed_is_one_episode_to_the_bit():
    environment = made(push_period=0.2, command_period=0.3)
    first, *_ = walked(environment, 3, 25)
    walked(environment, 4, 5)
    np.testing.assert_array_equal(first, walked(environment, 3, 25)[0])
    np.testing.assert_array_equal(first, walked(made(push_period=0.2, command_period=0.3), 3, 25)[0])
    assert np.abs(first[0] - environment.reset(4)).max() > 0


def test_what_is_seen_is_what_the_robot_measures(quiet):
    """Every element by name, from the simulator's own numbers."""
    quiet.reset(0)
    rng, names = np.random.default_rng(0), quiet.interface.observation_names
    for _ in range(5):
        action = rng.uniform(-0.5, 0.5, 12)
        seen = dict(zip(names, quiet.step(action).observation, strict=True))
    data, inverse, down = quiet.plant.data, np.empty(4), np.empty(3)
    mujoco.mju_negQuat(inverse, data.qpos[3:7])
    mujoco.mju_rotVecQuat(down, np.array([0.0, 0.0, -1.0]), inverse)
    np.testing.assert_allclose([seen[f"gravity.{axis}"] for axis in "xyz"], down, atol=1e-9)
    np.testing.assert_allclose([seen[f"angular_velocity.{axis}"] for axis in "xyz"], 0.25 * data.qvel[3:6], atol=1e-9)
    for joint, act in zip(quiet.plant.robot.joints, action, strict=True):
        state = data.joint(joint.model_joint)
        assert seen[f"joint_position.{joint.name}"] == pytest.approx(state.qpos[0] - joint.default, abs=1e-9)
        assert seen[f"joint_velocity.{joint.name}"] == pytest.approx(0.05 * state.qvel[0], abs=1e-9)
        assert seen[f"last_action.joint_target.{joint.name}"] == pytest.approx(act)
    asked = [seen[f"velocity_command.{part}"] for part in ("vx", "vy", "wz")]
    np.testing.assert_allclose(asked, quiet.command)


def test_errors_are_measured_against_the_true_velocity(quiet):
    """Standing still, the error is the speed that is asked for; the way gone agrees with the velocities."""
    quiet.reset(1)
    quiet.command = np.array([0.3, 0.4, 0.0])
    for _ in range(25):
        quiet.step(np.zeros(12))
    assert quiet.tracking_error == pytest.approx(0.5, abs=0.1)
    _, velocities, way = walked(quiet, 1, 150, (0.4, 0.0, 0.0))
    assert velocities[:, 0].mean() * 3.0 == pytest.approx(way[0], abs=0.02)


@pytest.mark.parametrize("command", [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (-0.3, 0.4, 0.0), (0.3, 0.0, -0.5)])
def test_the_expert_goes_where_it_is_asked_to(quiet, command):
    _, velocities, _ = walked(quiet, 2, 200, command)
    np.testing.assert_allclose(velocities[75:].mean(axis=0), command[:2], atol=0.06)
    assert quiet.turning_error < 0.2


def test_the_expert_walks_through_pushes_noise_and_latency():
    environment = made()
    for seed in range(2):
        walked(environment, seed, 300)
        assert environment.tracking_error < 0.15


def test_the_experts_clock_follows_the_legs(quiet):
    """A second expert, half a stride off, watches the first one's legs and comes to say the same."""
    quiet.reset(5)
    walker, watcher = quiet.oracle("trot", 5), quiet.oracle("trot", 5)
    watcher.trot.phase = 0.4
    apart = []
    for _ in range(150):
        action, other = walker.act(), watcher.act()
        apart.append(np.abs(action - other).max())
        quiet.step(action)
    off = (walker.trot.phase - watcher.trot.phase + 0.5) % 1.0 - 0.5
    assert max(apart[:10]) > 0.3
    assert abs(off) < 0.02


def test_a_fall_ends_the_episode_without_success(quiet):
    quiet.reset(0)
    for _ in range(200):
        step = quiet.step(np.tile([1.0, 1.0, -1.0, -1.0, -1.0, 1.0], 2))
        if step.terminal:
            break
    assert step.terminal and quiet.fallen and not step.success and not step.cut
    assert step.reward < -5.0


def test_the_last_step_judges_the_walk():
    """Success is to stay up for the whole episode and to go as asked on average."""
    environment = made(**QUIET, standing=1.0)
    environment.horizon = 30
    for act, success in ((lambda oracle: oracle.act(), True), (lambda _: np.zeros(12), True)):
        environment.reset(0)
        oracle = environment.oracle("trot", 0)
        steps = [environment.step(act(oracle)) for _ in range(30)]
        assert [step.cut for step in steps] == [False] * 29 + [True]
        assert steps[-1].success == success and not any(step.success for step in steps[:-1])
    environment.reset(0)
    environment.command = np.array([0.5, 0.0, 0.0])
    assert not [environment.step(np.zeros(12)) for _ in range(30)][-1].success


def test_there_is_no_other_expert(quiet):
    with pytest.raises(OneStrideError, match="available: trot"):
        quiet.oracle("markov", 0)

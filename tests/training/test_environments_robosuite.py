"""robomimic's tasks: the recorded observations from the recorded states, and one episode for one seed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from onestride.hardware.errors import OneStrideError

pytest.importorskip("robosuite", reason="needs requirements/stage2.txt")

from onestride.datasets.converters import Options, convert
from onestride.datasets.store import Store
from onestride.training.environments.registry import canonical, interface, make, settings_of
from onestride.training.environments.robosuite_objects import legacy_object
from onestride.training.environments.robosuite_settings import HORIZON, read_settings
from onestride.training.environments.robosuite_tasks import RobomimicEnvironment
from onestride.training.rewards import outcomes

LIFT, CAN, SQUARE = "robomimic/Lift", "robomimic/PickPlaceCan", "robomimic/NutAssemblySquare"
KEYS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> Path:
    path = shared_data / "robomimic" / "lift_ph_10demos.hdf5"
    if not path.is_file():
        pytest.skip(f"no robomimic file at {path}")
    return path


@pytest.fixture(scope="module")
def store(recorded, tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("lift") / "lift.store"
    cameras = ("obs/agentview_image", "obs/robot0_eye_in_hand_image")
    convert(recorded, path, options=Options(leave_out=cameras))
    return Store.open(path)


@pytest.fixture(scope="module")
def lift(store):
    """Lift as the ten demonstrations were recorded."""
    made = make(LIFT, settings_of(store))
    yield made
    made.close()


@pytest.fixture(scope="module", params=[LIFT, CAN, SQUARE])
def official(request):
    """A task by robomimic's metadata for robosuite 1.5."""
    made = make(request.param)
    yield made
    made.close()


class Demo(NamedTuple):
    states: np.ndarray
    actions: np.ndarray
    observations: np.ndarray
    rewards: np.ndarray
    model: str


@pytest.fixture(scope="module")
def demos(recorded) -> list[Demo]:
    with h5py.File(recorded) as file:
        return [_demo(file["data"][f"demo_{index}"]) for index in range(10)]  # type: ignore[index]


def _demo(demo: Any) -> Demo:
    observations = np.concatenate([demo["obs"][key][...] for key in KEYS], axis=1)
    rows = demo["states"][...], demo["actions"][...], observations, demo["rewards"][...]
    return Demo(*rows, demo.attrs["model_file"])


def _episode(environment, seed, steps=25):
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, environment.action_dim))
    observations = [environment.reset(seed)]
    taken = [environment.step(action) for action in actions]
    return np.array([*observations, *(step.observation for step in taken)]), [step.reward for step in taken]


def test_recorded_states_give_the_recorded_observations(lift, demos):
    """To 3e-7: robosuite computes quaternions in single precision."""
    for demo in (demos[0], demos[9]):
        for moment in range(0, len(demo.states), 9):
            seen = lift.restore(demo.states[moment], demo.model)
            np.testing.assert_allclose(seen, demo.observations[moment], atol=3e-7, rtol=0)


def test_recorded_actions_lift_the_cube_when_the_human_did(lift, demos):
    """All ten: the first success within a step of the recorded one, the gripper within a centimetre until then."""
    for index, demo in enumerate(demos):
        steps = _replayed(lift, demo)
        first, expected = len(steps) - 1, int(np.argmax(demo.rewards))
        assert steps[-1].success and abs(first - expected) <= 1, f"demo_{index}: step {first}, not {expected}"
        for step, observation in zip(steps, demo.observations[1:], strict=False):
            assert np.abs(step.observation[:3] - observation[:3]).max() < 0.01


def _replayed(environment, demo):
    """Steps from the first recorded state by the recorded actions, up to the end of the episode."""
    environment.restore(demo.states[0], demo.model)
    steps = []
    for action in demo.actions:
        steps.append(environment.step(action))
        if steps[-1].terminal:
            break
    return steps


def test_an_object_has_the_size_that_was_recorded(lift, demos):
    sizes = []
    for demo in demos[:2]:
        lift.restore(demo.states[0], demo.model)
        sizes.append(lift.env.sim.model.geom_size[lift.env.sim.model.geom_name2id("cube_g0")].copy())
    np.testing.assert_allclose(sizes[0], [0.0212431, 0.020076, 0.0214241], atol=1e-9)
    assert np.abs(sizes[0] - sizes[1]).max() > 1e-5


def test_after_a_restored_episode_seeds_are_what_they_were(lift, demos):
    before = _episode(lift, 5, 3)
    lift.restore(demos[3].states[20], demos[3].model)
    np.testing.assert_array_equal(before[0], _episode(lift, 5, 3)[0])


def test_one_seed_is_one_episode_to_the_bit(official):
    """Whatever ran before, in this environment or in a fresh one, and whatever numpy's global generator is at."""
    np.random.seed(1)
    first = _episode(official, 3)
    _episode(official, 4, 7)
    np.random.seed(2)
    again = _episode(official, 3)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    after = np.random.random(4)
    np.random.seed(2)
    np.testing.assert_array_equal(after, np.random.random(4))
    fresh = make(official.name)
    np.testing.assert_array_equal(first[0], _episode(fresh, 3)[0])
    fresh.close()
    assert np.abs(official.reset(3) - official.reset(4)).max() > 1e-3


def test_sizes_and_facts(official):
    assert official.observation_dim == len(official.reset(0)) == {LIFT: 19, CAN: 23, SQUARE: 23}[official.name]
    assert (official.action_dim, official.horizon, official.policy_rate) == (7, HORIZON, 20.0)
    assert official.interface is None and interface(official.name) is None
    assert official.source.startswith("robosuite 1.5")
    low, high = official.env.action_spec
    np.testing.assert_array_equal([low, high], [[-1.0] * 7, [1.0] * 7])


def test_the_old_layout_holds_the_same_poses(official):
    """robosuite's own vector, rearranged: at a start, where nothing moves, its relative poses are up to date."""
    official.reset(2)
    seen = official.env._get_observations()
    new, old = seen["object-state"], legacy_object(seen)
    expected = np.concatenate([new[:7], -new[7:]] if official.name == LIFT else [new[7:], new[:7]])
    np.testing.assert_allclose(old, expected, atol=1e-6)


def test_the_old_relative_pose_by_hand():
    """A gripper turned by 90 degrees about z at (1, 0, 0) sees an object at (1, 2, 0) along its own x."""
    quarter = Rotation.from_euler("z", 90, degrees=True).as_quat()
    seen = {
        "robot0_eef_pos": np.array([1.0, 0.0, 0.0]),
        "robot0_eef_quat": quarter,
        "Can_pos": np.array([1.0, 2.0, 0.0]),
        "Can_quat": np.array([0.0, 0.0, 0.0, 1.0]),
        "Can_to_robot0_eef_pos": np.zeros(3),
    }
    back = np.array([0.0, 0.0, -np.sqrt(0.5), np.sqrt(0.5)])
    np.testing.assert_allclose(legacy_object(seen), [1, 2, 0, 0, 0, 0, 1, 2, 0, 0, *back], atol=1e-12)


def test_which_layout_follows_from_the_recording(store):
    recorded = settings_of(store)
    assert recorded is not None
    assert read_settings("Lift", recorded).legacy
    assert read_settings("Lift", recorded).arguments["lite_physics"] is False, "as every robosuite did before 1.5"
    assert read_settings("Lift", {**recorded, "env_version": "1.4.1"}).legacy
    assert not read_settings("Lift", {**recorded, "env_version": "1.5.1"}).legacy
    assert not read_settings("Lift", None).legacy


def test_rewards_cost_time_until_the_first_success_ends_it(lift, demos):
    """r - 1 by default, robosuite's own 0 and 1 on request; the same episode."""
    plain = RobomimicEnvironment(read_settings("Lift", {**_settings(lift), "reward_offset": 0.0}))
    rewards = {}
    for environment in (lift, plain):
        taken = _replayed(environment, demos[8])
        assert [step.success for step in taken] == [step.terminal for step in taken]
        assert not any(step.cut for step in taken)
        rewards[environment] = [step.reward for step in taken]
    plain.close()
    assert set(rewards[lift][:-1]) == {-1.0} and rewards[lift][-1] == 0.0
    assert set(rewards[plain][:-1]) == {0.0} and rewards[plain][-1] == 1.0


def _settings(environment):
    return {"env_name": environment.settings.task, "env_kwargs": environment.settings.arguments}


def test_a_datasets_rewards_are_those_of_the_environment(store, demos):
    """Offline and online agree: -1 until the cube is up, 0 and no value beyond from then on."""
    known = outcomes(store, LIFT)
    assert known is not None
    recorded = np.concatenate([demo.rewards for demo in demos])
    np.testing.assert_array_equal(known.rewards, recorded - 1)
    np.testing.assert_array_equal(known.masks, 1 - recorded)
    assert set(known.rewards.tolist()) == {-1.0, 0.0}


def test_an_episode_is_cut_at_the_horizon():
    short = make(LIFT, {"horizon": 3})
    short.reset(0)
    ends = [short.step(np.zeros(7)) for _ in range(3)]
    assert [(step.cut, step.terminal) for step in ends] == [(False, False), (False, False), (True, False)]
    short.reset(0)
    assert not short.step(np.zeros(7)).cut
    short.close()


def test_observations_on_request_and_in_that_order():
    narrow = make(LIFT, {"observations": ["object", "robot0_gripper_qpos"]})
    usual = make(LIFT)
    seen, all_of_it = narrow.reset(7), usual.reset(7)
    np.testing.assert_array_equal(seen, np.concatenate([all_of_it[9:], all_of_it[7:9]]))
    narrow.close()
    usual.close()


def test_an_exported_policy_is_evaluated_in_what_its_data_was_recorded_in(store, tmp_path, capsys):
    """The file alone says which observations, in the layout of which robosuite."""
    from onestride.deploy.cli import main
    from onestride.deploy.runtime import load_contract

    run, policy = tmp_path / "run", tmp_path / "policy.onnx"
    seen = ["--observations", "object", "robot0_gripper_qpos"]
    small = ["--steps", "3", "--hidden", "8", "--nfe", "1"]
    assert main(["train", "mvp", "--data", str(store.path), "--run", str(run), *small, *seen]) == 0
    assert main(["export", str(run), "-o", str(policy)]) == 0
    contract, _ = load_contract(policy)
    assert contract.environment == LIFT
    recorded = make(LIFT, contract.environment_settings)
    assert isinstance(recorded, RobomimicEnvironment) and recorded.settings.legacy
    assert recorded.settings.observations == ("object", "robot0_gripper_qpos")
    recorded.close()
    capsys.readouterr()
    assert main(["eval", str(policy), "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 1


def test_names():
    assert canonical("robomimic/Can") == canonical(CAN) == CAN
    assert canonical("robomimic/Square") == SQUARE
    assert canonical("robomimic/Soup") is None
    with pytest.raises(OneStrideError, match=r"unknown environment: got 'robomimic/Soup', available: .*Lift"):
        make("robomimic/Soup")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env_name": "PickPlaceCan"}, r"env_name of the settings: got 'PickPlaceCan', available: Lift"),
        ({"env_kwargs": {"robots": ["Panda"], "soup": 1}}, "robosuite refuses env_kwargs: .*soup"),
        ({"env_kwargs": "soup"}, "expected env_kwargs as an object"),
        ({"env_kwargs": {"control_freq": "fast"}}, "expected control_freq as a number, got 'fast'"),
        ({"observations": ["soup"]}, r"unknown observation of robomimic/Lift: got 'soup', available: .*robot0_eef_pos"),
        ({"observations": 3}, "expected observations as a list of keys"),
        ({"horizon": 0}, "expected horizon >= 1"),
    ],
)
def test_settings_that_fit_no_task_are_refused(settings, message):
    with pytest.raises(OneStrideError, match=message):
        make(LIFT, settings)


def test_a_state_of_another_model_is_refused(lift):
    with pytest.raises(OneStrideError, match=r"expected a state of shape \(32,\), got \(5,\)"):
        lift.restore(np.zeros(5))
    with pytest.raises(OneStrideError, match="model file: expected XML"):
        lift.restore(np.zeros(32), "soup")


def test_without_robosuite_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(OneStrideError, match=r"Lift needs robosuite: pip install --no-deps -r requirements/stage2.txt"):
        make(LIFT)


def test_names_are_known_without_the_simulator():
    code = (
        "import sys; from onestride.training.environments.registry import canonical, interface;"
        "assert canonical('robomimic/Can') and canonical('safe/AntVelocity') and interface('robomimic/Lift') is None;"
        "sys.exit(bool({'robosuite', 'gymnasium', 'mujoco', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

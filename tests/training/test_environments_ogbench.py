"""OGBench's tasks behind our interface: official measures, and episodes that only their seed and actions decide."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from onestride.hardware.errors import OneStrideError

pytest.importorskip("ogbench", reason="needs the extra `sim`")

from onestride.training.environments.ogbench import KINDS, canonical
from onestride.training.environments.registry import interface, make, patterns, settings_of

CUBE = "ogbench/cube-double-play-singletask-task2-v0"
SCENE = "ogbench/scene-play-singletask-task4-v0"
PUZZLE = "ogbench/puzzle-3x3-play-singletask-task1-v0"
ANT = "ogbench/antmaze-medium-navigate-singletask-task1-v0"
TELEPORT = "ogbench/pointmaze-teleport-navigate-singletask-v0"
TASKS = (CUBE, SCENE, PUZZLE, ANT, TELEPORT)


def episode(environment, seed: int, actions: np.ndarray) -> list[tuple[bytes, float, bool, bool, bool]]:
    """Everything that an episode says, observations to the bit; of the start the simulation's whole state."""
    first = environment.reset(seed).tobytes()
    start = environment.state().tobytes() if hasattr(environment, "state") else b""
    said = [(first + start, 0.0, False, False, False)]
    for action in actions:
        step = environment.step(action)
        said.append((step.observation.tobytes(), step.reward, step.terminal, step.cut, step.success))
    return said


def disturb(environment, rng: np.random.Generator) -> None:
    """Leave as much behind as an episode can, and more."""
    environment.reset(77)
    inner = environment.inner
    if hasattr(inner, "_cur_button_states"):
        inner._cur_button_states = 1 - inner._cur_button_states
        inner._apply_button_states()
    for action in rng.uniform(-1, 1, (20, environment.action_dim)):
        environment.step(action)
    inner.data.qpos[:] += 0.01
    inner.data.qvel[:] = 1.0
    inner.data.ctrl[:] = 0.5
    inner.data.qacc_warmstart[:] = 3.0
    np.random.seed(int(rng.integers(1 << 30)))


@pytest.mark.parametrize("name", TASKS)
def test_seed_and_actions_are_the_episode_whatever_ran_before(name):
    rng = np.random.default_rng(0)
    environment = make(name)
    actions = rng.uniform(-1, 1, (60, environment.action_dim))
    actions[:25, 2:3] = -1.0  # down, where the buttons are
    first = episode(environment, 5, actions)
    assert episode(environment, 6, actions)[0] != first[0], "another seed is another start"
    disturb(environment, rng)
    assert episode(environment, 5, actions) == first
    environment.close()
    fresh = make(name)
    assert episode(fresh, 5, actions) == first
    fresh.close()


def test_teleports_lead_where_the_seed_says():
    environment = make(TELEPORT)
    inner = environment.inner  # type: ignore[attr-defined]

    def exits(seed: int) -> list[tuple[float, ...]]:
        environment.reset(seed)
        found = []
        for _ in range(8):
            inner.set_xy(np.array(inner._teleport_info["teleport_in_xys"][0]))
            environment.step(np.zeros(2))
            found.append(tuple(inner.get_xy().tolist()))
        return found

    first = exits(1)
    np.random.seed(3)
    assert exits(1) == first
    assert len(set(first)) > 1
    assert any(exits(seed) != first for seed in (2, 3))
    environment.close()


@pytest.mark.parametrize("name", TASKS)
def test_others_who_draw_from_the_global_generator_are_not_disturbed(name):
    environment = make(name)
    np.random.seed(11)
    environment.reset(0)
    environment.step(np.zeros(environment.action_dim))
    drawn = np.random.random(4)
    environment.close()
    np.random.seed(11)
    np.testing.assert_array_equal(drawn, np.random.random(4))


@pytest.mark.parametrize("name", TASKS)
def test_sizes_and_horizon_are_the_packages(name):
    import ogbench

    official: Any = ogbench.make_env_and_datasets(name.removeprefix("ogbench/"), env_only=True)
    environment = make(name)
    first = environment.reset(0)
    assert official.observation_space.shape == first.shape == (environment.observation_dim,)
    assert official.action_space.shape == (environment.action_dim,)
    np.testing.assert_array_equal(official.action_space.low, -np.ones(environment.action_dim))
    np.testing.assert_array_equal(official.action_space.high, np.ones(environment.action_dim))
    assert environment.horizon == official.spec.max_episode_steps
    assert environment.name == "ogbench/" + official.spec.id
    official.close()
    environment.close()


def test_the_reward_of_a_step_counts_misplaced_cubes_before_it():
    environment = make(CUBE)
    environment.reset(2)
    inner = environment.inner  # type: ignore[attr-defined]
    goals = inner.data.mocap_pos.copy()
    put_on(inner, 0, goals[0])
    step = environment.step(np.zeros(5))
    assert (step.reward, step.terminal, step.cut, step.success) == (-1.0, False, False, False)
    put_on(inner, 1, goals[1] + [0.03, 0.0, 0.0])
    step = environment.step(np.zeros(5))
    assert (step.reward, step.terminal, step.cut, step.success) == (0.0, True, False, True)
    environment.close()


def put_on(inner, block: int, place: np.ndarray) -> None:
    """A cube, as if it had been put there and seen there."""
    inner.data.joint(f"object_joint_{block}").qpos[:3] = place
    inner.pre_step()
    inner.post_step()


def test_a_maze_ends_within_half_a_metre_of_its_goal():
    environment = make(ANT)
    environment.reset(0)
    inner = environment.inner  # type: ignore[attr-defined]
    assert environment.step(np.zeros(8)).reward == -1.0
    inner.set_xy(np.add(inner.cur_goal_xy, [0.6, 0.0]))
    assert not environment.step(np.zeros(8)).success
    inner.set_xy(np.add(inner.cur_goal_xy, [0.4, 0.0]))
    step = environment.step(np.zeros(8))
    assert (step.reward, step.terminal, step.cut, step.success) == (0.0, True, False, True)
    environment.close()


def test_an_episode_is_cut_at_the_horizon():
    environment = make(TELEPORT)
    environment.reset(0)
    steps = [environment.step(np.zeros(2)) for _ in range(environment.horizon)]
    assert [step.cut for step in steps] == [False] * (environment.horizon - 1) + [True]
    assert not any(step.terminal for step in steps)
    environment.close()


def test_the_package_knows_every_name_of_ours():
    import gymnasium
    import ogbench  # noqa: F401 - registers them

    for kind, ways in KINDS.items():
        for task in ("", *(f"-task{number}" for number in range(1, 6))):
            name = f"ogbench/{kind}-singletask{task}-v0"
            assert name.removeprefix("ogbench/") in gymnasium.registry
            assert canonical(name) == name
            assert {canonical(f"ogbench/{kind}-{way}-singletask{task}-v0") for way in ways} == {name}


@pytest.mark.parametrize(
    "name",
    [
        "ogbench/cube-single-navigate-singletask-v0",
        "ogbench/antmaze-medium-play-singletask-v0",
        "ogbench/cube-single-singletask-task6-v0",
        "ogbench/cube-single-v0",
        "cube-single-singletask-v0",
        "ogbench/",
    ],
)
def test_other_names_are_refused_with_those_that_exist(name):
    assert interface(name) is None
    with pytest.raises(OneStrideError, match="unknown environment") as refused:
        make(name)
    assert all(pattern in str(refused.value) for pattern in patterns())


def test_only_cubes_are_stated_in_robot_terms():
    stated = interface(CUBE)
    assert stated is not None
    assert stated == interface("ogbench/cube-double-singletask-v0")
    assert len(stated.observation_names) == 37
    assert [interface(name) for name in TASKS[1:]] == [None] * 4


def test_settings_are_refused():
    with pytest.raises(OneStrideError, match="expected no settings, its name says all, got camera"):
        make(CUBE, {"camera": "front"})


def test_a_store_says_what_its_environment_was_made_with(tmp_path):
    from onestride.datasets.provenance import Provenance
    from onestride.datasets.schema import Feature, Schema
    from onestride.datasets.store import Store

    action = Feature(name="action", role="action", shape=(1,), dtype="float32")
    schema = Schema(features=(action,), control_rate=20.0, label="action", label_source="human")
    silent = Store.create(tmp_path / "silent.zarr", schema, Provenance.now("test"))
    assert settings_of(silent) is None
    told = Provenance.now("test", extra={"env_args": {"env_name": "Lift"}})
    assert settings_of(Store.create(tmp_path / "told.zarr", schema, told)) == {"env_name": "Lift"}


def test_asking_for_names_imports_no_simulator():
    code = (
        "import sys; from onestride.training.environments import registry as r; r.patterns();"
        f"r.interface({CUBE!r}); r.canonical({ANT!r});"
        "print(sorted({'mujoco', 'gymnasium', 'ogbench', 'robosuite', 'dm_control', 'torch'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"

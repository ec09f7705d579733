"""Rewards of a single task are the package's own, for play data that never saw the task."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from play_samples import write_official

from onestride.hardware.errors import OneStrideError

pytest.importorskip("ogbench", reason="needs the extra `sim`")

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.training import rewards
from onestride.training.collection import Collection, collect
from onestride.training.environments.registry import make
from onestride.training.play import Play, play
from onestride.training.rewards import outcomes

SIZES = {"cube-double": (28, 26, 0), "scene": (25, 24, 2), "puzzle-3x3": (23, 23, 9), "antmaze-medium": (15, 14, 0)}
"""Kind -> sizes of qpos, qvel and button states."""
TASKS = {
    "cube-double": "ogbench/cube-double-play-singletask-task2-v0",
    "scene": "ogbench/scene-play-singletask-task1-v0",
    "puzzle-3x3": "ogbench/puzzle-3x3-play-singletask-v0",
    "antmaze-medium": "ogbench/antmaze-medium-navigate-singletask-task3-v0",
}


def states(kind: str, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Made-up states in which each object is at the task's goal, or just not, about as often as not."""
    positions, velocities, buttons = SIZES[kind]
    made = make(TASKS[kind])
    made.reset(0)
    inner = made.inner  # type: ignore[attr-defined]
    qpos = rng.normal(0, 0.05, (rows, positions))
    known = {"state.qpos": qpos, "state.qvel": np.zeros((rows, velocities))}
    if "maze" in kind:
        qpos[:, :2] = np.array(inner.cur_goal_xy) + rng.normal(0, 0.4, (rows, 2))
    else:
        for block, goal in enumerate(inner.data.mocap_pos):
            qpos[:, 14 + 7 * block : 17 + 7 * block] = goal + rng.normal(0, 0.02, (rows, 3))
    if kind == "scene":
        ajar = (inner._target_drawer_pos, inner._target_window_pos)
        qpos[:, -2:] = rng.normal(ajar, 0.02, (rows, 2))
    if buttons:
        changed = rng.random((rows, buttons)) < 0.5 / buttons
        known["state.button_states"] = (inner._target_button_states + changed) % 2
    made.close()
    return known


def store_of(kind: str, path: Path, seed: int = 0) -> Store:
    """Three episodes of such states, in the format of play data."""
    rng = np.random.default_rng(seed)
    parts = [states(kind, rng, length + 1) for length in (40, 25, 60)]
    dtypes = {"state.qpos": "float32", "state.qvel": "float32", "state.button_states": "int64"}
    features = [Feature(name="observation", role="observation", shape=(2,), dtype="float32")]
    features += [Feature(name="action", role="action", shape=(2,), dtype="float32")]
    features += [Feature(name="terminal", role="terminal", shape=(), dtype="bool")]
    for name, rows in parts[0].items():
        features.append(Feature(name=name, role="state", shape=rows.shape[1:], dtype=dtypes[name]))
    environment = f"ogbench/{kind}-v0"
    schema = Schema(
        features=tuple(features), control_rate=20.0, label="action", label_source="oracle", environment=environment
    )
    store = Store.create(path, schema, Provenance.now("test", environment=environment))
    store.append([_episode(part, schema) for part in parts])
    return store


def _episode(rows: dict[str, np.ndarray], schema: Schema) -> Episode:
    length = len(rows["state.qpos"]) - 1
    cast = {name: values.astype(schema.feature(name).dtype) for name, values in rows.items()}
    empty = {name: np.zeros((length, 2), np.float32) for name in ("observation", "action")}
    terminal = np.arange(length) == length - 1
    data = empty | {"terminal": terminal} | {name: values[:-1] for name, values in cast.items()}
    final = {"observation": np.zeros(2, np.float32)} | {name: values[-1] for name, values in cast.items()}
    return Episode(data=data, timestamps={"base": synthetic_clock(length, 20.0)}, final=final)


def official(store: Store, task: str, folder: Path) -> dict[str, np.ndarray]:
    """What the package's loader makes of the same data for a task."""
    import ogbench

    file = write_official(store, folder / "official.npz")
    name = task.removeprefix("ogbench/")
    made: Any = ogbench.make_env_and_datasets(name, dataset_path=str(file))
    return made[1]


@pytest.mark.parametrize("kind", SIZES)
def test_rewards_and_masks_are_the_packages_own(kind, tmp_path):
    store = store_of(kind, tmp_path / "states.zarr")
    expected, found = official(store, TASKS[kind], tmp_path), outcomes(store, TASKS[kind])
    assert found is not None
    np.testing.assert_array_equal(found.rewards, expected["rewards"])
    np.testing.assert_array_equal(found.masks, expected["masks"])
    assert found.rewards.dtype == found.masks.dtype == np.float32
    assert len(found.rewards) == store.num_steps
    assert len(np.unique(found.rewards)) > 1
    assert 0 < found.masks.mean() < 1


@pytest.mark.parametrize("kind", ["cube-double", "puzzle-3x3"])
def test_of_regenerated_play_too(kind, tmp_path):
    play(Play(f"ogbench/{kind}-play", steps=150), tmp_path / "play.zarr", 2)
    store = Store.open(tmp_path / "play.zarr")
    for number in (1, 2, 5):
        task = f"ogbench/{kind}-play-singletask-task{number}-v0"
        expected, found = official(store, task, tmp_path), outcomes(store, task)
        assert found is not None
        np.testing.assert_array_equal(found.rewards, expected["rewards"])
        np.testing.assert_array_equal(found.masks, expected["masks"])


def test_in_cubes_the_reward_is_minus_the_misplaced(tmp_path):
    store = store_of("cube-double", tmp_path / "states.zarr")
    found = outcomes(store, TASKS["cube-double"])
    assert found is not None
    goals = np.array([[0.35, 0.1, 0.02], [0.50, 0.1, 0.02]])  # task 2
    cubes = np.stack([store.read("state.qpos")[:, start : start + 3] for start in (14, 21)], axis=1)
    misplaced = (np.linalg.norm(cubes - goals, axis=-1) > 0.04).sum(axis=1)
    np.testing.assert_array_equal(found.rewards, -misplaced)
    np.testing.assert_array_equal(found.masks, misplaced > 0)


def test_of_an_episode_in_the_task_they_are_those_the_environment_gave(tmp_path):
    """Recorded in task 2 and relabelled for task 2: step for step what the environment said while it ran."""
    task = "ogbench/cube-single-singletask-task2-v0"
    collect(Collection(task, noise=0.1), tmp_path / "task.zarr", 2)
    recorded = Store.open(tmp_path / "task.zarr")
    assert outcomes(recorded, task) is None, "those recorded count"
    again = rewards._relabelled(recorded.path, recorded.dataset_id, task)
    np.testing.assert_array_equal(again.rewards, recorded.read("reward"))
    np.testing.assert_array_equal(again.masks == 0, recorded.read("terminal"))
    assert again.rewards.max() == 0


def test_another_task_is_relabelled_where_rewards_are_recorded(tmp_path):
    collect(Collection("ogbench/cube-single-singletask-task2-v0"), tmp_path / "task.zarr", 1)
    found = outcomes(Store.open(tmp_path / "task.zarr"), "ogbench/cube-single-singletask-task4-v0")
    assert found is not None
    assert (found.rewards == -1).all()


def test_blocks_do_not_show(tmp_path, monkeypatch):
    store = store_of("scene", tmp_path / "states.zarr")
    whole = outcomes(store, TASKS["scene"])
    rewards._relabelled.cache_clear()
    monkeypatch.setattr(rewards, "BLOCK", 7)
    parts = outcomes(store, TASKS["scene"])
    assert whole is not None
    assert parts is not None
    np.testing.assert_array_equal(whole.rewards, parts.rewards)
    np.testing.assert_array_equal(whole.masks, parts.masks)


def test_a_grown_store_is_computed_anew(tmp_path):
    store = store_of("puzzle-3x3", tmp_path / "states.zarr")
    first = outcomes(store, TASKS["puzzle-3x3"])
    assert outcomes(store, TASKS["puzzle-3x3"]) is first
    store.append([_episode(states("puzzle-3x3", np.random.default_rng(9), 11), store.schema)])
    second = outcomes(store, TASKS["puzzle-3x3"])
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(second.rewards[:-10], first.rewards)
    assert not second.rewards.flags.writeable


def test_what_does_not_fit_is_refused_and_what_is_recorded_counts_elsewhere(tmp_path):
    store = store_of("cube-double", tmp_path / "states.zarr")
    assert outcomes(store, "gymnasium/HalfCheetah-v5") is None
    for wrong in ("ogbench/cube-triple-play-singletask-v0", TASKS["scene"], TASKS["antmaze-medium"]):
        with pytest.raises(OneStrideError, match=r"expected data of .* got data of ogbench/cube-double-v0"):
            outcomes(store, wrong)


def test_without_states_recorded_rewards_of_another_task_are_no_answer(tmp_path):
    store = store_of("cube-double", tmp_path / "states.zarr")
    bare = tuple(one for one in store.schema.features if one.role != "state")
    reward = Feature(name="reward", role="reward", shape=(), dtype="float32")
    silent = _without_states(store, bare, tmp_path / "silent.zarr")
    assert outcomes(silent, TASKS["cube-double"]) is None
    paid = _without_states(store, (*bare, reward), tmp_path / "paid.zarr")
    with pytest.raises(OneStrideError, match=r"expected rewards of .*task2-v0, got those of .*state.qpos"):
        outcomes(paid, TASKS["cube-double"])


def _without_states(store: Store, features: tuple[Feature, ...], path: Path) -> Store:
    schema = store.schema.model_copy(update={"features": features})
    made, episode = Store.create(path, schema, store.provenance), store.read_episode(0)
    data = {one.name: episode.data.get(one.name, np.zeros(episode.length, one.dtype)) for one in features}
    kept = {name: value for name, value in episode.final.items() if name == "observation"}
    made.append([dataclasses.replace(episode, data=data, final=kept)])
    return made

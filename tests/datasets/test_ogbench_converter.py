"""OGBench's npz, both ways, against the package's own loader and relabelling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import JsonValue

from onestride.datasets.converters import Options, convert
from onestride.datasets.converters.ogbench_environment import environment_of, rate_of
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
SameEpisode = Callable[[Episode, Episode], bool]
NAME = "cube-double-play-v0"
SAVE: Any = np.savez
TASK = "cube-double-play-singletask-task2-v0"


def arrays(trajectories: int, rows: int, seed: int) -> dict[str, np.ndarray]:
    """Arrays of the form that OGBench publishes, with cubes that are now and then where task 2 wants them."""
    random = np.random.default_rng(seed)
    count = trajectories * rows
    qpos = random.normal(size=(count, 28)).astype(np.float32)
    goals = np.array([[0.35, 0.1, 0.02], [0.5, 0.1, 0.02], [0.425, 0.0, 0.02]], np.float32)
    qpos[:, 14:17], qpos[:, 21:24] = goals[random.integers(3, size=count)], goals[random.integers(3, size=count)]
    terminals = np.zeros(count, bool)
    terminals[rows - 1 :: rows] = True
    return {
        "observations": random.normal(size=(count, 37)).astype(np.float32),
        "actions": random.uniform(-1, 1, size=(count, 5)).astype(np.float32),
        "terminals": terminals,
        "qpos": qpos,
        "qvel": random.normal(size=(count, 26)).astype(np.float32),
        "button_states": random.integers(2, size=(count, 2)),
    }


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A dataset and its validation part, compressed as the package does it."""
    folder = tmp_path / "published"
    folder.mkdir()
    save: Any = np.savez_compressed
    save(folder / f"{NAME}.npz", **arrays(6, 31, 0))
    save(folder / f"{NAME}-val.npz", **arrays(2, 31, 1))
    return folder / f"{NAME}.npz"


def test_the_store_holds_what_the_packages_loader_sees(published: Path, tmp_path: Path) -> None:
    ogbench = pytest.importorskip("ogbench", reason="needs the extra `sim`")
    report = convert(published, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert (report.format, store.num_episodes, store.num_steps) == ("OGBench npz", 8, 8 * 30)
    loaded = [
        ogbench.load_dataset(str(published.with_name(f"{NAME}{part}.npz")), add_info=True) for part in ("", "-val")
    ]
    names = {
        "observations": "observation",
        "actions": "action",
        "terminals": "terminal",
        "qpos": "state.qpos",
        "qvel": "state.qvel",
        "button_states": "state.button_states",
    }
    for key, name in names.items():
        expected = np.concatenate([one[key] for one in loaded])
        np.testing.assert_array_equal(store.read(name).astype(expected.dtype), expected, err_msg=key)
    following = np.concatenate([np.vstack([e.data["observation"][1:], e.final["observation"]]) for e in _all(store)])
    np.testing.assert_array_equal(following, np.concatenate([one["next_observations"] for one in loaded]))
    assert [info.attributes["split"] for info in store.episodes] == [["train"]] * 6 + [["val"]] * 2
    assert (store.schema.environment, store.schema.control_rate) == ("ogbench/cube-double-v0", 20.0)
    assert store.schema.feature("observation").names == ()
    assert len(store.provenance.sources) == 2


def test_rewards_and_masks_are_those_of_the_package(published: Path, tmp_path: Path) -> None:
    ogbench = pytest.importorskip("ogbench", reason="needs the extra `sim`")
    convert(published, tmp_path / "s", options=Options(environment=TASK))
    store = Store.open(tmp_path / "s")
    environment, *loaded = ogbench.make_env_and_datasets(TASK, dataset_path=str(published))
    environment.close()
    for key, name in (("rewards", "reward"), ("masks", "mask")):
        expected = np.concatenate([one[key] for one in loaded])
        assert len(set(expected)) > 1, "the sample must show both"
        np.testing.assert_array_equal(store.read(name), expected)
    assert store.schema.environment == "ogbench/cube-double-singletask-task2-v0"
    assert all(info.attributes["success"] in (True, False) for info in store.episodes)
    report = convert(store.path, tmp_path / f"{NAME}.npz")
    assert any("reward" in line and "computes it again" in line for line in report.left_out)
    assert "rewards" not in np.load(tmp_path / f"{NAME}.npz")


def _all(store: Store) -> list[Episode]:
    return [store.read_episode(number) for number in range(store.num_episodes)]


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_npz_to_store_to_npz_is_the_same_to_the_bit(published: Path, tmp_path: Path, kind: Any) -> None:
    content = dict(np.load(published))
    SAVE(published, **{**content, "terminals": content["terminals"].astype(kind)})
    beside = published.with_name(f"{NAME}-val.npz")
    validation = dict(np.load(beside))
    SAVE(beside, **{**validation, "terminals": validation["terminals"].astype(kind)})
    convert(published, tmp_path / "s")
    convert(tmp_path / "s", tmp_path / "again.npz")
    for source, part in ((published, ""), (beside, "-val")):
        before, after = np.load(source), np.load(tmp_path / f"again{part}.npz")
        assert set(after.files) - set(before.files) == {"onestride.json"}
        for key in before.files:
            assert (before[key].dtype, before[key].shape) == (after[key].dtype, after[key].shape)
            assert before[key].tobytes() == after[key].tobytes(), key


def test_the_same_store_makes_the_same_bytes(published: Path, tmp_path: Path) -> None:
    convert(published, tmp_path / "s")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        convert(tmp_path / "s", tmp_path / name / "x.npz")
    assert (tmp_path / "a" / "x.npz").read_bytes() == (tmp_path / "b" / "x.npz").read_bytes()


def test_store_to_npz_to_store_is_the_same_to_the_bit(
    store: Store, make_episode: MakeEpisode, same_episode: SameEpisode, tmp_path: Path
) -> None:
    """Two observations of different types in one array, rewards, a measured clock, a terminal in the middle."""
    kept = tuple(one for one in store.schema.features if one.stream == "base")
    more = kept[0].model_copy(update={"name": "force", "dtype": "float64"})
    schema = store.schema.model_copy(update={"features": (*kept, more)})
    whole = Store.create(tmp_path / "whole", schema, Provenance.now("test"))
    for number in range(4):
        episode = make_episode(number, length=5 + number)
        data = {one.name: episode.data[one.name] for one in kept}
        data["force"] = np.random.default_rng(number).normal(size=(5 + number, 3))
        clock = episode.timestamps["base"] + np.arange(5 + number) ** 2
        after = {**episode.final, "force": np.ones(3)}
        split: JsonValue = ["val"] if number == 3 else []
        whole.append([Episode(data, {"base": clock}, after, {**episode.attributes, "split": split})])
    report = convert(whole.path, tmp_path / "x.npz")
    assert any("terminals marks the ends" in line for line in report.changed)
    loaded = np.load(tmp_path / "x.npz")
    assert (loaded["observations"].shape, loaded["observations"].dtype) == ((6 + 7 + 8, 6), np.float64)
    convert(tmp_path / "x.npz", tmp_path / "back")
    back = Store.open(tmp_path / "back")
    assert back.schema == whole.schema
    for number in range(4):
        assert same_episode(back.read_episode(number), whole.read_episode(number)), number


def test_names_that_collide_keep_an_array_each(
    store: Store, make_episode: MakeEpisode, same_episode: SameEpisode, tmp_path: Path
) -> None:
    """Features that are called as OGBench calls others, and a terminal in the middle of an episode."""
    position, _, action, reward, _, _ = store.schema.features
    names = ("state.qpos", "qpos", "actions", "observations", "rewards", "timestamps_ns", "info.actions")
    more = tuple(position.model_copy(update={"name": name, "role": "info"}) for name in names)
    terminal = reward.model_copy(update={"name": "terminals", "role": "terminal"})
    schema = store.schema.model_copy(update={"features": (position, *more, action, reward, terminal)})
    whole = Store.create(tmp_path / "whole", schema, Provenance.now("test"))
    known = make_episode(1, length=5)
    data = {one.name: np.full((5, *one.shape), number, one.dtype) for number, one in enumerate(schema.features)}
    data["terminals"] = np.array([0, 0, 1, 0, 0], np.float32)
    whole.append([Episode(data, {"base": known.timestamps["base"]}, known.final, {"split": ["train"]})])
    convert(whole.path, tmp_path / "x.npz")
    loaded = np.load(tmp_path / "x.npz")
    assert len(set(loaded.files)) == len(loaded.files)
    for key, name in (("observations", "position"), ("actions", "action"), ("rewards", "reward")):
        np.testing.assert_array_equal(loaded[key][:-1], data[name], err_msg=key)
    convert(tmp_path / "x.npz", tmp_path / "back")
    assert same_episode(Store.open(tmp_path / "back").read_episode(0), whole.read_episode(0))


def test_left_out_of_our_own_file_is_told_and_unknown_names_are_refused(published: Path, tmp_path: Path) -> None:
    convert(published, tmp_path / "s")
    convert(tmp_path / "s", tmp_path / "ours.npz")
    report = convert(tmp_path / "ours.npz", tmp_path / "back", options=Options(leave_out=("state.qvel",)))
    assert report.left_out == ["state.qvel: as asked for"]
    assert "state.qvel" not in [one.name for one in Store.open(tmp_path / "back").schema.features]
    for name in ("nosuch", "action"):
        with pytest.raises(OneStrideError, match=f"feature to leave out: got '{name}', available: observation"):
            convert(tmp_path / "ours.npz", tmp_path / "other", options=Options(leave_out=(name,)))


def test_an_unknown_last_observation_costs_the_last_transition(
    store: Store, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    ogbench = pytest.importorskip("ogbench", reason="needs the extra `sim`")
    store.append([make_episode(number, length=6, final=False) for number in range(2)])
    store.append([make_episode(9, length=1, final=False)])
    with pytest.raises(OneStrideError, match="expected a row of stream 'video'"):
        convert(store.path, tmp_path / "x.npz", options=Options(leave_out=("position",)))
    report = convert(store.path, tmp_path / "x.npz", options=Options(leave_out=("camera",)))
    assert any("3 episodes do not know" in line for line in report.changed)
    assert any("1 episodes of a single step" in line for line in report.left_out)
    loaded = ogbench.load_dataset(str(tmp_path / "x.npz"))
    assert loaded["observations"].shape == (10, 3)
    episodes = [store.read_episode(number).data["position"] for number in range(2)]
    np.testing.assert_array_equal(loaded["next_observations"], np.concatenate([one[1:] for one in episodes]))


def _edited(path: Path, **changes: Any) -> None:
    content = {**dict(np.load(path)), **changes}
    SAVE(path, **{key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"actions": None}, "got no actions"),
        ({"observations": np.zeros((5, 2))}, "observations: expected 186 rows as in actions, got 5"),
        ({"terminals": np.zeros(186, bool)}, "expected the last row to end a trajectory, got 186 rows after"),
        ({"terminals": np.full(186, 2.0)}, "terminals: expected 0 or 1, got 2.0 in row 0"),
        ({"terminals": np.zeros((186, 1))}, r"terminals: expected \(N,\) numbers"),
        ({"actions": np.full((186, 5), np.nan)}, "expected finite"),
        ({"observations": np.full((186, 5), np.inf)}, "expected finite"),
        ({"actions": np.array(["x"] * 186)}, "expected usable features"),
    ],
)
def test_a_spoilt_file_is_one_error(published: Path, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    _edited(published, **changes)
    published.with_name(f"{NAME}-val.npz").unlink()
    with pytest.raises(OneStrideError, match=says) as caught:
        convert(published, tmp_path / "s")
    assert str(caught.value).startswith(str(published))
    assert not (tmp_path / "s").exists()


def test_pickled_arrays_are_refused(published: Path, tmp_path: Path) -> None:
    SAVE(published, **{**dict(np.load(published)), "notes": np.array([{"a": 1}] * 186, dtype=object)})
    with pytest.raises(OneStrideError, match="notes: expected rows of plain values"):
        convert(published, tmp_path / "s")


def test_what_does_not_fit_is_told(published: Path, tmp_path: Path) -> None:
    _edited(published, version=np.zeros(3), words=np.array(["x"] * 186))
    published.with_name(f"{NAME}-val.npz").unlink()
    report = convert(published, tmp_path / "s")
    text = "\n".join(report.left_out)
    for told in ("version: 3 rows, not 186", "words: <U1, no numbers", "-val.npz: not there"):
        assert told in text


def test_an_unknown_task_lists_the_known_ones(published: Path, tmp_path: Path) -> None:
    pytest.importorskip("ogbench", reason="needs the extra `sim`")
    with pytest.raises(OneStrideError, match=r"available: .*cube-double-singletask-task1-v0"):
        convert(published, tmp_path / "s", options=Options(environment="cube-double-play-singletask-task9-v0"))
    with pytest.raises(OneStrideError, match="expected the state of this environment"):
        convert(published, tmp_path / "s", options=Options(environment="puzzle-3x3-play-singletask-task1-v0"))


@pytest.mark.parametrize(
    ("stem", "environment", "rate"),
    [
        ("cube-double-play-v0", "ogbench/cube-double-v0", 20.0),
        ("cube-double-play-v0-val", "ogbench/cube-double-v0", 20.0),
        ("visual-scene-noisy-v0", "ogbench/visual-scene-v0", 20.0),
        ("humanoidmaze-medium-navigate-v0", "ogbench/humanoidmaze-medium-v0", 40.0),
        ("antsoccer-arena-stitch-v0", "ogbench/antsoccer-arena-v0", 10.0),
        ("powderworld-easy-play-v0", "ogbench/powderworld-easy-v0", None),
        ("my-own-data-v0", None, None),
        ("x", None, None),
    ],
)
def test_names_say_the_environment(stem: str, environment: str | None, rate: float | None) -> None:
    assert (environment_of(stem), rate_of(environment)) == (environment, rate)


def test_rates_are_those_of_the_package() -> None:
    pytest.importorskip("ogbench", reason="needs the extra `sim`")
    gymnasium = pytest.importorskip("gymnasium")
    for name in ("cube-single-v0", "pointmaze-medium-v0", "antmaze-medium-v0", "humanoidmaze-medium-v0"):
        environment = gymnasium.make(name)
        inner = environment.unwrapped
        seconds = inner.dt if hasattr(inner, "dt") else inner._control_timestep
        assert rate_of(f"ogbench/{name}") == pytest.approx(1 / seconds), name
        environment.close()

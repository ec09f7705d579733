"""LeRobot v3.0 as we write it: loaded by the real `lerobot`, and brought back to the bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real_lerobot import lerobot_dataset

from onestride.datasets.converters import Options, convert
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import DTYPES, Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra `lerobot`")
av = pytest.importorskip("av", reason="needs the extra `lerobot`")

Same = Callable[[Episode, Episode], bool]


def _feature(name: str, role: Any, shape: tuple[int, ...], dtype: str, **more: Any) -> Feature:
    return Feature(name=name, role=role, shape=shape, dtype=dtype, **more)


FEATURES = (
    _feature("observation.state", "observation", (3,), "float32", names=("x", "y", "z"), units=("m",) * 3),
    _feature("wrist", "observation", (6, 8, 3), "uint8"),
    _feature("gripper", "observation", (1,), "float64"),
    _feature("action", "action", (2,), "float32", names=("dx", "dy")),
    _feature("action_executed", "action", (2,), "float32"),
    _feature("reward", "reward", (), "float32"),
    _feature("done", "terminal", (), "bool"),
    _feature("state.inertia", "state", (2, 2), "float64"),
    _feature("count", "info", (), "int64"),
)


def _schema(*features: Feature, rate: float | None = 20.0) -> Schema:
    return Schema(features=features, control_rate=rate, label="action", label_source="human", robot="arm")


def _rows(feature: Feature, length: int, random: np.random.Generator) -> np.ndarray:
    if feature.dtype == "uint8":
        return random.integers(0, 256, (length, *feature.shape), np.uint8)
    return (random.normal(size=(length, *feature.shape)) * 3).astype(feature.dtype)


def _episode(schema: Schema, number: int, length: int) -> Episode:
    random = np.random.default_rng(number)
    clock = synthetic_clock(length, 20.0) + random.integers(0, 999, length)
    return Episode(
        data={one.name: _rows(one, length, random) for one in schema.features},
        timestamps={"base": clock},
        final={"observation.state": random.normal(size=3).astype(np.float32)} if number else {},
        attributes={"task": f"task {number % 2}", "success": bool(number % 2), "note": "ünder\nway"},
    )


@pytest.fixture
def toy(tmp_path: Path) -> Store:
    schema = _schema(*FEATURES)
    store = Store.create(tmp_path / "toy", schema, Provenance.now("test"))
    store.append([_episode(schema, number, length) for number, length in enumerate((5, 1, 7))])
    return store


def test_the_real_lerobot_loads_every_value(toy: Store, tmp_path: Path) -> None:
    report = convert(toy.path, tmp_path / "out", to="lerobot")
    assert (report.episodes, report.steps, report.to) == (3, 13, "lerobot")
    dataset = lerobot_dataset().LeRobotDataset("onestride/toy", root=tmp_path / "out")
    assert (len(dataset), dataset.num_episodes, dataset.fps) == (13, 3, 20)
    assert dataset.meta.camera_keys == ["observation.images.wrist"]
    columns = {
        "observation.state": "observation.state",
        "observation.gripper": "gripper",
        "action": "action",
        "info.action_executed": "action_executed",
        "next.reward": "reward",
        "next.done": "done",
        "state.inertia": "state.inertia",
        "count": "count",
    }
    raw = dataset.hf_dataset.with_format(None)
    index = 0
    for number in range(3):
        episode = toy.read_episode(number)
        for step in range(episode.length):
            item = dataset[index]
            for theirs, ours in columns.items():
                value, expected = item[theirs].numpy(), episode.data[ours][step]
                np.testing.assert_array_equal(raw[index][theirs], expected, err_msg=theirs)
                # torch makes float32 of Python's numbers, whatever a file holds.
                kept = expected.astype(np.float32) if expected.dtype == np.float64 else expected
                assert (value.dtype, value.tobytes()) == (kept.dtype, kept.tobytes()), theirs
            pixels = np.round(item["observation.images.wrist"].numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
            np.testing.assert_array_equal(pixels, episode.data["wrist"][step])
            assert item["task"] == f"task {number % 2}"
            assert item["timestamp"].item() == np.float32(step / 20)
            assert item["timestamp_ns"].item() == episode.timestamps["base"][step]
            told = [item[key].item() for key in ("frame_index", "episode_index", "index")]
            assert told == [step, number, index]
            index += 1


def test_steps_keep_their_own_tasks(tmp_path: Path) -> None:
    """Of an episode with several, as the reader brings them over; one that says too little keeps its first."""
    schema = _schema(*FEATURES, _feature("task_index", "info", (), "int64"))
    store = Store.create(tmp_path / "toy", schema, Provenance.now("test"))
    episodes = [_episode(schema, number, 5) for number in range(3)]
    steps = ([7, 7, 2, 7, 2], [2, 2, 2, 9, 9], [1, 2, 3, 3, 3])
    named = (["place", "pick"], ["pick", "throw"], ["pick", "throw"])
    for episode, indices, tasks in zip(episodes, steps, named, strict=True):
        episode.data["task_index"] = np.array(indices)
        episode.attributes |= {"task": tasks[0], "tasks": list(tasks)}
    store.append(episodes)
    convert(store.path, tmp_path / "out", to="lerobot")
    dataset = lerobot_dataset().LeRobotDataset("onestride/toy", root=tmp_path / "out")
    found = [dataset[index]["task"] for index in range(15)]
    assert found[:5] == ["place", "place", "pick", "place", "pick"]
    assert found[5:10] == ["pick", "pick", "pick", "throw", "throw"]
    assert found[10:] == ["pick"] * 5
    assert [list(dataset.meta.episodes[number]["tasks"]) for number in range(3)] == [*named[:2], ["pick"]]
    convert(tmp_path / "out", tmp_path / "back")
    assert Store.open(tmp_path / "back").dataset_id == store.dataset_id


def test_the_real_lerobot_asks_for_chunks_and_knows_names_and_statistics(toy: Store, tmp_path: Path) -> None:
    convert(toy.path, tmp_path / "out", to="lerobot")
    library = lerobot_dataset()
    dataset = library.LeRobotDataset(
        "onestride/toy", root=tmp_path / "out", episodes=[2], delta_timestamps={"action": [0.0, 0.05, 0.1]}
    )
    last = dataset[6]
    np.testing.assert_array_equal(last["action"].numpy(), np.repeat(toy.read_episode(2).data["action"][-1:], 3, 0))
    assert last["action_is_pad"].tolist() == [False, True, True]
    assert dataset.meta.names["observation.state"] == ["x", "y", "z"]
    action, pixels = toy.read("action").astype(np.float64), toy.read("wrist") / 255
    stats = dataset.meta.stats
    assert stats["action"]["count"] == [13]
    for name, expected in (("mean", action.mean(0)), ("std", action.std(0)), ("min", action.min(0))):
        np.testing.assert_allclose(stats["action"][name], expected, rtol=1e-9)
    assert stats["observation.images.wrist"]["mean"].shape == (3, 1, 1)
    np.testing.assert_allclose(stats["observation.images.wrist"]["mean"].ravel(), pixels.mean((0, 1, 2)), rtol=1e-9)
    # The real library insists on these shapes when it merges datasets.
    rows = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    from lerobot.datasets.compute_stats import aggregate_stats

    each = [
        {
            key: {name: np.array(row[f"stats/{key}/{name}"]) for name in ("min", "max", "mean", "std", "count", "q50")}
            for key in ("action", "observation.images.wrist", "next.done")
        }
        for row in rows
    ]
    together = aggregate_stats(each)
    np.testing.assert_allclose(together["action"]["mean"], stats["action"]["mean"])
    np.testing.assert_allclose(together["action"]["std"], stats["action"]["std"])


def test_what_returns_is_what_left(toy: Store, tmp_path: Path, same_episode: Same) -> None:
    convert(toy.path, tmp_path / "out", to="lerobot")
    back = convert(tmp_path / "out", tmp_path / "back")
    store = Store.open(tmp_path / "back")
    assert back.format == "LeRobot"
    assert store.schema == toy.schema
    assert all(same_episode(toy.read_episode(number), store.read_episode(number)) for number in range(3))
    assert store.dataset_id == toy.dataset_id, "the same bytes"
    assert store.provenance.parents == (toy.dataset_id,)


SHAPES = st.lists(st.integers(1, 3), max_size=4).map(tuple)
_ARBITRARY = st.tuples(SHAPES, st.sampled_from(DTYPES), st.sampled_from(("observation", "state", "info", "mask")))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_ARBITRARY, max_size=4), st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 99))
def test_any_store_of_one_rate_returns_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    same_episode: Same,
    parts: list[tuple[tuple[int, ...], str, Any]],
    lengths: list[int],
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    masks = [number for number, (_, _, role) in enumerate(parts) if role == "mask"]
    roles = [role if role != "mask" or number == masks[0] else "info" for number, (_, _, role) in enumerate(parts)]
    others = [_feature(f"f{n}", roles[n], shape, dtype) for n, (shape, dtype, _) in enumerate(parts)]
    schema = _schema(*others, _feature("action", "action", (2,), "float64"), rate=None if seed % 3 == 0 else 12.5)
    random = np.random.default_rng(seed)
    store = Store.create(folder / "s", schema, Provenance.now("test"))
    for number, length in enumerate(lengths):
        data = {one.name: _bits(one, length, random) for one in schema.features}
        clock = np.cumsum(random.integers(1, 10**9, length + 2)).astype(np.int64)[:length]
        store.append([Episode(data, {"base": clock}, {}, {"number": number})])
    if schema.control_rate is None and max(lengths) == 1:
        return
    convert(store.path, folder / "out", to="lerobot")
    convert(folder / "out", folder / "back")
    back = Store.open(folder / "back")
    assert back.schema == schema
    assert all(same_episode(store.read_episode(n), back.read_episode(n)) for n in range(len(lengths)))


def _bits(feature: Feature, length: int, random: np.random.Generator) -> np.ndarray:
    """Every bit pattern but the infinite ones."""
    size = length * feature.size * np.dtype(feature.dtype).itemsize
    if feature.dtype == "bool":
        return random.integers(0, 2, (length, *feature.shape)).astype(bool)
    values = np.frombuffer(random.bytes(size), feature.dtype).reshape(length, *feature.shape).copy()
    if values.dtype.kind == "f":
        values[~np.isfinite(values)] = -0.0
    return values


def _camera_store(path: Path, height: int = 96, width: int = 128) -> Store:
    """Smooth moving pictures, as a camera sees them."""
    schema = _schema(
        _feature("observation.images.top", "observation", (height, width, 3), "uint8"),
        _feature("action", "action", (2,), "float32"),
        rate=30.0,
    )
    store = Store.create(path, schema, Provenance.now("test"))
    across, down = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    for number in range(2):
        waves = [np.sin(across * (1 + c) + down + 0.2 * np.arange(12)[:, None, None] + number) for c in range(3)]
        frames = np.round(127.5 * (1 + np.stack(waves, -1))).astype(np.uint8)
        data = {"observation.images.top": frames, "action": np.zeros((12, 2), np.float32)}
        store.append([Episode(data, {"base": synthetic_clock(12, 30.0)}, {}, {})])
    return store


def test_cameras_become_video_within_a_stated_psnr(tmp_path: Path) -> None:
    store = _camera_store(tmp_path / "s")
    report = convert(store.path, tmp_path / "out", to="lerobot", options=Options(codec="video"))
    assert "observation.images.top: encoded as H.264, lossy" in report.changed
    dataset = lerobot_dataset().LeRobotDataset("onestride/toy", root=tmp_path / "out")
    assert dataset.meta.video_keys == ["observation.images.top"]
    assert len(dataset) == 24
    path = tmp_path / "out" / dataset.meta.get_video_file_path(1, "observation.images.top")
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    original = store.read("observation.images.top")
    assert len(frames) == 24
    begins = [dataset.meta.episodes[n]["videos/observation.images.top/from_timestamp"] for n in range(2)]
    for index, (time, pixels) in enumerate(frames):
        # Where lerobot looks for it: within its tolerance of 1e-4 s.
        assert abs(time - (begins[index // 12] + dataset.hf_dataset[index]["timestamp"].item())) < 1e-4
        assert _psnr(pixels, original[index]) > 35
    convert(tmp_path / "out", tmp_path / "back", options=Options(codec="lossless"))
    decoded = Store.open(tmp_path / "back").read("observation.images.top")
    np.testing.assert_array_equal(decoded, np.stack([pixels for _, pixels in frames]))


def test_cameras_of_odd_size_stay_images(tmp_path: Path) -> None:
    store = _camera_store(tmp_path / "s", 95, 127)
    report = convert(store.path, tmp_path / "out", to="lerobot", options=Options(codec="video"))
    assert any("even heights and widths" in line for line in report.changed)
    convert(tmp_path / "out", tmp_path / "back")
    np.testing.assert_array_equal(
        Store.open(tmp_path / "back").read("observation.images.top"), store.read("observation.images.top")
    )


def test_other_rates_are_held_and_told(tmp_path: Path) -> None:
    schema = _schema(
        _feature("observation.state", "observation", (2,), "float32"),
        _feature("action", "action", (2,), "float32"),
        _feature("slow", "observation", (2,), "float32", stream="slow"),
    )
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    data = {name: np.arange(2 * n, dtype=np.float32).reshape(n, 2) for name, n in (("observation.state", 6),)}
    data |= {"action": data["observation.state"], "slow": np.array([[10, 11], [20, 21]], np.float32)}
    clocks = {"base": np.arange(6) * 50, "slow": np.array([100, 220])}
    store.append([Episode(data, clocks, {}, {})])
    report = convert(store.path, tmp_path / "out", to="lerobot")
    assert any("stream 'slow'" in line for line in report.changed)
    dataset = lerobot_dataset().LeRobotDataset("onestride/toy", root=tmp_path / "out")
    assert [dataset[n]["observation.slow"][0].item() for n in range(6)] == [10, 10, 10, 10, 10, 20]


def test_what_is_left_out_on_demand(toy: Store, tmp_path: Path) -> None:
    report = convert(toy.path, tmp_path / "out", to="lerobot", options=Options(leave_out=("wrist", "count")))
    assert "wrist: as asked for" in report.left_out
    convert(tmp_path / "out", tmp_path / "back", options=Options(leave_out=("observation.gripper",)))
    names = {feature.name for feature in Store.open(tmp_path / "back").schema.features}
    assert names == {feature.name for feature in FEATURES} - {"wrist", "count", "gripper"}
    with pytest.raises(OneStrideError, match="unknown column to leave out: got 'action', available: "):
        convert(tmp_path / "out", tmp_path / "no", options=Options(leave_out=("action",)))


def test_a_library_that_is_missing_is_named(toy: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other formats are still told apart without it."""
    convert(toy.path, tmp_path / "out", to="lerobot")
    ours = "onestride.datasets.converters"
    for name in [name for name in sys.modules if name.startswith((f"{ours}.lerobot", f"{ours}.mcap"))]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(ours + "." + name.rpartition(".")[2], raising=False)
    for name in ("pyarrow", "rosbags.typesys", "mcap.writer"):
        monkeypatch.setitem(sys.modules, name, None)
    for source, target in ((tmp_path / "out", "store"), (toy.path, "lerobot"), (toy.path, "mcap")):
        with pytest.raises(OneStrideError, match=r"expected the package \S+ for this format.*pip install 'onestride\["):
            convert(source, tmp_path / "no", to=target)


def test_a_rate_that_is_not_known_is_measured_or_asked_for(tmp_path: Path) -> None:
    schema = _schema(_feature("action", "action", (2,), "float32"), rate=None)
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    episode = Episode({"action": np.zeros((5, 2), np.float32)}, {"base": np.arange(5) * 40_000_000}, {}, {})
    store.append([episode])
    report = convert(store.path, tmp_path / "out", to="lerobot")
    assert json.loads((tmp_path / "out/meta/info.json").read_text())["fps"] == 25
    assert "fps: 25 Hz, the median of the measured times" in report.changed


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))

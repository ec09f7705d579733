"""The LeRobot reader against real files, against lerobot's own scripts, and against traps such files are known for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_samples import (
    CAMERA,
    FPS,
    LENGTHS,
    columns_of,
    edit_info,
    edit_rows,
    exactly,
    frames_of,
    write_v21,
)
from real_lerobot import lerobot_conversion, lerobot_dataset

from onestride.datasets.converters import convert
from onestride.datasets.store import Store

pa = pytest.importorskip("pyarrow", reason="needs the extra `lerobot`")
pq = pytest.importorskip("pyarrow.parquet")
av = pytest.importorskip("av", reason="needs the extra `lerobot`")


@pytest.fixture(scope="module")
def so101(shared_data: Path) -> Path:
    path = shared_data / "lerobot" / "v30_so101"
    if not path.is_dir():
        pytest.skip(f"no LeRobot dataset at {path}")
    return path


@pytest.fixture(scope="module")
def converted(so101: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Any]:
    path = tmp_path_factory.mktemp("so101") / "s"
    report = convert(so101, path)
    return Store.open(path), report


def test_the_real_rows_come_over_to_the_bit(so101: Path, converted: tuple[Store, Any]) -> None:
    store, report = converted
    assert (report.format, report.episodes, report.steps) == ("LeRobot", 6, 1782)
    table = pq.read_table(so101 / "data/chunk-000/file-000.parquet")
    for name in ("observation.state", "action"):
        assert store.read(name).tobytes() == np.stack(table[name].to_numpy()).tobytes()
        assert store.schema.feature(name).names == ("j0", "j1", "j2", "j3", "j4", "j5")
    np.testing.assert_array_equal(store.lengths, np.bincount(table["episode_index"].to_numpy()))
    assert store.episodes[5].attributes == {"episode_index": 5, "task": "pick and place", "split": ["train"]}
    assert (store.schema.control_rate, store.schema.label, store.schema.label_source) == (30.0, "action", "unknown")
    assert store.provenance.extra["robot_type"] == "so101_follower"
    assert "nothing else was recorded" in report.changed[-1]
    store.verify()


def test_the_real_frames_are_those_of_each_step(so101: Path, converted: tuple[Store, Any]) -> None:
    """Against the whole video decoded in order: frame i of the file is row i."""
    from onestride.datasets.converters.lerobot_video import read_frames

    store, _ = converted
    path = so101 / f"videos/{CAMERA}/chunk-000/file-000.mp4"
    starts = np.concatenate([[0], np.cumsum(store.lengths)])
    begin, stop = int(starts[3]) - 4, int(starts[3]) + 8
    expected = []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= stop:
                break
            if number >= begin:
                expected.append(frame.to_ndarray(format="rgb24"))
    shape = (360, 640, 3)
    exact = read_frames(path, np.arange(begin, stop) / 30, 30.0, shape)
    np.testing.assert_array_equal(exact, np.stack(expected))
    kept = store.read_rows(CAMERA, begin, stop).astype(np.float64)
    error = np.mean((kept - exact) ** 2)
    assert 10 * np.log10(255**2 / error) > 38, "encoded anew by the store, within its PSNR"


def test_reading_a_part_of_a_video_does_not_hang(v21: Path) -> None:
    """With a log level set, PyAV's decoding threads and its closing wait for each other, in one read of a few."""
    import av.logging

    from onestride.datasets.converters.lerobot_video import read_frames

    av.logging.set_level(av.logging.ERROR)
    path = v21 / f"videos/chunk-000/{CAMERA}/episode_000002.mp4"
    for _ in range(50):
        read_frames(path, np.array([0.2, 0.3]), FPS, (48, 64, 3))
    assert av.logging.get_level() is None


@pytest.fixture
def v21(tmp_path: Path) -> Path:
    """A dataset in the v2.1 layout; lerobot's own script takes it, see `test_lerobot_reader`."""
    return write_v21(tmp_path / "v21")


def test_v21_is_read_row_by_row_and_frame_by_frame(v21: Path, tmp_path: Path) -> None:
    store = exactly(v21, tmp_path / "s")
    assert store.lengths.tolist() == list(LENGTHS)
    for number in range(3):
        episode, columns = store.read_episode(number), columns_of(number)
        for name in ("observation.state", "action"):
            expected = columns[name].flatten().to_numpy().reshape(LENGTHS[number], -1)
            assert episode.data[name].tobytes() == expected.tobytes()
        with av.open(str(v21 / f"videos/chunk-000/{CAMERA}/episode_{number:06d}.mp4")) as container:
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        np.testing.assert_array_equal(episode.data[CAMERA], np.stack(decoded))
        assert np.abs(episode.data[CAMERA].astype(int) - frames_of(number)).mean() < 3
        assert episode.attributes["task"] == ["pick", "place", "pick"][number]
    assert store.schema.feature("observation.state").names == ("x", "y", "z")
    assert store.schema.feature("action").names == ("dx", "dy")


def test_lerobots_own_conversion_of_it_gives_the_same_dataset(v21: Path, tmp_path: Path) -> None:
    """lerobot takes our v2.1 for one, and what it makes of it reads the same: rows, and the frames it concatenated."""
    ours = exactly(v21, tmp_path / "ours")
    shutil.copytree(v21, tmp_path / "root/v21")
    conversion = lerobot_conversion()
    conversion.convert_dataset(repo_id="v21", root=tmp_path / "root", push_to_hub=False)
    v30 = tmp_path / "root/v21"
    assert json.loads((v30 / "meta/info.json").read_text())["codebase_version"] == "v3.0"
    theirs = exactly(v30, tmp_path / "theirs")
    assert theirs.schema == ours.schema
    for number in range(3):
        one, other = ours.read_episode(number), theirs.read_episode(number)
        for name in one.data:
            np.testing.assert_array_equal(one.data[name], other.data[name], err_msg=name)
        assert one.attributes == other.attributes


def test_what_the_real_lerobot_records_is_read_to_the_bit(tmp_path: Path) -> None:
    features = {
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        "observation.image": {"dtype": "image", "shape": (8, 6, 3), "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }
    create = lerobot_dataset().LeRobotDataset.create
    dataset = create("onestride/r", fps=FPS, features=features, root=tmp_path / "r", use_videos=False)
    random = np.random.default_rng(0)
    recorded: list[list[dict[str, Any]]] = []
    for length in (4, 3):
        frames = []
        for step in range(length):
            frame = {
                "observation.state": random.normal(size=3).astype(np.float32),
                "observation.image": random.integers(0, 256, (8, 6, 3), np.uint8),
                "action": random.normal(size=2).astype(np.float32),
                "next.reward": random.normal(size=1).astype(np.float32),
                "next.done": np.array([step == length - 1]),
                "next.success": np.array([step == length - 1 and length == 4]),
            }
            dataset.add_frame({**frame, "task": f"task {length}"})
            frames.append(frame)
        dataset.save_episode()
        recorded.append(frames)
    dataset.finalize()
    convert(tmp_path / "r", tmp_path / "s")
    store = Store.open(tmp_path / "s")
    for number, frames in enumerate(recorded):
        episode = store.read_episode(number)
        for name in features:
            expected = np.stack([frame[name] for frame in frames])
            got = episode.data[name]
            assert (got.dtype, got.tobytes()) == (expected.dtype, expected.tobytes()), name
        assert episode.attributes["task"] == f"task {len(frames)}"
        assert episode.attributes["success"] is (number == 0)
    roles = {feature.name: feature.role for feature in store.schema.features}
    assert (roles["next.reward"], roles["next.done"], roles["next.success"]) == ("reward", "terminal", "info")
    assert store.schema.feature("next.reward").shape == ()


def test_other_names_more_frames_and_missing_videos_are_told(v21: Path, tmp_path: Path) -> None:
    def rename(columns: dict[str, Any]) -> None:
        columns["state"], columns["actions"] = columns.pop("observation.state"), columns.pop("action")

    def say(info: dict[str, Any]) -> None:
        info["total_frames"] = 9999
        features = info["features"]
        features["state"], features["actions"] = features.pop("observation.state"), features.pop("action")
        features["depth"] = {"dtype": "float32", "shape": [4], "names": None}

    for number in range(3):
        edit_rows(v21, rename, number)
    edit_info(v21, say)
    (v21 / f"videos/chunk-000/{CAMERA}/episode_000001.mp4").unlink()
    report = convert(v21, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert {one.name for one in store.schema.features} == {"observation.state", "action"}
    assert "info.json: says total_frames 9999, counted 20" in report.changed
    assert "state: named observation.state, as LeRobot's policies expect it" in report.changed
    assert f"{CAMERA}: the video of 1 of 3 episodes is missing" in report.left_out
    assert "depth: in info.json, but in no data file" in report.left_out


def test_measured_times_are_kept(v21: Path, tmp_path: Path) -> None:
    measured = np.array([0.0, 0.13, 0.21, 0.35], np.float32)
    shutil.rmtree(v21 / "videos")
    edit_rows(v21, lambda columns: columns.update(timestamp=pa.array(measured)))
    report = convert(v21, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    expected = np.round(measured.astype(np.float64) * 1e9).astype(np.int64)
    np.testing.assert_array_equal(store.read_episode(1).timestamps["base"], expected)
    np.testing.assert_array_equal(store.read_episode(2).timestamps["base"], np.arange(9) * 100_000_000)
    assert any("timestamps of 1 episodes are not frame_index / fps" in line for line in report.changed)


def test_v20_without_its_columns(v21: Path, tmp_path: Path) -> None:
    def strip(columns: dict[str, Any]) -> None:
        for name in ("episode_index", "frame_index", "index", "task_index", "timestamp"):
            del columns[name]

    expected = exactly(v21, tmp_path / "before")
    for number in range(3):
        edit_rows(v21, strip, number)
    edit_info(v21, lambda info: info.update(codebase_version="v2.0"))
    (v21 / "meta/episodes_stats.jsonl").unlink()
    store = exactly(v21, tmp_path / "s")
    assert store.dataset_id == expected.dataset_id


def test_a_task_that_changes_within_an_episode_is_kept(v21: Path, tmp_path: Path) -> None:
    edit_rows(v21, lambda columns: columns.update(task_index=pa.array([1, 1, 0, 0])))
    store = exactly(v21, tmp_path / "s")
    assert store.episodes[1].attributes["tasks"] == ["place", "pick"]
    assert store.read_episode(1).data["task_index"].tolist() == [1, 1, 0, 0]

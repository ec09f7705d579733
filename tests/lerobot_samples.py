"""A LeRobot dataset in the v2.1 layout with known rows and frames, for the tests of the LeRobot reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onestride.datasets.converters import Options, convert
from onestride.datasets.store import Store

pa = pytest.importorskip("pyarrow", reason="needs the extra `lerobot`")
pq = pytest.importorskip("pyarrow.parquet")
av = pytest.importorskip("av", reason="needs the extra `lerobot`")

CAMERA = "observation.images.wrist"
FPS = 10
LENGTHS = (7, 4, 9)


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_video(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "10", "g": "2"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def statistics_of(length: int) -> dict[str, Any]:
    def one(shape: tuple[int, ...]) -> dict[str, Any]:
        names = ("min", "max", "mean", "std")
        return {**{name: np.zeros(shape).tolist() for name in names}, "count": [length]}

    shapes = {"observation.state": (3,), "action": (2,), CAMERA: (3, 1, 1)}
    return {key: one(shapes.get(key, (1,))) for key in (*shapes, "timestamp", "frame_index", "index")}


def frames_of(number: int) -> np.ndarray:
    across = np.linspace(0, 200, 64)[None, None, :, None]
    return np.broadcast_to(across + number * 5 + np.arange(3), (LENGTHS[number], 48, 64, 3)).astype(np.uint8).copy()


def columns_of(number: int) -> dict[str, Any]:
    length, random = LENGTHS[number], np.random.default_rng(number)
    start = sum(LENGTHS[:number])
    state = random.normal(size=(length, 3)).astype(np.float32)
    action = random.normal(size=(length, 2)).astype(np.float32)
    return {
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(state.ravel()), 3),
        "action": pa.FixedSizeListArray.from_arrays(pa.array(action.ravel()), 2),
        "timestamp": pa.array((np.arange(length) / FPS).astype(np.float32)),
        "frame_index": pa.array(np.arange(length)),
        "episode_index": pa.array(np.full(length, number)),
        "index": pa.array(start + np.arange(length)),
        "task_index": pa.array(np.full(length, number % 2)),
    }


def write_v21(root: Path) -> Path:
    """A dataset in the v2.1 layout: a file for each episode, JSON lines; lerobot's own script takes it, see below."""
    counters = {
        "timestamp": "float32",
        **{f"{name}index": "int64" for name in ("frame_", "episode_", "", "task_")},
    }
    features: dict[str, Any] = {name: {"dtype": d, "shape": [1], "names": None} for name, d in counters.items()}
    features["observation.state"] = {"dtype": "float32", "shape": [3], "names": {"axes": ["x", "y", "z"]}}
    features["action"] = {"dtype": "float32", "shape": [2], "names": ["dx", "dy"]}
    features[CAMERA] = {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]}
    features[CAMERA]["info"] = {"video.fps": float(FPS), "video.codec": "h264"}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "so100",
        "total_episodes": 3,
        "total_frames": 20,
        "total_tasks": 2,
        "total_videos": 3,
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    for folder in ("meta", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    tasks = ["pick", "place"]
    write_lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(tasks)])
    lines = [{"episode_index": i, "tasks": [tasks[i % 2]], "length": n} for i, n in enumerate(LENGTHS)]
    write_lines(root / "meta/episodes.jsonl", lines)
    stats = [{"episode_index": i, "stats": statistics_of(n)} for i, n in enumerate(LENGTHS)]
    write_lines(root / "meta/episodes_stats.jsonl", stats)
    for number in range(3):
        pq.write_table(pa.table(columns_of(number)), root / f"data/chunk-000/episode_{number:06d}.parquet")
        write_video(root / f"videos/chunk-000/{CAMERA}/episode_{number:06d}.mp4", frames_of(number))
    return root


def edit_info(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    change(info)
    (root / "meta/info.json").write_text(json.dumps(info))


def edit_rows(root: Path, change: Callable[[dict[str, Any]], Any], number: int = 1) -> None:
    path = root / f"data/chunk-000/episode_{number:06d}.parquet"
    columns = dict(zip(*(lambda t: (t.column_names, t.columns))(pq.read_table(path)), strict=True))
    change(columns)
    pq.write_table(pa.table(columns), path)


def exactly(root: Path, destination: Path) -> Store:
    convert(root, destination, options=Options(codec="lossless"))
    return Store.open(destination)

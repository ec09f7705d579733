"""Writing LeRobot v3.0 datasets that `lerobot` loads: parquet rows, PNG or mp4 cameras, statistics, tasks.

Reference: https://huggingface.co/docs/lerobot/lerobot-dataset-v3, as lerobot 0.4.4 reads it
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import JsonValue

from onestride.datasets.ahead import ahead, portions
from onestride.datasets.converters import Options, Progress, Report
from onestride.datasets.converters.lerobot_features import CLOCK, columns_for, is_image
from onestride.datasets.converters.lerobot_files import (
    DATA_BYTES,
    DATA_PATH,
    EPISODES_PATH,
    FILES_IN_A_CHUNK,
    VIDEO_BYTES,
    VIDEO_PATH,
    DataShards,
    VideoShards,
    column,
    image_column,
    write_episodes,
    write_json,
    write_tasks,
)
from onestride.datasets.converters.lerobot_meta import INFO
from onestride.datasets.converters.lerobot_statistics import (
    Statistics,
    as_lists,
    joined,
    of_columns,
    of_images,
    together,
)
from onestride.datasets.converters.passport import issue, pack_attributes
from onestride.datasets.converters.streaming import episodes, on_base_clock, report_streams, wanted
from onestride.datasets.schema import BASE, Array, Episode, Feature
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

GROUP_BYTES = 8 << 20
"""Rows that are written at once, one row group of the data files, besides one longer episode."""
Kind = Literal["numbers", "image", "video"]
_MOST_AXES = 5
_BOOKKEEPING = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}


@dataclass(frozen=True)
class _Column:
    key: str
    feature: Feature
    kind: Kind


@dataclass
class _Progress:
    """What has been written."""

    steps: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    statistics: dict[str, list[Statistics]] = field(default_factory=dict)


def write(store: Store, path: Path, report: Report, options: Options, progress: Progress) -> None:
    """Write a store as a LeRobot dataset v3.0.

    Args:
        store: what to write.
        path: the folder to make.
        report: told what is kept, changed and left out.
        options: `codec` forces cameras to PNG images or to video, None = as the store keeps them; `leave_out` names
            features.
        progress: told about each episode.

    Raises:
        OneStrideError: the rate of the data is not known.
    """
    fps = _rate(store, report)
    columns = _columns(store, options, report)
    done = _Progress()
    with ExitStack() as stack:
        data = DataShards(path)
        stack.callback(data.close)
        cameras = {one.key: _camera(path, one, fps) for one in columns if one.kind == "video"}
        for camera in cameras.values():
            stack.callback(camera.close)
        features = [one.feature for one in columns]
        walk = portions(episodes(store, [one.name for one in features]), GROUP_BYTES)
        for group in stack.enter_context(ahead(walk)):
            _write_group(group, columns, data, cameras, fps, done, store)
            progress(len(done.rows), store.num_episodes)
    _write_meta(store, path, columns, fps, done)
    _report(store, done, report)


def _rate(store: Store, report: Report) -> float:
    """The frames per second that LeRobot demands: the control rate, or else the median of what was measured."""
    rate = store.schema.control_rate
    if rate is None:
        steps = np.concatenate([np.diff(episode.timestamps[BASE]) for episode in episodes(store, ())])
        period = float(np.median(steps)) if len(steps) else 0.0
        if period <= 0:
            raise OneStrideError("expected a control rate or measured times that advance, got neither")
        rate = round(1e9 / period, 3)
        report.changed.append(f"fps: {rate:g} Hz, the median of the measured times")
    return int(rate) if rate == int(rate) else rate


def _columns(store: Store, options: Options, report: Report) -> list[_Column]:
    keys = columns_for(store.schema)
    columns = []
    for feature in wanted(store.schema, options.leave_out, report):
        key = keys[feature.name]
        if len(feature.shape) > _MOST_AXES:
            report.left_out.append(f"{feature.name}: LeRobot holds at most {_MOST_AXES} axes, got {len(feature.shape)}")
            continue
        columns.append(_Column(key, feature, _kind(feature, options, report)))
        report.kept.append(
            f"{feature.name}: {key}" + ("" if columns[-1].kind == "numbers" else f", {columns[-1].kind}")
        )
    report_streams(store.schema, [one.feature for one in columns], report)
    return columns


def _kind(feature: Feature, options: Options, report: Report) -> Kind:
    if not is_image(feature):
        return "numbers"
    if (options.codec or feature.codec) != "video":
        return "image"
    if any(extent % 2 for extent in feature.shape[:2]):
        report.changed.append(f"{feature.name}: PNG images, since video takes even heights and widths only")
        return "image"
    report.changed.append(f"{feature.name}: encoded as H.264, lossy")
    return "video"


def _camera(path: Path, one: _Column, fps: float) -> VideoShards:
    height, width, _ = one.feature.shape
    return VideoShards(path, one.key, fps, height, width)


def _write_group(
    episodes: list[Episode],
    columns: list[_Column],
    data: DataShards,
    cameras: dict[str, VideoShards],
    fps: float,
    done: _Progress,
    store: Store,
) -> None:
    """Write neighbouring episodes as one row group."""
    lengths = np.array([episode.length for episode in episodes])
    tasks = [_tasks(episode, store) for episode in episodes]
    numbered = [[done.tasks.setdefault(task, len(done.tasks)) for task in named] for named, _ in tasks]
    task_of_each = np.concatenate([np.array(ours)[places] for ours, (_, places) in zip(numbered, tasks, strict=True)])
    numbers = {
        one.key: np.concatenate([on_base_clock(episode, one.feature) for episode in episodes])
        for one in columns
        if one.kind == "numbers"
    }
    numbers |= _bookkeeping(episodes, lengths, task_of_each, fps, done)
    pictures = [_pictures(episode, columns, cameras, done) for episode in episodes]
    table = {key: column(rows) for key, rows in numbers.items()}
    table |= {key: pa.concat_arrays([one[0][key] for one in pictures]) for key in pictures[0][0]}
    with ThreadPoolExecutor(1) as pool:
        measured = pool.submit(of_columns, numbers, lengths)
        place = data.add(pa.table(table))
        for key, statistics in measured.result().items():
            done.statistics.setdefault(key, []).append(statistics)
    for episode, (named, _), (_, where) in zip(episodes, tasks, pictures, strict=True):
        stop = done.steps + episode.length
        row: dict[str, Any] = {"episode_index": len(done.rows), "tasks": named, "length": episode.length}
        row |= place | {"dataset_from_index": done.steps, "dataset_to_index": stop} | where
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        done.rows.append(row | _ours(episode, columns))
        done.steps = stop


def _pictures(
    episode: Episode, columns: list[_Column], cameras: dict[str, VideoShards], done: _Progress
) -> tuple[dict[str, pa.Array], dict[str, Any]]:
    """An episode's PNG columns, and where its videos are."""
    images, where = {}, {}
    for one in columns:
        if one.kind == "numbers":
            continue
        rows = on_base_clock(episode, one.feature)
        done.statistics.setdefault(one.key, []).append(of_images(rows))
        if one.kind == "video":
            where.update(cameras[one.key].add(rows))
        else:
            images[one.key] = image_column(rows)
    return images, where


def _bookkeeping(
    episodes: list[Episode], lengths: NDArray[np.int64], tasks: NDArray[np.int64], fps: float, done: _Progress
) -> dict[str, Array]:
    starts = np.cumsum(lengths) - lengths
    steps = np.arange(lengths.sum())
    frames = steps - np.repeat(starts, lengths)
    return {
        CLOCK: np.concatenate([episode.timestamps[BASE] for episode in episodes]),
        "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.repeat(len(done.rows) + np.arange(len(episodes)), lengths),
        "index": done.steps + steps,
        "task_index": tasks,
    }


def _tasks(episode: Episode, store: Store) -> tuple[list[str], NDArray[np.int64]]:
    """An episode's tasks in the order they come, and which of them each step (T,) has; see `lerobot_reader`."""
    several, index = episode.attributes.get("tasks"), episode.data.get("task_index")
    if isinstance(several, list) and index is not None and index.shape == (episode.length,):
        _, firsts, inverse = np.unique(index, return_index=True, return_inverse=True)
        if len(firsts) == len(several) == len({str(one) for one in several}):
            return [str(one) for one in several], np.argsort(np.argsort(firsts))[inverse]
    task = episode.attributes.get("task")
    named = task if isinstance(task, str) else store.schema.environment or "unnamed"
    return [named], np.zeros(episode.length, np.int64)


def _ours(episode: Episode, columns: list[_Column]) -> dict[str, Any]:
    """What only our reader looks at: attributes, and values after the last action."""
    finals = {
        f"onestride/final/{one.key}": np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes()
        for one in columns
        if (value := episode.final.get(one.feature.name)) is not None
    }
    return {"onestride/attributes": pack_attributes(episode.attributes), **finals}


def _write_meta(store: Store, path: Path, columns: list[_Column], fps: float, done: _Progress) -> None:
    each = {key: joined(parts) for key, parts in done.statistics.items()}
    columns_of_each = {f"stats/{key}/{name}": values for key, one in each.items() for name, values in one.items()}
    counts = {key: values.astype(np.int64) for key, values in columns_of_each.items() if key.endswith("/count")}
    write_episodes(path / EPISODES_PATH, done.rows, columns_of_each | counts)
    write_tasks(path / "meta/tasks.parquet", done.tasks)
    write_json(path / "meta/stats.json", {key: as_lists(together(one)) for key, one in each.items()})
    write_json(path / INFO, _info(store, columns, fps, done))


def _info(store: Store, columns: list[_Column], fps: float, done: _Progress) -> dict[str, Any]:
    counters = {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in _BOOKKEEPING.items()}
    clock = {key: {"dtype": "int64", "shape": [1], "names": None} for key in ("task_index", CLOCK)}
    described = {one.key: _described(one, fps) for one in columns}
    robot = store.provenance.extra.get("robot_type")
    return {
        "codebase_version": "v3.0",
        "robot_type": store.schema.robot or (robot if isinstance(robot, str) else None),
        "total_episodes": len(done.rows),
        "total_frames": done.steps,
        "total_tasks": len(done.tasks),
        "chunks_size": FILES_IN_A_CHUNK,
        "data_files_size_in_mb": DATA_BYTES >> 20,
        "video_files_size_in_mb": VIDEO_BYTES >> 20,
        "fps": fps,
        "splits": {"train": f"0:{len(done.rows)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if any(one.kind == "video" for one in columns) else None,
        "features": {**described, **counters, **clock},
        "onestride": issue(store, {one.feature.name: one.key for one in columns}).to_json(),
    }


def _described(one: _Column, fps: float) -> dict[str, Any]:
    feature = one.feature
    if one.kind == "numbers":
        names: JsonValue = list(feature.names) if feature.names and len(feature.shape) == 1 else None
        return {"dtype": feature.dtype, "shape": list(feature.shape) or [1], "names": names}
    entry = {"dtype": one.kind, "shape": list(feature.shape), "names": ["height", "width", "channels"]}
    if one.kind == "image":
        return entry
    height, width, channels = feature.shape
    facts = {"height": height, "width": width, "codec": "h264", "pix_fmt": "yuv420p", "is_depth_map": False}
    video = {f"video.{key}": value for key, value in {**facts, "fps": fps, "channels": channels}.items()}
    return {**entry, "info": {**video, "has_audio": False}}


def _report(store: Store, done: _Progress, report: Report) -> None:
    report.changed.append(f"timestamp: frame_index / fps, as LeRobot demands; the measured time is in {CLOCK}")
    unnamed = list(_without_task(store))
    if unnamed:
        report.changed.append(f"task: {len(unnamed)} episodes name none, written as {next(iter(done.tasks))!r}")
    report.kept.append("attributes, final values, roles, units and provenance: in columns and keys lerobot ignores")


def _without_task(store: Store) -> Iterator[int]:
    for number, info in enumerate(store.episodes):
        if not isinstance(info.attributes.get("task"), str):
            yield number

"""Reading LeRobot datasets v3.0, v2.1 and v2.0: parquet rows, mp4 cameras, JSON metadata.

Traps that this reader knows: `info.json` may claim more frames than there are, videos may be missing, some files say
`state` and `actions`, v2.0 lacks columns, and `timestamp` is frame_index / fps and not what was measured.

Reference: https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from onestride.datasets.converters import Options, Report, Source
from onestride.datasets.converters.lerobot_features import CLOCK
from onestride.datasets.converters.lerobot_meta import EpisodeMeta, Meta, load_meta
from onestride.datasets.converters.lerobot_plan import Column, plan_columns, video_of
from onestride.datasets.converters.lerobot_rows import (
    BATCH_BYTES,
    BATCH_ROWS,
    Rows,
    Run,
    Span,
    episode_runs,
    images,
    survey_rows,
)
from onestride.datasets.converters.lerobot_video import read_frames
from onestride.datasets.converters.passport import origin, unpack_attributes
from onestride.datasets.provenance import Provenance
from onestride.datasets.provenance import Source as SourceFile
from onestride.datasets.schema import BASE, Array, Episode, Schema, synthetic_clock
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError

VERSION = 1
"""Of what this reader makes of a dataset, see `Provenance.command_version`."""

TOLERANCE = 1e-4
"""LeRobot's own bound on |timestamp - frame_index / fps| [s]; beyond it a timestamp was measured."""


@dataclass(frozen=True)
class _Opened:
    """A dataset that was looked through."""

    meta: Meta
    rows: Rows
    columns: tuple[Column, ...]


def read(path: Path, report: Report, options: Options) -> Source:
    """Look through a dataset, and make its episodes available one by one.

    Raises:
        OneStrideError: damaged or missing files, an unknown version, or no action.
    """
    with _told(path):
        meta = load_meta(path, report)
        rows = survey_rows(path, report)
        opened = _Opened(meta, rows, plan_columns(meta, rows, options, report))
        schema = _schema(opened, options)
        _report(opened, report)
    return Source(schema, partial(_provenance, opened, schema), len(rows.lengths), _episodes(opened, report))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise OneStrideError(f"{path}: expected usable features, got: {error.errors()[0]['msg']}") from error


def _schema(opened: _Opened, options: Options) -> Schema:
    features = tuple(column.feature for column in opened.columns)
    actions = [feature.name for feature in features if feature.role == "action"]
    before = opened.meta.passport.schema if opened.meta.passport else None
    named = before.label if before else "action"
    return Schema(
        features=features,
        control_rate=before.control_rate if before else opened.meta.info.fps,
        label=named if named in actions else actions[0],
        label_source=before.label_source if before else "unknown",
        environment=options.environment or (before.environment if before else None),
        robot=before.robot if before else None,
    )


def _provenance(opened: _Opened, schema: Schema) -> Provenance:
    info = opened.meta.info
    came = origin(opened.meta.passport)
    return Provenance.now(
        "convert lerobot",
        command_version=VERSION,
        packages=("pyarrow", "av"),
        sources=(SourceFile(name=opened.meta.root.name, sha256=tree_sha256(opened.meta.root)),),
        parents=came["parents"],
        environment=schema.environment,
        extra={
            "codebase_version": info.codebase_version,
            "robot_type": info.robot_type,
            "fps": info.fps,
            "tasks": {str(index): task for index, task in opened.meta.tasks.items()},
            **came["extra"],
        },
    )


def _report(opened: _Opened, report: Report) -> None:
    """What the metadata says and the rows do not."""
    info, lengths, episodes = opened.meta.info, opened.rows.lengths, opened.meta.episodes
    for what, said, counted in (
        ("total_frames", info.total_frames, sum(lengths.values())),
        ("total_episodes", info.total_episodes, len(lengths)),
    ):
        if said is not None and said != counted:
            report.changed.append(f"info.json: says {what} {said}, counted {counted}")
    absent = [number for number in episodes if number not in lengths]
    if absent:
        report.left_out.append(f"{len(absent)} episodes of the metadata have no rows (first: {absent[0]})")
    wrong = [n for n, count in lengths.items() if n in episodes and episodes[n].length not in (None, count)]
    if wrong:
        report.changed.append(f"length: wrong in the metadata of {len(wrong)} episodes (first: {wrong[0]}), counted")
    report.left_out.append("statistics of the metadata: computed anew from the data where they are needed")
    if CLOCK in opened.rows.types:
        report.kept.append(f"{CLOCK}: the measured time of each step")


def _episodes(opened: _Opened, report: Report) -> Iterator[Episode]:
    present = opened.rows.types
    wanted = [column.key for column in opened.columns if column.kind != "video"]
    wanted += [name for name in (CLOCK, "timestamp", "task_index") if name in present and name not in wanted]
    measured = 0
    for run in episode_runs(opened.rows, wanted, _batch_rows(opened)):
        for span in run.spans:
            seconds, clock = _times(run, span, opened)
            measured += CLOCK not in present and not np.array_equal(clock, _ideal(len(clock), opened.meta.info.fps)[1])
            yield Episode(
                data={column.feature.name: _rows(column, run, span, seconds, opened) for column in opened.columns},
                timestamps={BASE: clock},
                final=_finals(opened, span[0]),
                attributes=_attributes(opened, run, span),
            )
    if CLOCK not in present:
        plain = f"time: timestamps are frame_index / {opened.meta.info.fps:g} Hz, nothing else was recorded"
        report.changed.append(
            f"time: the timestamps of {measured} episodes are not frame_index / fps and taken as measured"
            if measured
            else plain
        )


def _batch_rows(opened: _Opened) -> int:
    if any(column.kind == "image" for column in opened.columns):
        return BATCH_ROWS
    sizes = (one.feature.size * np.dtype(one.feature.dtype).itemsize for one in opened.columns if one.kind == "numbers")
    return max(1, BATCH_BYTES // (sum(sizes) or 1))


def _rows(column: Column, run: Run, span: Span, seconds: NDArray[np.float64], opened: _Opened) -> Array:
    where = f"{opened.meta.root}: episode {span[0]}, {column.key}"
    if column.kind == "image":
        return images(run.rows(span), column.key, column.feature.shape, opened.meta.root, where)
    if column.kind == "video":
        place = video_of(opened.meta, column.key, span[0])
        if place is None:
            raise OneStrideError(f"{where}: expected to know where its video is, got nothing")
        return read_frames(place[0], place[1] + seconds, opened.meta.info.fps, column.feature.shape)
    rows = run.numbers(span, column.key, column.feature.shape, where)
    return rows.astype(column.feature.dtype, copy=False)


def _times(run: Run, span: Span, opened: _Opened) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """When each row was: [s] from the episode's start as its video has it, and the clock [ns]."""
    where, length = f"{run.path}: episode {span[0]}", span[2] - span[1]
    ideal, clock = _ideal(length, opened.meta.info.fps)
    seconds = ideal
    if "timestamp" in run.table.column_names:
        seconds = run.numbers(span, "timestamp", (), f"{where}, timestamp").astype(np.float64)
        if np.abs(seconds - ideal).max() > TOLERANCE:
            clock = np.round(seconds * 1e9).astype(np.int64)
    if CLOCK in run.table.column_names:
        clock = run.numbers(span, CLOCK, (), f"{where}, {CLOCK}").astype(np.int64)
    backwards = np.flatnonzero(np.diff(clock) < 0)
    if backwards.size:
        raise OneStrideError(f"{where}: expected time never to go back, got a step back at row {backwards[0] + 1}")
    return seconds, clock


@lru_cache(maxsize=8)
def _ideal(length: int, fps: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """When rows are that keep to their rate, in [s] and [ns]; many episodes share them, none writes to them."""
    seconds, clock = np.arange(length) / fps, synthetic_clock(length, fps)
    seconds.flags.writeable = clock.flags.writeable = False
    return seconds, clock


def _attributes(opened: _Opened, run: Run, span: Span) -> dict[str, JsonValue]:
    """Ours where our writer left them, else the task, the splits and the success that the dataset tells."""
    number = span[0]
    meta = opened.meta.episodes.get(number, EpisodeMeta())
    ours = meta.columns.get("onestride/attributes")
    if isinstance(ours, str):
        return unpack_attributes(ours)
    attributes: dict[str, JsonValue] = {"episode_index": number}
    named = [opened.meta.tasks[index] for index in opened.rows.tasks[number] if index in opened.meta.tasks]
    tasks: list[JsonValue] = [*(named or meta.tasks)]
    if tasks:
        attributes["task"] = tasks[0]
    if len(tasks) > 1:
        attributes["tasks"] = tasks
    splits: list[JsonValue] = [name for name, text in opened.meta.info.splits.items() if _within(text, number)]
    if splits:
        attributes["split"] = splits
    if "next.success" in run.table.column_names:
        attributes["success"] = bool(run.numbers(span, "next.success", (), "next.success").any())
    return attributes


def _within(text: object, number: int) -> bool:
    """Whether a split as `0:6` holds an episode."""
    first, _, end = str(text).partition(":")
    return first.isdigit() and end.isdigit() and int(first) <= number < int(end)


def _finals(opened: _Opened, number: int) -> dict[str, Array]:
    """Values after the last action, which only our own writer leaves."""
    columns = opened.meta.episodes.get(number, EpisodeMeta()).columns
    finals = {}
    for column in opened.columns:
        content = columns.get(f"onestride/final/{column.key}")
        if isinstance(content, bytes):
            expected = column.feature.size * np.dtype(column.feature.dtype).itemsize
            if len(content) != expected:
                raise OneStrideError(
                    f"{opened.meta.root}: expected {expected} bytes for the final {column.key} of episode {number}, "
                    f"got {len(content)}"
                )
            value = np.frombuffer(content, np.dtype(column.feature.dtype).newbyteorder("<"))
            finals[column.feature.name] = value.astype(column.feature.dtype).reshape(column.feature.shape)
    return finals

"""Deciding, before a row is converted, what becomes of every column and camera of a LeRobot dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onestride.datasets.converters import Options, Report
from onestride.datasets.converters.lerobot_features import (
    BOOKKEEPING,
    CLOCK,
    describe,
    dtype_of,
    frame_shape,
    returning,
    role_of,
    usual_name,
)
from onestride.datasets.converters.lerobot_meta import EpisodeMeta, FeatureInfo, Meta
from onestride.datasets.converters.lerobot_rows import Rows, is_encoded_image
from onestride.datasets.converters.passport import Passport
from onestride.datasets.schema import Feature
from onestride.hardware.errors import OneStrideError, unknown

Kind = Literal["numbers", "image", "video"]
Codec = Literal["lossless", "video"]


@dataclass(frozen=True)
class Column:
    """A column or a camera that becomes a feature."""

    key: str
    feature: Feature
    kind: Kind


def plan_columns(meta: Meta, rows: Rows, options: Options, report: Report) -> tuple[Column, ...]:
    """What is read, with a line in the report for each; the label is `action`.

    Raises:
        OneStrideError: no action, or an image feature whose shape is none.
    """
    wanted = [key for key in meta.info.features if key not in (*BOOKKEEPING, CLOCK)]
    ours = meta.passport.paths if meta.passport else {}
    if "task_index" not in ours and any(len(tasks) > 1 for tasks in rows.tasks.values()):
        wanted.append("task_index")
        report.changed.append("task_index: changes within an episode, kept as feature task_index")
    wanted = _not_left_out(wanted, options, report)
    columns = [column for key in wanted if (column := _column(key, meta, rows, options, report))]
    columns = _one_of_each(columns, report)
    for key in rows.types:
        if key not in meta.info.features and key not in BOOKKEEPING:
            report.left_out.append(f"{key}: a column that info.json does not describe")
    if not any(column.feature.role == "action" for column in columns):
        raise OneStrideError(f"{meta.root}: expected a column action or actions, got: {', '.join(wanted) or 'none'}")
    if meta.passport is not None:
        order = [feature.name for feature in meta.passport.ordered([column.feature for column in columns])]
        columns.sort(key=lambda column: order.index(column.feature.name))
    return tuple(columns)


def video_of(meta: Meta, key: str, episode: int) -> tuple[Path, float] | None:
    """Where an episode's camera is: the file, and the episode's start on its clock [s]; None where nothing says."""
    if not meta.is_v3:
        chunk = episode // meta.info.chunks_size
        return meta.root / f"videos/chunk-{chunk:03d}/{key}/episode_{episode:06d}.mp4", 0.0
    columns = meta.episodes.get(episode, EpisodeMeta()).columns
    said = [columns.get(f"videos/{key}/{name}") for name in ("chunk_index", "file_index", "from_timestamp")]
    if not (isinstance(said[0], int) and isinstance(said[1], int) and isinstance(said[2], (int, float))):
        return None
    return meta.root / f"videos/{key}/chunk-{said[0]:03d}/file-{said[1]:03d}.mp4", float(said[2])


def _not_left_out(keys: list[str], options: Options, report: Report) -> list[str]:
    possible = [key for key in keys if key not in ("action", "actions")]
    for name in options.leave_out:
        if name not in possible:
            raise unknown("column to leave out", name, possible)
    report.left_out += [f"{name}: as asked for" for name in options.leave_out]
    return [key for key in keys if key not in options.leave_out]


def _column(key: str, meta: Meta, rows: Rows, options: Options, report: Report) -> Column | None:
    info = meta.info.features.get(key, FeatureInfo(dtype="int64", shape=(1,)))
    name = usual_name(key, meta.info.features)
    if info.dtype == "video":
        return _camera(key, name, meta, rows, options, report)
    if key not in rows.types:
        report.left_out.append(f"{key}: in info.json, but in no data file")
        return None
    if info.dtype == "image" or is_encoded_image(rows.types[key]):
        feature = _image_feature(key, name, info, options.codec or "lossless", meta.passport)
        report.kept.append(f"{key}: {feature.name} {feature.shape} images")
        return Column(key, feature, "image")
    known = returning(meta.passport, key, info, dtype_of(rows.types[key]))
    described = known or describe(name, info, rows.types[key])
    if described is None:
        report.left_out.append(f"{key}: rows of {rows.types[key]}, not numbers")
        return None
    if described.name != key and known is None:
        report.changed.append(f"{key}: named {described.name}, as LeRobot's policies expect it")
    report.kept.append(f"{key}: {described.name} {described.shape} {described.dtype}")
    return Column(key, described, "numbers")


def _camera(key: str, name: str, meta: Meta, rows: Rows, options: Options, report: Report) -> Column | None:
    places = [video_of(meta, key, episode) for episode in rows.lengths]
    absent = sum(place is None or not place[0].is_file() for place in places)
    if absent:
        report.left_out.append(f"{key}: the video of {absent} of {len(places)} episodes is missing")
        return None
    feature = _image_feature(key, name, meta.info.features[key], options.codec or "video", meta.passport)
    how = "encoded anew, lossy" if feature.codec == "video" else "decoded frames, as the source's loss left them"
    report.changed.append(f"{key}: {feature.name} {feature.shape} from video, {how}")
    return Column(key, feature, "video")


def _image_feature(key: str, name: str, info: FeatureInfo, codec: Codec, passport: Passport | None) -> Feature:
    shape = frame_shape(info)
    if len(shape) != 3 or shape[2] != 3:
        raise OneStrideError(f"{name}: expected a camera of shape (H, W, 3), got {shape}")
    known = passport.feature_at(key, shape, "uint8") if passport else None
    if known is not None:
        return known.model_copy(update={"codec": codec})
    return Feature(name=name, role=role_of(name), shape=shape, dtype="uint8", codec=codec)


def _one_of_each(columns: list[Column], report: Report) -> list[Column]:
    """At most one reward and one terminal, as a schema has it; the others inform."""
    taken: set[str] = set()
    result = []
    for column in columns:
        role = column.feature.role
        if role in ("reward", "terminal", "mask") and role in taken:
            feature = column.feature.model_copy(update={"role": "info"})
            report.changed.append(f"{column.key}: a second {role}, kept as information")
            column = Column(column.key, feature, column.kind)
        taken.add(role)
        result.append(column)
    return result

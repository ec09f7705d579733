"""What a LeRobot dataset says about itself: `meta/info.json`, its tasks and its episodes, of v2.0, v2.1 and v3.0.

None of it is trusted for lengths: the rows of the data files are counted, see `lerobot_rows`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onestride.datasets.converters import Report
from onestride.datasets.converters.passport import Passport, read_passport
from onestride.hardware.errors import OneStrideError

INFO = "meta/info.json"
VERSIONS = ("v2.0", "v2.1", "v3.0")
NAMED_INDEX = "__index_level_0__"
"""Column of `meta/tasks.parquet` that holds the task, as pandas writes an unnamed index."""


class FeatureInfo(BaseModel):
    """One entry of `features`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dtype: str
    shape: tuple[int, ...]
    names: Any = None

    @property
    def element_names(self) -> tuple[str, ...]:
        """One distinct name for each flattened element, or none: files hold lists, objects of lists and nulls."""
        lists = list(self.names.values()) if isinstance(self.names, Mapping) else [self.names]
        flat = [name for part in lists if isinstance(part, list) for name in part]
        size = int(_product(self.shape))
        usable = len(flat) == size == len(set(map(str, flat))) and all(isinstance(one, str) for one in flat)
        return tuple(flat) if usable else ()


class Info(BaseModel):
    """`meta/info.json`, the part that is read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    codebase_version: str
    fps: float = Field(gt=0, allow_inf_nan=False)
    features: dict[str, FeatureInfo] = Field(min_length=1)
    robot_type: str | None = None
    total_frames: int | None = None
    total_episodes: int | None = None
    video_path: str | None = None
    chunks_size: int = Field(default=1000, gt=0)
    splits: dict[str, Any] = Field(default_factory=dict)
    onestride: Any = None
    """The passport of what we exported."""


@dataclass(frozen=True)
class EpisodeMeta:
    """What the metadata says about one episode."""

    length: int | None = None
    tasks: tuple[str, ...] = ()
    columns: dict[str, Any] = field(default_factory=dict)
    """The other columns of v3.0: where its video is, and ours."""


@dataclass(frozen=True)
class Meta:
    """The metadata of a dataset."""

    root: Path
    info: Info
    tasks: dict[int, str]
    episodes: dict[int, EpisodeMeta]
    passport: Passport | None = None

    @property
    def is_v3(self) -> bool:
        """Whether episodes share files."""
        return self.info.codebase_version == "v3.0"


def load_meta(root: Path, report: Report) -> Meta:
    """Read the metadata; what is missing besides `info.json` is reported.

    Raises:
        OneStrideError: no usable `info.json`, an unknown version, or a damaged file.
    """
    info = _load_info(root)
    is_v3 = info.codebase_version == "v3.0"
    tasks = _tasks_v3(root, report) if is_v3 else _tasks_v2(root, report)
    episodes = _episodes_v3(root, report) if is_v3 else _episodes_v2(root, report)
    return Meta(root, info, tasks, episodes, read_passport(info.onestride))


@contextmanager
def parquet_file(path: Path) -> Iterator[pq.ParquetFile]:
    """An open parquet file; damage is told with the file's name.

    Raises:
        OneStrideError: not readable as parquet.
    """
    try:
        # Without buffering whole row groups: an image file's row group may be larger than memory.
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            yield file
    except OneStrideError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise OneStrideError(f"{path}: expected a readable parquet file, got: {reason}") from error


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _load_info(root: Path) -> Info:
    path = root / INFO
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise OneStrideError(f"expected {INFO} in {root}, got: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise OneStrideError(f"{path}: expected JSON, got a truncated or damaged file") from error
    try:
        info = Info.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise OneStrideError(f"{path}: expected usable {where}, got: {first['msg']}") from error
    if info.codebase_version not in VERSIONS:
        raise OneStrideError(
            f"{path}: expected codebase_version {', '.join(VERSIONS)}, got {info.codebase_version!r}: "
            "convert it with lerobot's own scripts first"
        )
    return info


def _tasks_v3(root: Path, report: Report) -> dict[int, str]:
    path = root / "meta/tasks.parquet"
    if not path.is_file():
        report.left_out.append("meta/tasks.parquet: missing, episodes have no task")
        return {}
    with parquet_file(path) as file:
        table = file.read()
        column = next((name for name in (NAMED_INDEX, "task") if name in table.column_names), None)
        if column is None or "task_index" not in table.column_names:
            raise OneStrideError(f"{path}: expected columns task_index and task, got: {', '.join(table.column_names)}")
        return dict(zip(table["task_index"].to_pylist(), map(str, table[column].to_pylist()), strict=True))


def _tasks_v2(root: Path, report: Report) -> dict[int, str]:
    path = root / "meta/tasks.jsonl"
    if not path.is_file():
        report.left_out.append("meta/tasks.jsonl: missing, episodes have no task")
        return {}
    return {_integer(path, line, "task_index"): str(line.get("task", "")) for line in _json_lines(path)}


def _episodes_v3(root: Path, report: Report) -> dict[int, EpisodeMeta]:
    found: dict[int, EpisodeMeta] = {}
    for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
        with parquet_file(path) as file:
            wanted = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            for row in file.read(columns=wanted).to_pylist():
                found[_integer(path, row, "episode_index")] = _episode(row)
    if not found:
        report.left_out.append("meta/episodes: missing, episodes are told apart by episode_index alone")
    return found


def _episodes_v2(root: Path, report: Report) -> dict[int, EpisodeMeta]:
    path = root / "meta/episodes.jsonl"
    if not path.is_file():
        report.left_out.append("meta/episodes.jsonl: missing, episodes are told apart by episode_index alone")
        return {}
    return {_integer(path, line, "episode_index"): _episode(line) for line in _json_lines(path)}


def _episode(row: dict[str, Any]) -> EpisodeMeta:
    tasks = row.pop("tasks", None)
    length = row.pop("length", None)
    named = tuple(str(task) for task in tasks) if isinstance(tasks, list) else ()
    return EpisodeMeta(length if isinstance(length, int) else None, named, row)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise OneStrideError(f"{path}: expected JSON in line {number}, got a truncated or damaged line") from error
        if not isinstance(value, dict):
            raise OneStrideError(f"{path}: expected a JSON object in line {number}, got {type(value).__name__}")
        yield value


def _integer(path: Path, row: Mapping[str, Any], key: str) -> int:
    value = row.get(key)
    if not isinstance(value, int):
        raise OneStrideError(f"{path}: expected an integer {key} in every row, got {value!r}")
    return value

"""The files of a LeRobot v3.0 dataset that is being written: data shards, camera shards, tables of the metadata."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from onestride.datasets.converters.lerobot_meta import NAMED_INDEX
from onestride.datasets.converters.lerobot_video import VideoFile
from onestride.datasets.schema import Array

DATA_BYTES = 100 << 20
VIDEO_BYTES = 200 << 20
FILES_IN_A_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An encoded image as `datasets` keeps it."""


class DataShards:
    """Rows of all episodes, one row group for each table that is added, in files of about `DATA_BYTES`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._number = -1
        self._writer: pq.ParquetWriter | None = None
        self._path = root

    def add(self, table: pa.Table) -> dict[str, int]:
        """Append the rows of one or more episodes, and say where they are."""
        if self._writer is None or self._path.stat().st_size >= DATA_BYTES:
            self.close()
            self._number += 1
            self._path = self._root / DATA_PATH.format(**place(self._number))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Checksums, so that damage is found on reading; no dictionary, as numbers hardly ever repeat.
            self._writer = pq.ParquetWriter(
                self._path, table.schema, compression="snappy", write_page_checksum=True, use_dictionary=False
            )
        self._writer.write_table(table)
        return {f"data/{name}": value for name, value in place(self._number).items()}

    def close(self) -> None:
        """Finish the file at hand."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class VideoShards:
    """Frames of one camera, all episodes one after the other, in files of about `VIDEO_BYTES`."""

    def __init__(self, root: Path, key: str, fps: float, height: int, width: int) -> None:
        self._root, self._key, self._fps, self._size = root, key, fps, (height, width)
        self._number = -1
        self._file: VideoFile | None = None

    def add(self, frames: NDArray[np.uint8]) -> dict[str, float]:
        """Append an episode, and say where it is."""
        if self._file is None or self._file.bytes >= VIDEO_BYTES:
            self.close()
            self._number += 1
            path = self._root / VIDEO_PATH.format(video_key=self._key, **place(self._number))
            self._file = VideoFile(path, self._fps, *self._size)
        begins = self._file.frames / self._fps
        self._file.add(frames)
        where: dict[str, float] = {f"videos/{self._key}/{name}": value for name, value in place(self._number).items()}
        ends = self._file.frames / self._fps
        return {**where, f"videos/{self._key}/from_timestamp": begins, f"videos/{self._key}/to_timestamp": ends}

    def close(self) -> None:
        """Finish the file at hand."""
        if self._file is not None:
            self._file.close()
        self._file = None


def place(number: int) -> dict[str, int]:
    """Chunk and file of the n-th file."""
    return {"chunk_index": number // FILES_IN_A_CHUNK, "file_index": number % FILES_IN_A_CHUNK}


def column(rows: Array) -> pa.Array:
    """Rows (T, *shape) as a column: plain values, or nested lists of fixed lengths; (T, 1) as plain values."""
    shape = rows.shape[1:]
    array = pa.array(np.ascontiguousarray(rows).reshape(-1))
    if shape in ((), (1,)):
        return array
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(array, shape[0])
    # `datasets` reads arrays of two and more axes from lists without a fixed length only.
    return _lists(rows)


def _lists(rows: Array) -> pa.Array:
    """Rows (T, *shape) as nested lists without a fixed length."""
    array = pa.array(np.ascontiguousarray(rows).reshape(-1))
    for extent in reversed(rows.shape[1:]):
        array = pa.ListArray.from_arrays(np.arange(0, len(array) + 1, extent, dtype=np.int32), array)
    return array


def image_column(images: NDArray[np.uint8]) -> pa.Array:
    """Images (T, H, W, 3) as PNG files within the table: lossless."""
    return pa.array([{"bytes": _png(image), "path": None} for image in images], IMAGE)


def write_tasks(path: Path, tasks: dict[str, int]) -> None:
    """The tasks as pandas writes a frame whose index they are, which is what LeRobot reads."""
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), NAMED_INDEX: pa.array(tasks, pa.string())})
    described = {
        "index_columns": [NAMED_INDEX],
        "column_indexes": [],
        "columns": [
            _pandas_column("task_index", "task_index", "int64"),
            _pandas_column(None, NAMED_INDEX, "unicode"),
        ],
        "pandas_version": "2.0.0",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(described)}), path)


def write_episodes(path: Path, rows: list[dict[str, Any]], numbers: dict[str, Array]) -> None:
    """One row for each episode: what `rows` say of it, and numbers (E, *shape) by column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = dict.fromkeys(key for row in rows for key in row)
    told = {key: pa.array([row.get(key) for row in rows]) for key in keys}
    table = pa.table(told | {key: _lists(values) for key, values in numbers.items()})
    # No dictionary and no ends of each column: of a hundred columns of numbers that takes longer than the numbers.
    texts: Any = list(keys)  # the library takes a list, too; its stubs do not know
    pq.write_table(table, path, use_dictionary=texts, write_statistics=False)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _pandas_column(name: str | None, field: str, kind: str) -> dict[str, Any]:
    plain = "object" if kind == "unicode" else kind
    return {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": plain, "metadata": None}


def _png(image: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=3)
    return file.getvalue()

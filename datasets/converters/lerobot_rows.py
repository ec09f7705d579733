"""The rows of a LeRobot dataset: parquet files in which every row names its episode, read episode by episode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from onestride.datasets.converters import Report
from onestride.datasets.converters.lerobot_meta import parquet_file
from onestride.datasets.converters.spilling import room
from onestride.datasets.schema import Array
from onestride.hardware.errors import OneStrideError

BATCH_ROWS = 256
"""Rows with images that are decoded at a time."""
BATCH_BYTES = 8 << 20
"""Of numbers that are decoded at a time, besides one longer episode."""

Span = tuple[int, int, int]
"""(episode, first row, end)."""


@dataclass
class Rows:
    """What all data files hold, column by column and episode by episode."""

    paths: tuple[Path, ...]
    types: dict[str, pa.DataType]
    """Column -> its type, alike in all files."""
    lengths: dict[int, int] = field(default_factory=dict)
    """Episode -> rows, in the order of the files."""
    tasks: dict[int, list[int]] = field(default_factory=dict)
    """Episode -> the distinct task indices of its rows, in order."""
    spans: list[list[Span]] = field(default_factory=list)
    """For each file."""


def survey_rows(root: Path, report: Report) -> Rows:
    """Count the rows of every episode without reading more than the index columns.

    Raises:
        OneStrideError: no data files, files unlike each other, or an episode whose rows lie apart.
    """
    paths = tuple(sorted((root / "data").glob("*/*.parquet")))
    if not paths:
        raise OneStrideError(f"expected data files {root}/data/*/*.parquet, got none")
    rows = Rows(paths, {})
    for path in paths:
        with parquet_file(path) as file:
            _check_columns(path, file.schema_arrow, rows, report)
            present = [name for name in ("episode_index", "task_index") if name in file.schema_arrow.names]
            count = file.metadata.num_rows
            if count:
                _take_spans(path, file.read(columns=present), count, rows)
            else:
                rows.spans.append([])
    if not rows.lengths:
        raise OneStrideError(f"{root}: expected at least one row, got empty data files")
    return rows


@dataclass
class Run:
    """Whole episodes of one file, decoded at once."""

    path: Path
    spans: list[Span]
    """Within the table."""
    table: pa.Table
    _known: dict[tuple[str, tuple[int, ...]], Array | None] = field(default_factory=dict)

    def rows(self, span: Span) -> pa.Table:
        """The rows of one episode."""
        return self.table.slice(span[1], span[2] - span[1])

    def numbers(self, span: Span, column: str, shape: tuple[int, ...], where: str) -> Array:
        """A column of one episode, as `numbers` of its rows.

        Raises:
            OneStrideError: what `numbers` raises.
        """
        if (column, shape) not in self._known:
            try:
                self._known[column, shape] = numbers(self.table, column, shape, where)
            except OneStrideError:
                # Of one of the episodes, which is told when its turn comes.
                self._known[column, shape] = None
        together = self._known[column, shape]
        return numbers(self.rows(span), column, shape, where) if together is None else together[span[1] : span[2]]


def episode_runs(rows: Rows, columns: list[str], batch_rows: int) -> Iterator[Run]:
    """Every episode in order; no more than one episode and a batch is held."""
    for path, spans in zip(rows.paths, rows.spans, strict=True):
        held: list[pa.RecordBatch] = []
        first, done, position = 0, 0, 0
        with parquet_file(path) as file:
            for batch in file.iter_batches(batch_size=batch_rows, columns=columns):
                held.append(batch)
                position += batch.num_rows
                ready = done
                while ready < len(spans) and spans[ready][2] <= position:
                    ready += 1
                if ready > done:
                    whole = [(number, start - first, stop - first) for number, start, stop in spans[done:ready]]
                    yield Run(path, whole, pa.Table.from_batches(held))
                    first, done = spans[ready - 1][2], ready
                    held = [batch.slice(batch.num_rows - (position - first))]


def numbers(table: pa.Table, column: str, shape: tuple[int, ...], where: str) -> Array:
    """A column as (T, *shape), with its own dtype.

    Raises:
        OneStrideError: rows of another size, missing values, or not numbers.
    """
    array = _storage(table[column].combine_chunks())
    size, extents = 1, 0
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if array.null_count:
            raise OneStrideError(f"{where}: expected a value in every row, got none in {array.null_count}")
        flat = _storage(array.flatten())
        width, rest = divmod(len(flat), len(array))
        if rest or not _even(array, width):
            raise OneStrideError(f"{where}: expected rows of shape {shape}, got rows of different lengths")
        array, size, extents = flat, size * width, extents + 1
    expected = int(np.prod(shape, dtype=np.int64))
    if size != expected:
        raise OneStrideError(f"{where}: expected rows of shape {shape}, got {size} values in a row")
    if array.null_count:
        raise OneStrideError(f"{where}: expected a value in every row, got none in {array.null_count}")
    result = np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).reshape(-1, *shape)
    _check_finite(result, where)
    return result


def images(table: pa.Table, column: str, shape: tuple[int, ...], root: Path, where: str) -> NDArray[np.uint8]:
    """A column of encoded images as (T, H, W, 3).

    Raises:
        OneStrideError: an image that is missing, damaged, or of another shape.
    """
    out: Array = np.zeros((0, *shape), np.uint8)
    row = 0
    for chunk in table[column].chunks:
        # One row at a time: as Python values the encoded images of an episode would be held twice.
        for value in _storage(chunk):
            pixels = _image(value.as_py(), shape, root, f"{where} at row {row}")
            # Not before one image has the shape that the metadata claim.
            out = room((table.num_rows, *shape), np.uint8) if row == 0 else out
            out[row] = pixels
            row += 1
    return out


def is_encoded_image(kind: pa.DataType) -> bool:
    """Whether a column holds image files as `datasets` writes them."""
    return bool(pa.types.is_struct(kind)) and {"bytes", "path"} <= {one.name for one in kind}


def element_type(kind: pa.DataType) -> pa.DataType:
    """The type of a single value, below any lists."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
        else:
            return kind


def _check_columns(path: Path, schema: Any, rows: Rows, report: Report) -> None:
    types = dict(zip(schema.names, schema.types, strict=True))
    if not rows.types:
        rows.types = types
        return
    for name in [name for name in rows.types if name not in types]:
        del rows.types[name]
        report.left_out.append(f"{name}: not in every data file (not in {path.name})")
    for name, kind in rows.types.items():
        if element_type(types[name]) != element_type(kind):
            raise OneStrideError(f"{path}: expected column {name} of {kind} as in the other files, got {types[name]}")


def _take_spans(path: Path, table: pa.Table, count: int, rows: Rows) -> None:
    """Note where each episode's rows lie."""
    episodes = _index(table, "episode_index", path)
    if episodes is None:
        named = re.fullmatch(r"episode_(\d+)", path.stem)
        if named is None:
            raise OneStrideError(f"{path}: expected a column episode_index, got: {', '.join(rows.types)}")
        episodes = np.full(count, int(named[1]), np.int64)
    tasks = _index(table, "task_index", path)
    edges = [0, *(np.flatnonzero(np.diff(episodes)) + 1).tolist(), count]
    spans = []
    for start, stop in pairwise(edges):
        episode = int(episodes[start])
        if episode in rows.lengths:
            raise OneStrideError(f"{path}: expected the rows of episode {episode} together, got some at row {start}")
        rows.lengths[episode] = stop - start
        rows.tasks[episode] = [] if tasks is None else list(dict.fromkeys(tasks[start:stop].tolist()))
        spans.append((episode, start, stop))
    rows.spans.append(spans)


def _index(table: pa.Table, name: str, path: Path) -> NDArray[np.int64] | None:
    if name not in table.column_names:
        return None
    if not pa.types.is_integer(element_type(table.schema.field(name).type)):
        raise OneStrideError(f"{path}: expected integers in {name}, got {table.schema.field(name).type}")
    return numbers(table, name, (), f"{path}: {name}").astype(np.int64)


def _storage(array: Any) -> Any:
    """The plain array below an extension type, as `datasets` registers for arrays of two and more axes."""
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _even(array: Any, width: int) -> bool:
    if pa.types.is_fixed_size_list(array.type):
        return True
    return bool(np.all(np.diff(array.offsets.to_numpy()) == width))


def _check_finite(values: Array, where: str) -> None:
    if values.dtype.kind not in "biuf":
        raise OneStrideError(f"{where}: expected numbers, got {values.dtype}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        flat = values.reshape(len(values), -1)
        step, element = (int(one) for one in np.argwhere(~np.isfinite(flat))[0])
        raise OneStrideError(f"{where}[{element}]: expected finite numbers, got {flat[step, element]} at step {step}")


def _image(value: Any, shape: tuple[int, ...], root: Path, where: str) -> NDArray[np.uint8]:
    content = value.get("bytes") if isinstance(value, dict) else None
    if content is None:
        content = _image_file(value, root, where)
    try:
        with Image.open(BytesIO(content)) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    # A damaged file may raise anything of these, a decompression bomb is one too.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise OneStrideError(f"{where}: expected an image, got: {error}") from error
    if pixels.shape != shape:
        raise OneStrideError(f"{where}: expected an image of {shape}, got {pixels.shape}")
    return pixels


def _image_file(value: Any, root: Path, where: str) -> bytes:
    """An image that lies beside the data files, never outside the dataset."""
    name = value.get("path") if isinstance(value, dict) else None
    path = (root / name).resolve() if isinstance(name, str) else None
    if path is None or not path.is_relative_to(root.resolve()) or not path.is_file():
        raise OneStrideError(f"{where}: expected an image, got none")
    return path.read_bytes()

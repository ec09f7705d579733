"""Arrays of a Zarr v2 group, checked before the library opens them, and read and written in whole chunks."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from onestride.datasets.schema import Array
from onestride.hardware.errors import OneStrideError

BLOCK_BYTES = 16 << 20
"""Of each array, what is read at once: whole chunks, so that none is decompressed twice."""
CHUNK_BYTES = 4 << 20
"""Uncompressed size of the chunks we write."""

_CODECS = ("blosc", "zstd", "lz4", "zlib", "gzip", "bz2", "lzma", "delta", "shuffle", "bitround", "packbits")
"""What may decode a chunk. Others are refused: `pickle` runs what a file tells it to."""
_PICTURE_CODECS = "imagecodecs_"


class ArrayReader:
    """Rows of one array (N, *shape)."""

    def __init__(self, array: Any) -> None:
        self.key: str = array.basename
        self._array = array
        self.length = int(array.shape[0])
        self.shape: tuple[int, ...] = tuple(array.shape[1:])
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        row_bytes = max(1, self.dtype.itemsize * math.prod(self.shape))
        chunk = max(1, int(array.chunks[0]))
        self._step = chunk * max(1, BLOCK_BYTES // (chunk * row_bytes))
        self._block: Array = np.zeros((0, *self.shape), self.dtype)
        self._first = 0

    def read(self, start: int, stop: int) -> Array:
        """Rows [start, stop)."""
        parts = []
        while start < stop:
            if not self._first <= start < self._first + len(self._block):
                self._first = start - start % self._step
                self._block = np.asarray(self._array[self._first : min(self._first + self._step, self.length)])
            end = min(stop, self._first + len(self._block))
            parts.append(self._block[start - self._first : end - self._first])
            start = end
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class ArrayWriter:
    """A new array (length, *shape) of a Zarr v2 group, filled from its first row on."""

    def __init__(self, group: Any, name: str, length: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        from numcodecs import Blosc

        row_bytes = max(1, dtype.itemsize * math.prod(shape))
        self._step = max(1, min(length, CHUNK_BYTES // row_bytes))
        self._array = group.create_array(
            name,
            shape=(length, *shape),
            dtype=dtype,
            chunks=(self._step, *shape),
            compressors=Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE),
            fill_value=0,
            # Left out, a chunk that equals the fill value reads back as it: -0.0 as 0.0. And a chunk that is not
            # there could not be told from one that was lost.
            config={"write_empty_chunks": True},
        )
        self._length = length
        self._waiting: list[Array] = []
        self._rows = 0
        self._written = 0

    def add(self, rows: Array) -> None:
        """Take the next rows; chunks are written when they are full."""
        self._waiting.append(rows)
        self._rows += len(rows)
        if self._rows >= self._step:
            self._write(self._rows - self._rows % self._step)

    def finish(self) -> None:
        """Write the last rows."""
        self._write(self._rows)
        if self._written != self._length:
            raise OneStrideError(f"{self._array.basename}: expected {self._length} rows, got {self._written}")

    def _write(self, count: int) -> None:
        if count:
            rows = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
            self._array[self._written : self._written + count] = rows[:count]
            self._written += count
            self._waiting, self._rows = [rows[count:]], len(rows) - count


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open group, of whose arrays none would run code; whatever is wrong inside is told with the path."""
    try:
        for described in sorted(path.rglob(".zarray")):
            _check_codecs(described)
        yield zarr.open_group(str(path), mode="r", zarr_format=2)
    except OneStrideError as error:
        message = str(error)
        raise OneStrideError(message if message.startswith(str(path)) else f"{path}: {message}") from error
    # The library, its codecs and JSON meet damage with any of these.
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        AttributeError,
        IndexError,
        ArithmeticError,
        MemoryError,
        SystemError,
        EOFError,
        AssertionError,
        struct.error,
        NotImplementedError,
        zlib.error,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise OneStrideError(f"{path}: expected a readable Zarr v2 group, got: {reason}") from error


def missing_chunks(path: Path, array: Any) -> tuple[int, int]:
    """How many chunk files of an array on disk are not there, and how many there should be."""
    counts = [math.ceil(extent / chunk) for extent, chunk in zip(array.shape, array.chunks, strict=True)]
    if math.prod(counts) > 1 << 22:
        raise OneStrideError(f"{array.path}: expected fewer chunks, got {math.prod(counts)}")
    separator = json.loads((path / array.path / ".zarray").read_bytes()).get("dimension_separator", ".")
    names = [separator.join(map(str, place)) for place in product(*map(range, counts))]
    return sum(not (path / array.path / name).is_file() for name in names), len(names)


def _check_codecs(described: Path) -> None:
    where = described.parent
    try:
        content = json.loads(described.read_bytes())
        dtype, used = content["dtype"], [content.get("compressor"), *(content.get("filters") or [])]
        names = [str(one["id"]) for one in used if one is not None]
        kind = np.dtype(dtype).kind if isinstance(dtype, str) else "?"
        shape = [int(extent) for extent in content["shape"]]
        chunks = [int(extent) for extent in content["chunks"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OneStrideError(f"{where}: expected the description of a Zarr v2 array, got a damaged one") from error
    if kind == "O" or len(shape) != len(chunks) or min([*shape, 1]) < 0 or min([*chunks, 1]) < 1:
        raise OneStrideError(f"{where}: expected an array of plain values, got {dtype} {shape} in chunks {chunks}")
    for name in names:
        if name not in _CODECS and not name.startswith(_PICTURE_CODECS):
            raise OneStrideError(f"{where}: unknown codec: got {name!r}, available: {', '.join(_CODECS)}")

"""Room for pictures: in memory while they are few, else in an unnamed temporary file, which takes no memory for good.

An episode's arrays may lie on disk: the store writes them block by block. So what a conversion holds does not grow with
the longest episode, though its pictures are decoded.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.schema import Array
from onestride.hardware.errors import OneStrideError

MOST = 16 << 20
"""Bytes of one array that are held in memory."""
_BLOCK = 8 << 20


def room(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array to be filled.

    Raises:
        OneStrideError: no room for the temporary file.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= MOST:
        return np.empty(shape, dtype)
    with _told(size), tempfile.TemporaryFile() as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            # Reserved now: a full disk would end the process when the pages are written.
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "r+", shape=shape)


def picked(rows: Array, index: NDArray[np.int64]) -> Array:
    """Some rows in some order, as `rows[index]`; the rows themselves where these are all in order.

    Raises:
        OneStrideError: no room for the temporary file.
    """
    if len(index) == len(rows) and (index == np.arange(len(rows))).all():
        return rows
    chosen = room((len(index), *rows.shape[1:]), rows.dtype)
    step = max(1, _BLOCK // max(1, rows[:1].nbytes))
    for start in range(0, len(index), step):
        chosen[start : start + step] = rows[index[start : start + step]]
    return chosen


class Growing:
    """Rows that come some at a time.

    Args:
        shape: of one row.
        dtype: of all.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._held: list[Array] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def extend(self, rows: Array) -> None:
        """Take rows (T, *shape).

        Raises:
            OneStrideError: no room for the temporary file.
        """
        self._held.append(rows)
        self._bytes += rows.nbytes
        if self._bytes > MOST:
            self._spill()

    def taken(self) -> Array:
        """All rows (T, *shape), which are not to be written to.

        Raises:
            OneStrideError: no room for the temporary file.
        """
        if self._file is None:
            return np.concatenate([np.zeros((0, *self._shape), self._dtype), *self._held])
        self._spill()
        with self._file as file:
            count = file.tell() // (math.prod(self._shape) * self._dtype.itemsize)
            return np.memmap(file, self._dtype, "r", shape=(count, *self._shape))

    def _spill(self) -> None:
        with _told(self._bytes):
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115  (closed when the rows are taken)
            for rows in self._held:
                self._file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
            self._file.flush()
        # One spill for each eighth from now on: few calls, little memory.
        self._held, self._bytes = [], MOST - MOST // 8


@contextmanager
def _told(size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OneStrideError(
            f"expected room for {size} bytes of pictures in {tempfile.gettempdir()}, got: {error.strerror}; "
            "TMPDIR names another folder"
        ) from error

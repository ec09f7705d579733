"""Arrays in an npz file, read and written row by row: `numpy.load` would hold each of them in memory whole.

Reference: numpy's NEP 1 (the npy format); an npz file is a zip archive of them.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from onestride.datasets.schema import Array
from onestride.hardware.errors import OneStrideError

SIGNATURE = b"PK\x03\x04"
_FORMAT: Any = np.lib.format
"""Public, but without types."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every member, so that the same data make the same file."""
_LONGEST_NOTE = 1 << 30
_READ_BYTES = 1 << 20
_WRITE_BYTES = 1 << 20


class Rows:
    """One array (N, *shape) of an npz file, to be read from its first row on."""

    def __init__(self, archive: zipfile.ZipFile, key: str) -> None:
        self.key = key
        self._stream: IO[bytes] = archive.open(f"{key}.npy")
        self.length, self.shape, self.dtype = self._header(archive.getinfo(f"{key}.npy").file_size)
        self.row_bytes = self.dtype.itemsize * math.prod(self.shape)
        """Size of one row."""
        self._held = b""
        """What was read and not yet asked for, from `_place` on."""
        self._place = 0

    def read(self, count: int) -> Array:
        """The next rows (count, *shape), which are not to be written to.

        Raises:
            OneStrideError: the file ends before.
        """
        wanted = count * self.row_bytes
        if len(self._held) - self._place < wanted:
            self._refill(wanted)
        start, self._place = self._place, self._place + wanted
        return np.ndarray((count, *self.shape), self.dtype, self._held, start)

    def finish(self) -> None:
        """Read past the last byte, where the archive compares its checksum."""
        while self._stream.read(1 << 20):
            pass

    def close(self) -> None:
        """Release the member."""
        self._stream.close()

    def _refill(self, wanted: int) -> None:
        """Hold `wanted` bytes at least: the archive's bookkeeping costs as much for few bytes as for many."""
        rest = self._held[self._place :]
        self._held, self._place = rest + self._stream.read(max(wanted, _READ_BYTES) - len(rest)), 0
        if len(self._held) < wanted:
            raise OneStrideError(f"{self.key}: expected {wanted} more bytes, got {len(self._held)}")

    def _header(self, size: int) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
        version = _FORMAT.read_magic(self._stream)
        if version not in ((1, 0), (2, 0)):
            raise OneStrideError(f"{self.key}: expected npy version 1 or 2, got {version}")
        read = _FORMAT.read_array_header_1_0 if version == (1, 0) else _FORMAT.read_array_header_2_0
        shape, fortran, dtype = read(self._stream)
        if not shape or (fortran and len(shape) > 1) or dtype.kind not in "biufSU":
            raise OneStrideError(f"{self.key}: expected rows of plain values, got shape {shape} of {dtype}")
        expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if size - self._stream.tell() != expected:
            raise OneStrideError(f"{self.key}: expected {expected} bytes for {shape}, got {size - self._stream.tell()}")
        return shape[0], tuple(shape[1:]), dtype.newbyteorder("=") if dtype.isnative else dtype


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The open archive; whatever is wrong inside is told with the file's name."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OneStrideError as error:
        raise OneStrideError(f"{path}: {error}") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        OSError,
        EOFError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        OverflowError,
        MemoryError,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise OneStrideError(f"{path}: expected a readable npz file, got: {reason}") from error


def keys_of(archive: zipfile.ZipFile) -> list[str]:
    """Keys of the arrays, in order."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def is_npz(path: Path) -> bool:
    """Whether the file begins as an npz file does: an archive whose first member is an npy file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(30 + 256)
    if not start.startswith(SIGNATURE) or len(start) < 30:
        return False
    length = int.from_bytes(start[26:28], "little")
    return start[30 : 30 + length].endswith(b".npy")


def read_note(archive: zipfile.ZipFile, name: str) -> bytes | None:
    """A member that is no array; None where there is none."""
    if name not in archive.namelist():
        return None
    if archive.getinfo(name).file_size > _LONGEST_NOTE:
        raise OneStrideError(f"{name}: expected a note, got {archive.getinfo(name).file_size} bytes")
    return archive.read(name)


def write_rows(
    archive: zipfile.ZipFile, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterable[Array]
) -> None:
    """Write an array of the given full shape from consecutive blocks of rows."""
    with archive.open(zipfile.ZipInfo(f"{key}.npy", _EPOCH), "w", force_zip64=True) as stream:
        described = {"descr": _FORMAT.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        _FORMAT.write_array_header_1_0(stream, described)
        count, waiting = 0, bytearray()
        for block in blocks:
            count += len(block)
            content = np.ascontiguousarray(block, dtype).reshape(-1).view(np.uint8).data
            # The archive's checksum and bookkeeping cost as much for few bytes as for many.
            if len(waiting) + len(content) < _WRITE_BYTES:
                waiting += content
                continue
            stream.write(waiting)
            stream.write(content)
            waiting = bytearray()
        stream.write(waiting)
    if count != shape[0]:
        raise OneStrideError(f"{key}: expected {shape[0]} rows, got {count}")


def write_note(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Write a member that is no array."""
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)

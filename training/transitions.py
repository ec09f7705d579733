"""What an online run has lived through: an append-only file of fixed-size records, each with its checksum.

A record that a killed process left half written is cut off when the file is opened: a checkpoint says how many
records belong to it, and only flushed ones are counted.
"""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onestride.hardware.errors import OneStrideError

Records: TypeAlias = NDArray[np.void]
"""One row for each transition, see :func:`layout`."""


def layout(observation_dim: int, action_dim: int) -> np.dtype[np.void]:
    """A record: what was seen, done and got, and whether an episode begins, ends or succeeds with it."""
    fields: list[Any] = [
        ("observation", "<f4", (observation_dim,)),
        ("action", "<f4", (action_dim,)),
        ("successor", "<f4", (observation_dim,)),
        *((name, "<f4") for name in ("reward", "mask", "terminal", "cost")),
        ("begins", "?"),
        ("ends", "?"),
        ("success", "?"),
    ]
    return np.dtype(fields)


class TransitionFile:
    """The records of one run, in the order they came."""

    def __init__(self, path: Path, observation_dim: int, action_dim: int) -> None:
        self.path = path
        self._layout = layout(observation_dim, action_dim)
        self._size = self._layout.itemsize + 4
        self.count = 0

    def open(self, count: int) -> Records:
        """Go on after the first ``count`` records: cut off later ones, and give back these.

        Raises:
            OneStrideError: There are fewer, one is damaged, or the disk refuses.
        """
        try:
            self._file = self.path.open("r+b" if self.path.exists() else "w+b")
            content = self._file.read(count * self._size)
            records = self._decoded(content, count)
            self._file.truncate(count * self._size)
            self._file.seek(count * self._size)
        except OSError as error:
            raise OneStrideError(f"{self.path}: expected a file of transitions, got: {error}") from error
        self.count = count
        return records

    def newest(self, most: int) -> Records:
        """Up to ``most`` of the last whole records, for a reader beside the run; none where there is no file.

        Raises:
            OneStrideError: One is damaged, or the disk refuses.
        """
        try:
            held = self.path.stat().st_size // self._size if self.path.exists() else 0
            count = min(most, held)
            with self.path.open("rb") if count else io.BytesIO() as file:
                file.seek((held - count) * self._size)
                return self._decoded(file.read(count * self._size), count)
        except OSError as error:
            raise OneStrideError(f"{self.path}: expected a file of transitions, got: {error}") from error

    def append(self, records: Records) -> None:
        """Write records; they are safe after :meth:`flush`."""
        for record in records:
            content = record.tobytes()
            self._file.write(content + zlib.crc32(content).to_bytes(4, "little"))
        self.count += len(records)

    def flush(self) -> None:
        """Bring everything written to the disk.

        Raises:
            OneStrideError: The disk refuses.
        """
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OneStrideError(f"{self.path}: expected to write transitions, got: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _decoded(self, content: bytes, count: int) -> Records:
        if len(content) < count * self._size:
            raise OneStrideError(f"{self.path}: expected {count} transitions, got {len(content) // self._size}")
        rows = np.frombuffer(content, np.uint8).reshape(count, self._size)
        bodies, sums = np.ascontiguousarray(rows[:, :-4]), np.ascontiguousarray(rows[:, -4:]).view("<u4").ravel()
        for number, (body, found) in enumerate(zip(bodies, sums, strict=True)):
            if zlib.crc32(body) != found:
                raise OneStrideError(f"{self.path}: expected transition {number} as it was written, got an altered one")
        return bodies.view(self._layout).reshape(count)

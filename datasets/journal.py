"""The journal: what a recorder writes on the robot, made so that no accident costs a finished episode.

One file of framed records, only ever appended to. Each frame carries two checksums, its place in the file and the
episode it belongs to, so that a reader finds its way again after any damage. A record is `FRAME` and its payload:

| kind | payload |
|---|---|
| HEADER | JSON `{"format", "id", "schema", "about"}`; stands twice, so that one flipped byte does not cost the schema |
| BEGIN | JSON `{"episode", "started", "attributes"}` |
| ROWS | the number of the stream (uint16), then its rows, packed as `row_dtypes` says |
| FINAL | the number of the feature (uint16), then its value after the last action |
| END | JSON `{"rows", "incomplete", "discarded", "attributes"}`; on the disk before anyone is told |
| AMEND | JSON `{"episode", "attributes", "discarded"}`: said of an episode after its end |

Numpy and the standard library only: a robot has neither zarr nor Python 3.11.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestride.hardware.durable import sync
from onestride.hardware.errors import OneStrideError

FORMAT = 1
SUFFIX = ".journal"

#: What every frame begins with.
MARKER = b"\xa5oj\x1a"
#: Marker, kind, record number, episode number (0 = none), bytes of the payload, its CRC, the CRC of all before it.
FRAME = struct.Struct("<4sIIIIII")
_CHECKED = FRAME.size - 4

#: What stands before rows and final values.
NUMBER = struct.Struct("<H")

#: Rows of more bytes are split over several records; also what a reader must hold at once, besides one row.
RECORD_BYTES = 1 << 20

#: Field of a packed row that holds its timestamp; no feature can have this name.
TIME = "@time"

Rows = NDArray[Any]


class Kind(IntEnum):
    """What a record is."""

    HEADER = 1
    BEGIN = 2
    ROWS = 3
    FINAL = 4
    END = 5
    AMEND = 6


class Frame(NamedTuple):
    """What stands before a record's payload."""

    kind: int
    record: int
    episode: int
    length: int
    payload_crc: int

    def pack(self) -> bytes:
        """Its bytes, with marker and checksum."""
        checked = struct.pack("<4sIIIII", MARKER, *self)
        return checked + struct.pack("<I", zlib.crc32(checked))

    @classmethod
    def unpack(cls, content: bytes) -> Frame | None:
        """A frame from its bytes; None for bytes that are none."""
        if len(content) != FRAME.size or content[:4] != MARKER:
            return None
        _, *fields, crc = FRAME.unpack(content)
        return cls(*fields) if crc == zlib.crc32(content[:_CHECKED]) else None


def features_by_stream(schema: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The features of each stream of a schema's JSON; the base stream first, streams in the order of features."""
    streams: dict[str, list[Mapping[str, Any]]] = {"base": []}
    for feature in schema["features"]:
        streams.setdefault(feature["stream"], []).append(feature)
    return streams


def row_dtypes(schema: Mapping[str, Any]) -> dict[str, np.dtype[Any]]:
    """Stream -> how one row of it is packed: its timestamp [ns], then its features; little-endian."""
    return {stream: _row_dtype(features) for stream, features in features_by_stream(schema).items()}


def _row_dtype(features: list[Mapping[str, Any]]) -> np.dtype[Any]:
    fields = [(one["name"], little(one["dtype"]), tuple(one["shape"])) for one in features]
    return np.dtype([(TIME, "<i8"), *fields])


def little(dtype: str) -> np.dtype[Any]:
    """A dtype in the byte order of the journal."""
    return np.dtype(dtype).newbyteorder("<")


class JournalWriter:
    """Appends records to a new journal.

    Every method raises `OSError` where the disk refuses; the file then ends with the last whole record, and the
    writer can go on once the disk takes more.

    Args:
        path: the file, which must not exist.
        schema: of what is recorded, as JSON.
        about: where it comes from, as JSON.

    Raises:
        OneStrideError: the file exists or cannot be written.

    Attributes:
        size: of the file [bytes].
        failed_flushes: how often the disk failed to take what the kernel had accepted.
    """

    def __init__(self, path: str | Path, schema: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        self.path, self.streams = Path(path), tuple(row_dtypes(schema))
        self._features = [feature["name"] for feature in schema["features"]]
        self._episode = self._records = self.size = self.failed_flushes = 0
        header = {"format": FORMAT, "id": self.path.stem, "schema": dict(schema), "about": dict(about or {})}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise OneStrideError(f"expected a new path for the journal, got {self.path}, which exists") from None
        except OSError as error:
            raise OneStrideError(f"expected a writable place for the journal, got {self.path}: {error}") from error
        try:
            self._write_json(Kind.HEADER, header)
            self._write_json(Kind.HEADER, header)
            self.sync()
            sync(self.path.parent)
        except OSError as error:
            os.close(self._file)
            self.path.unlink(missing_ok=True)
            raise OneStrideError(f"expected a writable place for the journal, got {self.path}: {error}") from error

    def begin(self, episode: str, started: int, attributes: Mapping[str, Any]) -> None:
        """Begin an episode that started at `started` [ns]."""
        self._episode += 1
        self._write_json(Kind.BEGIN, {"episode": episode, "started": started, "attributes": dict(attributes)})

    def rows(self, stream: str, rows: Rows) -> None:
        """Append rows (N,) of a stream, packed as `row_dtypes` says."""
        number = NUMBER.pack(self.streams.index(stream))
        step = max(1, RECORD_BYTES // rows.dtype.itemsize)
        for start in range(0, len(rows), step):
            content = np.ascontiguousarray(rows[start : start + step])
            self._write(Kind.ROWS, number, content.view(np.uint8).data)

    def final(self, feature: str, value: Rows) -> None:
        """Append a feature's value after the last action, in its own dtype, little-endian."""
        content = np.ascontiguousarray(value).tobytes()
        self._write(Kind.FINAL, NUMBER.pack(self._features.index(feature)), memoryview(content))

    @property
    def episode(self) -> int:
        """Number of the episode that was begun last; 0 = none yet."""
        return self._episode

    def end(self, content: Mapping[str, Any], episode: int | None = None) -> None:
        """End an episode, by its number, or the last one; it is on the disk when this returns."""
        self._write_json(Kind.END, content, episode)
        self.sync()

    def amend(self, content: Mapping[str, Any]) -> None:
        """Say something of an ended episode; it is on the disk when this returns."""
        self._write_json(Kind.AMEND, content)
        self.sync()

    def sync(self) -> None:
        """Flush all that was written to the disk.

        After a failure the kernel may forget what it could not write, and the next call succeeds without it: whoever
        tries again compares `failed_flushes`.
        """
        try:
            os.fsync(self._file)
        except OSError:
            self.failed_flushes += 1
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write_json(self, kind: Kind, content: Mapping[str, Any], episode: int | None = None) -> None:
        self._write(kind, json.dumps(content, allow_nan=False).encode(), memoryview(b""), episode)

    def _write(self, kind: Kind, head: bytes, body: memoryview, episode: int | None = None) -> None:
        crc = zlib.crc32(body, zlib.crc32(head))
        episode = self._episode if episode is None else episode
        frame = Frame(kind, self._records, episode, len(head) + len(body), crc).pack()
        try:
            _write_all(self._file, [memoryview(frame), memoryview(head), body])
        except OSError:
            with suppress(OSError):  # what is left of the record is found and passed over by readers
                os.ftruncate(self._file, self.size)
                os.lseek(self._file, 0, os.SEEK_END)
            raise
        self._records += 1
        self.size += FRAME.size + len(head) + len(body)


def _write_all(file: int, parts: list[memoryview]) -> None:
    while parts:
        done = os.writev(file, parts)
        while parts and done >= len(parts[0]):
            done -= len(parts.pop(0))
        if parts and done:
            parts[0] = parts[0][done:]

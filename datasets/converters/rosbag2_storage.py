"""The storage files of a rosbag2 recording: their messages in blocks of about a megabyte.

MCAP is read by `rosbags`. sqlite3 files are opened and checked by it too, but their messages come from one plain query:
`rosbags` counts all messages each time it opens a file, which takes longer than to read them.

Reference: https://github.com/ros2/rosbag2, `rosbag2_storage_sqlite3`
"""

from __future__ import annotations

import heapq
import sqlite3
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import TypesysError

from onestride.hardware.errors import OneStrideError

# What rosbags and the libraries below it raise on damaged files.
DAMAGE = (
    *(ReaderError, SerdeError, TypesysError, sqlite3.Error, struct.error, zlib.error, OSError, ValueError, KeyError),
    *(TypeError, IndexError, AssertionError, EOFError, RuntimeError, AttributeError, OverflowError, MemoryError),
)
BLOCK_BYTES, FIRST_BYTES = 1 << 20, 1 << 14
"""A block is closed at this size, and the first of all."""
SQLITE = b"SQLite format 3\0"

_Row = tuple[Any, int, bytes]
"""A message's topic, when the recorder received it [ns], its bytes."""


@dataclass(frozen=True)
class Block:
    """Messages in the order they were received, not decoded."""

    topics: NDArray[np.object_]
    """Name of each one's topic (M,)."""
    received: NDArray[np.int64]
    """By the recorder (M,) [ns]."""
    contents: list[bytes]

    @classmethod
    def of_rows(cls, rows: Sequence[_Row]) -> Block:
        """A block of at least one message.

        Raises:
            TypeError: no whole number or no bytes where there should be, as a damaged file may have it.
        """
        topics, received, contents = zip(*rows, strict=True)
        if {*map(type, received)} != {int} or {*map(type, contents)} != {bytes}:
            raise TypeError("messages that are none")
        return cls(np.array(topics, object), np.array(received, np.int64), list(contents))

    def rows(self) -> Iterator[_Row]:
        """One by one."""
        return zip(self.topics, self.received.tolist(), self.contents, strict=True)

    def __len__(self) -> int:
        """How many."""
        return len(self.contents)

    def cut(self, start: int, stop: int | None = None) -> Block:
        """Messages [start, stop)."""
        among = slice(start, stop)
        return Block(self.topics[among], self.received[among], self.contents[among])

    def of(self, topic: str) -> tuple[NDArray[np.int64], list[bytes]]:
        """When those of a topic were received [ns], and their bytes."""
        chosen = np.flatnonzero(self.topics == topic)
        return self.received[chosen], [self.contents[number] for number in chosen]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A reader of one storage file; damage is told with its name.

    Raises:
        OneStrideError: the file is damaged, or of a storage that cannot be read.
    """
    with _told(path), Reader(path) as reader:
        yield reader


def blocks_of(path: Path, topics: Collection[str]) -> Iterator[Block]:
    """Messages of some topics of one storage file.

    Raises:
        OneStrideError: the file is damaged.
    """
    with _told(path):
        yield from _of_sqlite(path, topics) if _is_sqlite(path) else _of_rosbags(path, topics)


def times_of(path: Path, topic: str) -> NDArray[np.int64]:
    """When the messages of a topic in one storage file were received [ns], in order; sqlite fetches no more than that.

    Raises:
        OneStrideError: the file is damaged.
    """
    with _told(path):
        if _is_sqlite(path):
            return _times_of_sqlite(path, topic)
        return np.concatenate([np.zeros(0, np.int64), *(block.received for block in _of_rosbags(path, [topic]))])


def merged(files: Iterable[Iterable[Block]]) -> Iterator[Block]:
    """Messages of several files in the order they were received."""
    rows = heapq.merge(*(chain.from_iterable(map(Block.rows, one)) for one in files), key=itemgetter(1))
    return map(Block.of_rows, _portions(rows))


def _of_rosbags(path: Path, topics: Collection[str]) -> Iterator[Block]:
    with Reader(path) as reader:
        wanted = [one for one in reader.connections if one.topic in topics]
        if wanted:
            found = reader.messages(connections=wanted)
            rows = ((connection.topic, received, bytes(content)) for connection, received, content in found)
            yield from map(Block.of_rows, _portions(rows))


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def _base(path: Path) -> closing[sqlite3.Connection]:
    # Immutable: no journal is looked for, and nothing is written beside a recording. One thread reads, but the garbage
    # collector may close in any.
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return closing(sqlite3.connect(uri, uri=True, check_same_thread=False))


def _names(base: sqlite3.Connection, topics: Collection[str]) -> tuple[dict[int, str], str]:
    """The wanted topics by their number, and as many places in a query."""
    names = {number: name for number, name in base.execute("SELECT id, name FROM topics") if name in topics}
    return names, ",".join("?" * len(names))


def _times_of_sqlite(path: Path, topic: str) -> NDArray[np.int64]:
    with _base(path) as base:
        names, places = _names(base, [topic])
        query = f"SELECT timestamp FROM messages WHERE topic_id IN ({places})"
        times = [time for (time,) in base.execute(query, tuple(names))]
    if {*map(type, times)} - {int}:
        raise TypeError("messages that are none")
    return np.sort(np.array(times, np.int64))


def _of_sqlite(path: Path, topics: Collection[str]) -> Iterator[Block]:
    with _base(path) as base:
        names, places = _names(base, topics)
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({places}) ORDER BY timestamp, id"
        for rows in _portions(base.execute(query, tuple(names))):
            yield Block.of_rows([(names[number], received, content) for number, received, content in rows])


def _portions(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """As many rows at once as make a block; few at first, for whoever looks at the first messages only."""
    held: list[_Row] = []
    size, enough = 0, FIRST_BYTES
    for row in rows:
        held.append(row)
        size += len(row[2])
        if size >= enough:
            yield held
            held, size, enough = [], 0, BLOCK_BYTES
    if held:
        yield held


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OneStrideError:
        raise
    except DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise OneStrideError(f"{path}: expected a readable rosbag2 file, got: {reason}") from error
    except Exception as error:
        # apsw and the decompressors have errors of their own, without a common root.
        if type(error).__module__.partition(".")[0] not in ("apsw", "backports", "compression", "lz4", "_zstd"):
            raise
        raise OneStrideError(f"{path}: expected a readable rosbag2 file, got: {error}") from error

"""Reading a journal: every episode that was finished, and what became of the others.

Damage costs the episode it lies in and no other: after it the reader looks for the next sound frame.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from pydantic import JsonValue, ValidationError

from onestride.datasets.journal import FORMAT, FRAME, MARKER, NUMBER, TIME, Frame, Kind, little, row_dtypes
from onestride.datasets.schema import BASE, Array, Episode, Schema
from onestride.hardware.errors import OneStrideError

_BLOCK = 1 << 20

UNFINISHED = "unfinished: the recorder was killed, or the disk refused its end"


@dataclass
class JournalEpisode:
    """An episode of a journal, and where its rows lie.

    Attributes:
        id: unique over all journals; empty where its beginning was damaged.
        number: its place in the journal, from 1.
        started: [ns].
        attributes: as recorded and amended.
        incomplete: what is missing, in words; empty for a whole episode.
        discarded: the operator did not want it.
        rows: rows of each stream.
    """

    id: str
    number: int
    started: int = 0
    attributes: dict[str, JsonValue] = field(default_factory=dict)
    incomplete: tuple[str, ...] = ()
    discarded: bool = False
    rows: dict[str, int] = field(default_factory=dict)
    succeeded_later: bool = False
    parts: list[tuple[str, int, int]] = field(default_factory=list)
    """Stream, offset and bytes of each run of rows."""
    finals: list[tuple[int, int, int]] = field(default_factory=list)
    """Feature's number, offset and bytes."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.id or f"number {self.number}"

    @property
    def length(self) -> int:
        """Steps of the base stream."""
        return self.rows.get(BASE, 0)


@dataclass(frozen=True)
class Damage:
    """Bytes that are no sound record.

    Attributes:
        offset: in the file.
        length: [bytes].
        torn: whether they are the end of the file, as a killed writer leaves it.
    """

    offset: int
    length: int
    torn: bool


@dataclass(frozen=True)
class _Record:
    frame: Frame
    offset: int
    """Of the payload."""


class Journal:
    """A journal file, open for reading: scanned and verified once, episodes read one at a time.

    Memory: the index, one record, and one episode while it is read.

    Args:
        path: the file.

    Attributes:
        id: of the journal.
        schema: of its episodes.
        about: where it comes from.
        episodes: all of them, in order; see `JournalEpisode.incomplete` and `.discarded`.
        damage: what is no sound record.
        report: everything that is not a whole episode, one line each.

    Raises:
        OneStrideError: no such file, not a journal, or both copies of its header are damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise OneStrideError(f"expected a journal at {self.path}, got: {error.strerror}") from error
        try:
            self._scan()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def read(self, episode: JournalEpisode) -> Episode:
        """An episode's arrays; of an incomplete one what there is.

        Raises:
            OneStrideError: the file changed since it was scanned.
        """
        gathered: dict[str, list[Array]] = {stream: [] for stream in self._dtypes}
        for stream, offset, length in episode.parts:
            content = self._at(offset, length)
            if len(content) != length:
                raise OneStrideError(f"{self.path}: expected the file as it was scanned, got a shorter one")
            gathered[stream].append(np.frombuffer(content, self._dtypes[stream]))
        data: dict[str, Array] = {}
        times: dict[str, Array] = {}
        for stream, parts in gathered.items():
            rows = np.concatenate([np.empty(0, self._dtypes[stream]), *parts])
            times[stream] = rows[TIME].astype(np.int64)
            for name in rows.dtype.names or ():
                if name != TIME:
                    data[name] = _native(rows[name])
        self._mark_success(episode, data)
        final = dict(self._final(*one) for one in episode.finals)
        ordered = {feature.name: data[feature.name] for feature in self.schema.features}
        return Episode(ordered, times, final, {"episode_id": episode.id, **episode.attributes})

    def _mark_success(self, episode: JournalEpisode, data: dict[str, Array]) -> None:
        """Success that was marked after the end makes the last step terminal, as it would have before."""
        for feature in self.schema.by_role("terminal") if episode.succeeded_later else ():
            if len(data[feature.name]):
                data[feature.name][-1] = True

    def _final(self, number: int, offset: int, length: int) -> tuple[str, Array]:
        feature = self.schema.features[number]
        value = np.frombuffer(self._at(offset, length), little(feature.dtype))
        return feature.name, _native(value.reshape(feature.shape))

    def _at(self, offset: int, length: int) -> bytes:
        parts, left = [], length
        while left and (part := os.pread(self._file, left, offset)):
            parts.append(part)
            offset, left = offset + len(part), left - len(part)
        return b"".join(parts)

    def _scan(self) -> None:
        self.damage: list[Damage] = []
        self._known, book = False, _Book()
        for record in self._records():
            if record is None:
                book.damaged()
                continue
            frame = record.frame
            if frame.kind == Kind.HEADER:
                self._read_header(self._at(record.offset, frame.length))
            elif self._known:
                self._note(book, record)
        if not self._known:
            size = os.fstat(self._file).st_size
            raise OneStrideError(f"{self.path}: expected a journal, got {size} bytes without a sound header")
        self.episodes, self._remarks = book.closed(), book.remarks

    def _read_header(self, content: bytes) -> None:
        try:
            header = json.loads(content)
            if header["format"] != FORMAT:
                raise OneStrideError(f"{self.path}: expected journal format {FORMAT}, got {header['format']!r}")
            self.schema: Schema = Schema.model_validate(header["schema"])
            self._dtypes = row_dtypes(header["schema"])
            self.id, self.about = str(header["id"]), dict(header["about"])
            self._known = True
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise OneStrideError(f"{self.path}: expected a journal's header, got: {error}") from error

    def _note(self, book: _Book, record: _Record) -> None:
        try:
            self._take(book, record)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise OneStrideError(
                f"{self.path}: record {record.frame.record} says what no recorder says: {error}"
            ) from error

    def _take(self, book: _Book, record: _Record) -> None:
        frame, offset = record.frame, record.offset
        if frame.kind in (Kind.ROWS, Kind.FINAL):
            (number,) = NUMBER.unpack(self._at(offset, NUMBER.size))
            start, length = offset + NUMBER.size, frame.length - NUMBER.size
            if frame.kind == Kind.FINAL:
                book.open(frame).finals.append((number, start, length))
            else:
                stream = tuple(self._dtypes)[number]
                book.add_rows(frame, stream, start, length, length // self._dtypes[stream].itemsize)
            return
        content = json.loads(self._at(offset, frame.length))
        {Kind.BEGIN: book.begin, Kind.END: book.end, Kind.AMEND: book.amend}[Kind(frame.kind)](frame, content)

    def _records(self) -> Iterator[_Record | None]:
        """Every sound record; None for each stretch of damage between them."""
        offset, size, expected = 0, os.fstat(self._file).st_size, 0
        while offset < size:
            frame = self._sound(offset, size)
            if frame is None:
                after = self._next(offset + 1, size)
                self.damage.append(Damage(offset, after - offset, torn=after == size))
                if after < size:  # a torn tail leaves its episode unfinished, nothing worse
                    yield None
                offset, expected = after, -1
                continue
            if expected >= 0 and frame.record != expected:
                yield None  # whole records are gone, as no accident of ours would do
            yield _Record(frame, offset + FRAME.size)
            offset, expected = offset + FRAME.size + frame.length, frame.record + 1

    def _sound(self, offset: int, size: int) -> Frame | None:
        frame = Frame.unpack(self._at(offset, FRAME.size))
        start = offset + FRAME.size
        if frame is None or start + frame.length > size or frame.kind not in tuple(Kind):
            return None
        crc, place = 0, start
        while place < start + frame.length:
            block = self._at(place, min(_BLOCK, start + frame.length - place))
            crc, place = zlib.crc32(block, crc), place + len(block)
        return frame if crc == frame.payload_crc else None

    def _next(self, offset: int, size: int) -> int:
        """Where the next sound record begins, or the end of the file."""
        while offset < size:
            block = self._at(offset, _BLOCK + len(MARKER) - 1)
            found = block.find(MARKER)
            while found >= 0:
                if self._sound(offset + found, size) is not None:
                    return offset + found
                found = block.find(MARKER, found + 1)
            offset += _BLOCK
        return size

    @property
    def report(self) -> list[str]:
        """Everything that is not a whole, wanted episode, one line each."""
        lines = [
            f"episode {one.name}: {'discarded' if one.discarded else '; '.join(one.incomplete)}"
            for one in self.episodes
            if one.discarded or one.incomplete
        ]
        return lines + self.damage_report

    @property
    def damage_report(self) -> list[str]:
        """What is no sound record, one line each."""
        what = {True: "torn tail", False: "damage"}
        return [f"{what[one.torn]}: {one.length} bytes at {one.offset}" for one in self.damage] + self._remarks


class _Book:
    """What the records say of the episodes, in the order of the file."""

    def __init__(self) -> None:
        self._all: dict[int, JournalEpisode] = {}
        self._ended: set[int] = set()
        self._frozen: set[int] = set()
        """Episodes in which something was lost: what comes after it does not join what came before."""
        self._current = 0
        self.remarks: list[str] = []

    def open(self, frame: Frame) -> JournalEpisode:
        """The episode of a record; one that is not known began in the damage before it."""
        self._current = frame.episode
        if frame.episode not in self._all:
            self._all[frame.episode] = JournalEpisode("", frame.episode)
            self._lose(frame.episode, "its beginning is damaged")
        return self._all[frame.episode]

    def begin(self, frame: Frame, content: dict[str, Any]) -> None:
        self._current = frame.episode
        self._all[frame.episode] = JournalEpisode(
            content["episode"], frame.episode, content["started"], content["attributes"]
        )

    def add_rows(self, frame: Frame, stream: str, offset: int, length: int, count: int) -> None:
        episode = self.open(frame)
        if frame.episode not in self._frozen:
            episode.parts.append((stream, offset, length))
            episode.rows[stream] = episode.rows.get(stream, 0) + count

    def end(self, frame: Frame, content: dict[str, Any]) -> None:
        episode = self.open(frame)
        self._ended.add(frame.episode)
        episode.attributes.update(content["attributes"])
        episode.discarded = content["discarded"]
        # An end that the disk did not take at once stands twice.
        episode.incomplete = tuple(dict.fromkeys((*episode.incomplete, *content["incomplete"])))
        promised = {stream: count for stream, count in content["rows"].items() if count}
        if promised != episode.rows and frame.episode not in self._frozen:
            self._lose(frame.episode, f"expected rows {promised}, found {episode.rows}")

    def amend(self, frame: Frame, content: dict[str, Any]) -> None:
        for episode in self._all.values():
            if episode.id == content["episode"]:
                episode.attributes.update(content["attributes"])
                episode.discarded = episode.discarded or content["discarded"]
                episode.succeeded_later |= content["attributes"].get("success") is True
                return
        self.remarks.append(f"an amendment of episode {content['episode']}, which is damaged, in record {frame.record}")

    def damaged(self) -> None:
        """Something is lost here: the episode that is open loses its end."""
        if self._current in self._all and self._current not in self._ended:
            self._lose(self._current, "damaged")

    def _lose(self, number: int, reason: str) -> None:
        if number not in self._frozen:
            self._frozen.add(number)
            self._all[number].incomplete += (reason,)

    def closed(self) -> tuple[JournalEpisode, ...]:
        for number, episode in self._all.items():
            if number not in self._ended and not episode.incomplete:
                episode.incomplete = (UNFINISHED,)
        return tuple(self._all[number] for number in sorted(self._all))


def _native(array: Array) -> Array:
    """A contiguous copy in this machine's byte order."""
    return np.array(array, array.dtype.newbyteorder("="))

"""The episode store: immutable segments behind an atomic manifest, safe against a crash at any instant.

A segment is written under `.staging/`, fsynced, renamed into `segments/`, and only then named by a new manifest.
Readers see what the manifest names and nothing else, so a killed writer leaves either the whole segment or none.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from onestride.datasets.committing import Fill, commit_segment
from onestride.datasets.layout import HEADER, LOCK, SEGMENTS, STAGING, read_header, uncommitted, write_empty
from onestride.datasets.lock import AppendLock
from onestride.datasets.manifest import Edition, EpisodeEdit, Manifest, SegmentEntry, read_manifest, write_manifest
from onestride.datasets.provenance import Provenance, now
from onestride.datasets.rows import Piece, Rows
from onestride.datasets.schema import BASE, Array, Episode, Schema
from onestride.datasets.segment_reader import Segment
from onestride.datasets.segment_writer import SEGMENT_BYTES, SegmentWriter
from onestride.datasets.segments import write_segment
from onestride.datasets.video import VideoNote
from onestride.hardware.durable import file_sha256, sync
from onestride.hardware.errors import OneStrideError, unknown

VERIFIERS = 2
"""Segments that are hashed at once."""

__all__ = ["EpisodeInfo", "SegmentWriter", "Store"]


@dataclass(frozen=True)
class EpisodeInfo:
    """Where an episode lies and what is said about it."""

    segment: str
    index: int
    """Its number within the segment."""
    length: int
    attributes: dict[str, JsonValue]
    start: int = 0
    """First base step within the committed episode; not 0 for a later part of a split one."""


class Store:
    """A dataset on disk. Make one with `Store.create` or `Store.open`."""

    def __init__(self, path: Path, schema: Schema, provenance: Provenance, manifest: Manifest) -> None:
        self.path = path
        self.schema = schema
        self.provenance = provenance
        self._segments: list[Segment] = []
        self._layout: dict[str, Rows] = {}
        self.dropped = uncommitted(path, manifest)
        """What a killed writer left behind; never read."""
        self._use(manifest)

    @classmethod
    def create(cls, path: str | Path, schema: Schema, provenance: Provenance) -> Store:
        """A new, empty store at `path`, complete or not there at all.

        Raises:
            OneStrideError: something exists at `path`, or it cannot be written.
        """
        path = Path(path)
        if os.path.lexists(path):
            raise OneStrideError(f"expected a new path for the store, got {path}, which exists")
        unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_empty(unfinished, schema, provenance)
            unfinished.rename(path)
            sync(path.parent)
        except OSError as error:
            raise OneStrideError(f"expected a writable place for the store, got {path}: {error}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """An existing store; its manifest is verified now, each segment when it is first read.

        Raises:
            OneStrideError: nothing there, not a store, or truncated, altered or incomplete.
        """
        path = Path(path)
        header = read_header(path)
        manifest = read_manifest(path)
        if file_sha256(path / HEADER) != manifest.header:
            raise OneStrideError(f"{path / HEADER}: expected the schema that was created, got an altered file")
        try:
            schema = Schema.model_validate(header["schema"])
            provenance = Provenance.model_validate(header["provenance"])
        except (KeyError, ValidationError) as error:
            raise OneStrideError(f"{path / HEADER}: expected schema and provenance, got: {error}") from error
        for entry in manifest.segments:
            if not (path / SEGMENTS / entry.id).is_dir():
                raise OneStrideError(f"{path}: expected segment {entry.id}, which the manifest names, got none")
        return cls(path, schema, provenance, manifest)

    @property
    def dataset_id(self) -> str:
        """Short content hash of the schema and every segment, in order."""
        return self._manifest.dataset_id(self.schema)

    @property
    def manifest(self) -> Manifest:
        """Which segments exist, and what was edited in them."""
        return self._manifest

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Every committed segment, in order."""
        return tuple(self._segments)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of every episode (E,)."""
        return np.array([piece.length for piece in self.pieces], np.int64)

    @property
    def num_episodes(self) -> int:
        """Number of episodes: what was committed, as edited."""
        return len(self.lengths)

    @property
    def num_steps(self) -> int:
        """Number of transitions of all episodes."""
        return int(self.lengths.sum())

    @cached_property
    def episodes(self) -> tuple[EpisodeInfo, ...]:
        """Every episode, in order."""
        return tuple(self.episode(number) for number in range(self.num_episodes))

    def episode(self, number: int) -> EpisodeInfo:
        """Where an episode lies and what is said about it; reads no data.

        Raises:
            OneStrideError: no such episode.
        """
        piece = self._piece(number)
        return EpisodeInfo(piece.segment.entry.id, piece.index, piece.length, piece.attributes, piece.part.start)

    def read(self, feature: str) -> Array:
        """A feature of all episodes, one after the other (N, *shape).

        Raises:
            OneStrideError: no such feature, or a segment was altered.
        """
        return self.read_rows(feature, 0, self.num_rows(self.schema.feature(feature).stream))

    def read_rows(self, feature: str, start: int, stop: int) -> Array:
        """Rows [start, stop) of `read(feature)`, of which only these are read and decompressed.

        Raises:
            OneStrideError: no such feature or rows, or a segment was altered.
        """
        described = self.schema.feature(feature)
        rows = self._rows(described.stream)
        self._check_rows(rows, start, stop)
        found = np.empty((stop - start, *described.shape), described.dtype)
        filled = 0
        for run in rows.between(start, stop):
            more = filled + run.stop - run.start
            found[filled:more] = run.segment.read(feature, slice(run.start, run.stop))
            filled = more
        return found

    def read_time(self, stream: str = BASE) -> NDArray[np.int64]:
        """Measured timestamps [ns] of all episodes, one after the other (N,)."""
        parts = [run.segment.time(stream, slice(run.start, run.stop)) for run in self._rows(stream).runs]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def read_index(self, stream: str) -> NDArray[np.int64]:
        """For each base step (N,) the last row of a stream available then, as a row of `read`; -1 = none yet."""
        rows = self._rows(stream)
        if stream == BASE:
            return np.arange(rows.count)
        offsets = np.cumsum(rows.lengths) - rows.lengths
        parts = [
            piece.available(self.schema.streams, stream, int(offset))
            for piece, offset in zip(self.pieces, offsets, strict=True)
        ]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def num_rows(self, stream: str = BASE) -> int:
        """Rows of a stream in all episodes.

        Raises:
            OneStrideError: no such stream.
        """
        return self._rows(stream).count

    def stream_lengths(self, stream: str = BASE) -> NDArray[np.int64]:
        """Rows of a stream in each episode (E,)."""
        return self._rows(stream).lengths

    def read_final(self, feature: str, start: int = 0, stop: int | None = None) -> tuple[Array, NDArray[np.bool_]]:
        """A feature's value after the last action of episodes [start, stop), and where it is known.

        Returns:
            Values (E, *shape), zero where unknown, and whether they are known (E,).
        """
        described = self.schema.feature(feature)
        cached: dict[str, tuple[Array, NDArray[np.bool_]]] = {}
        found = [piece.final(described, cached) for piece in self.pieces[start:stop]]
        values = np.zeros((len(found), *described.shape), described.dtype)
        for number, value in enumerate(found):
            values[number] = 0 if value is None else value
        return values, np.array([value is not None for value in found], bool)

    def final_known(self, feature: str) -> NDArray[np.bool_]:
        """Whether a feature's value after each episode's last action is known (E,); reads none of them."""
        described = self.schema.feature(feature)
        return np.array([piece.has_final(described) for piece in self.pieces], bool)

    def read_episode(self, number: int, features: Iterable[str] | None = None) -> Episode:
        """One episode as it was appended, or as it was edited since.

        Args:
            number: of the episode.
            features: names of those to read; None = all.

        Raises:
            OneStrideError: no such episode or feature, or its segment was altered.
        """
        chosen = self.schema.features if features is None else [self.schema.feature(name) for name in features]
        return self._piece(number).read(chosen, chosen, self.schema.streams)

    @property
    def video_notes(self) -> dict[str, tuple[VideoNote, ...]]:
        """Feature -> what is known of each of its video files; empty without the codec `video`."""
        found: dict[str, list[VideoNote]] = {}
        for segment in self._segments if any(one.codec == "video" for one in self.schema.features) else ():
            for name, note in segment.video_notes.items():
                found.setdefault(name, []).append(note)
        return {name: tuple(notes) for name, notes in found.items()}

    def verify_once(self) -> None:
        """Compare with its checksum every segment of which nothing was read yet, several at a time.

        For whoever is going to read from all of them: they would be verified one by one.

        Raises:
            OneStrideError: the first that is missing or altered.
        """
        with ThreadPoolExecutor(VERIFIERS) as pool:
            list(pool.map(Segment.verify_once, self._segments))

    def verify(self) -> None:
        """Compare every committed segment with its checksum.

        Raises:
            OneStrideError: names each segment that is missing or altered.
        """
        wrong = []
        for segment in self._segments:
            try:
                segment.verify()
            except OneStrideError as error:
                wrong.append(str(error))
        if wrong:
            raise OneStrideError("; ".join(wrong))

    def append(self, episodes: Sequence[Episode]) -> str:
        """Commit episodes as one new segment, all or nothing, and return its id.

        Raises:
            OneStrideError: an episode breaks the schema, another process is writing, or the disk refuses.
        """
        if not episodes:
            raise OneStrideError("expected at least one episode to append, got none")
        for number, episode in enumerate(episodes):
            try:
                episode.validate(self.schema)
            except OneStrideError as error:
                raise OneStrideError(f"episode {number} of {len(episodes)}: {error}") from error
        return self.commit(
            [episode.length for episode in episodes], lambda staged: write_segment(staged, self.schema, episodes)
        )

    def commit(self, lengths: Sequence[int], fill: Fill, edits: Sequence[EpisodeEdit] = ()) -> str:
        """Commit a segment that `fill` writes, all or nothing, and return its id.

        Raises:
            OneStrideError: another process is writing, another store took this one's place, or the disk refuses.
        """
        with self.exclusive():
            self._use(self._current())
            try:
                manifest = commit_segment(self.path, self._manifest, lengths, fill, edits=edits)
            except OSError as error:
                raise OneStrideError(
                    f"{self.path}: expected to write a segment, got: {error}; what was committed is intact"
                ) from error
            self._use(manifest)
            return manifest.segments[-1].id

    def edit(self, command: str, entries: Sequence[SegmentEntry]) -> None:
        """Replace what the manifest says of the segments, none of which is touched; noted in its history.

        Args:
            command: what was done, for the history.
            entries: the segments as they are named from now on.

        Raises:
            OneStrideError: the store changed since it was opened, another process is writing, or the disk refuses.
        """
        edition = Edition(edited=now(), command=command, parent=self.dataset_id)
        update = {"segments": tuple(entries), "history": (*self._manifest.history, edition)}
        manifest = self._manifest.model_copy(update=update)
        with self.exclusive():
            if read_manifest(self.path) != self._manifest:
                raise OneStrideError(
                    f"{self.path}: expected the store as it was opened, got one changed since; try again"
                )
            try:
                write_manifest(self.path, manifest, self.path / STAGING)
            except OSError as error:
                raise OneStrideError(f"{self.path}: expected a writable store, got: {error}") from error
            self._use(manifest)

    def writer(self, target_bytes: int = SEGMENT_BYTES) -> SegmentWriter:
        """A writer that gathers episodes into segments of about `target_bytes`; 0 = one segment each."""
        return SegmentWriter(self, target_bytes)  # pyright: ignore[reportArgumentType] - this file by its other path

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only writer for a while; appends within it take the lock no second time.

        Raises:
            OneStrideError: another writer is at work.
        """
        with nullcontext() if self._lock.held else self._lock:
            yield

    def _current(self) -> Manifest:
        """What is committed by now, to the store that was opened and not to one that took its place."""
        manifest = read_manifest(self.path)
        if manifest.header != self._manifest.header:
            raise OneStrideError(
                f"{self.path}: expected the store as it was opened, got another one that took its place; open it again"
            )
        return manifest

    @cached_property
    def _lock(self) -> AppendLock:
        return AppendLock(self.path / LOCK)

    @cached_property
    def pieces(self) -> list[Piece]:
        """Where every episode lies, in order."""
        return [Piece(segment, index, part) for segment in self._segments for index, part in segment.entry.visible]

    def _piece(self, number: int) -> Piece:
        if not 0 <= number < self.num_episodes:
            raise OneStrideError(f"expected an episode from 0 to {self.num_episodes - 1}, got {number}")
        return self.pieces[number]

    def _rows(self, stream: str) -> Rows:
        if stream not in self.schema.streams:
            raise unknown("stream", stream, self.schema.streams)
        if stream not in self._layout:
            self._layout[stream] = Rows(self.pieces, self.schema.streams, stream)
        return self._layout[stream]

    def _check_rows(self, rows: Rows, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= rows.count:
            raise OneStrideError(f"{self.path}: expected rows from 0 to {rows.count}, got {start} to {stop}")

    def _use(self, manifest: Manifest) -> None:
        known = {segment.entry.id: segment for segment in self._segments}
        self._manifest = manifest
        self._segments, self._layout = [], {}
        first = 0
        for entry in manifest.segments:
            segment = known.get(entry.id)
            if segment is None or segment.entry != entry or segment.first != first:
                segment = Segment(self.path / SEGMENTS / entry.id, entry, first)
            self._segments.append(segment)
            first += len(entry.visible)
        for cached in ("episodes", "lengths", "pieces"):
            self.__dict__.pop(cached, None)

"""The episode store: immutable segments behind an atomic manifest, safe against a crash at any instant.

A segment is written under `.staging/`, fsynced, renamed into `segments/`, and only then named by a new manifest.
Readers see what the manifest names and nothing else, so a killed writer leaves either the whole segment or none.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from onestride.datasets.layout import HEADER, LOCK, SEGMENTS, STAGING, read_header, uncommitted, write_empty
from onestride.datasets.lock import AppendLock
from onestride.datasets.manifest import Manifest, SegmentEntry, read_manifest, write_manifest
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Array, Episode, Schema
from onestride.datasets.segment_writer import SegmentWriter
from onestride.datasets.segments import Segment, write_segment
from onestride.hardware.durable import file_sha256, sync, sync_tree, tree_sha256
from onestride.hardware.errors import OneStrideError

__all__ = ["EpisodeInfo", "SegmentWriter", "Store"]


@dataclass(frozen=True)
class EpisodeInfo:
    """Where an episode lies and what is said about it."""

    segment: str
    index: int
    """Its number within the segment."""
    length: int
    attributes: dict[str, JsonValue]


class Store:
    """A dataset on disk. Make one with `Store.create` or `Store.open`."""

    def __init__(self, path: Path, schema: Schema, provenance: Provenance, manifest: Manifest) -> None:
        self.path = path
        self.schema = schema
        self.provenance = provenance
        self._segments: list[Segment] = []
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

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of every episode (E,)."""
        return np.array([n for entry in self._manifest.segments for n in entry.lengths], np.int64)

    @property
    def num_episodes(self) -> int:
        """Number of committed episodes."""
        return len(self.lengths)

    @property
    def num_steps(self) -> int:
        """Number of committed transitions."""
        return int(self.lengths.sum())

    @cached_property
    def episodes(self) -> tuple[EpisodeInfo, ...]:
        """Every committed episode, in order."""
        return tuple(
            EpisodeInfo(segment.entry.id, index, length, segment.attributes[index])
            for segment in self._segments
            for index, length in enumerate(segment.entry.lengths)
        )

    def read(self, feature: str) -> Array:
        """A feature of all episodes, one after the other (N, *shape).

        Raises:
            OneStrideError: no such feature, or a segment was altered.
        """
        described = self.schema.feature(feature)
        empty = np.zeros((0, *described.shape), described.dtype)
        return np.concatenate([empty, *(segment.read(feature) for segment in self._segments)])

    def read_final(self, feature: str) -> tuple[Array, NDArray[np.bool_]]:
        """A feature's value after each episode's last action (E, *shape), and where it is known (E,)."""
        described = self.schema.feature(feature)
        parts = [segment.final(described) for segment in self._segments]
        empty = np.zeros((0, *described.shape), described.dtype)
        values = np.concatenate([empty, *(value for value, _ in parts)])
        return values, np.concatenate([np.zeros(0, bool), *(present for _, present in parts)])

    def read_episode(self, number: int) -> Episode:
        """One episode as it was appended.

        Raises:
            OneStrideError: no such episode, or its segment was altered.
        """
        if not 0 <= number < self.num_episodes:
            raise OneStrideError(f"expected an episode from 0 to {self.num_episodes - 1}, got {number}")
        info = self.episodes[number]
        segment = next(one for one in self._segments if one.entry.id == info.segment)
        rows = {stream: slice(*segment.bounds[info.index, column]) for column, stream in enumerate(self.schema.streams)}
        finals = {feature.name: segment.final(feature) for feature in self.schema.features}
        return Episode(
            data={one.name: segment.read(one.name, rows[one.stream]) for one in self.schema.features},
            timestamps={stream: segment.time(stream, rows[stream]) for stream in self.schema.streams},
            final={n: values[info.index] for n, (values, present) in finals.items() if present[info.index]},
            attributes=info.attributes,
        )

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
        with self.exclusive():
            self._use(read_manifest(self.path))
            try:
                return self._commit(episodes)
            except OSError as error:
                raise OneStrideError(
                    f"{self.path}: expected to write a segment, got: {error}; what was committed is intact"
                ) from error

    def writer(self, target_bytes: int = 64 << 20) -> SegmentWriter:
        """A writer that gathers episodes into segments of about `target_bytes`; 0 = one segment each."""
        return SegmentWriter(self, target_bytes)  # pyright: ignore[reportArgumentType] - this file by its other path

    def _commit(self, episodes: Sequence[Episode]) -> str:
        staged = self.path / STAGING / uuid.uuid4().hex[:12]
        try:
            write_segment(staged, self.schema, episodes)
            sync_tree(staged)
            checksum = tree_sha256(staged)
            identity = f"{len(self._manifest.segments):06d}-{checksum[:12]}"
            home = self.path / SEGMENTS / identity
            # Only a killed writer can have left this name: same content, never committed.
            shutil.rmtree(home, ignore_errors=True)
            staged.rename(home)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        sync(home.parent)
        lengths = tuple(episode.length for episode in episodes)
        manifest = self._manifest.with_segment(SegmentEntry(id=identity, checksum=checksum, lengths=lengths))
        write_manifest(self.path, manifest, self.path / STAGING)
        self._use(manifest)
        return identity

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only writer for a while; appends within it take the lock no second time.

        Raises:
            OneStrideError: another writer is at work.
        """
        with nullcontext() if self._lock.held else self._lock:
            yield

    @cached_property
    def _lock(self) -> AppendLock:
        return AppendLock(self.path / LOCK)

    def _use(self, manifest: Manifest) -> None:
        known = {segment.entry: segment for segment in self._segments}
        self._manifest = manifest
        self._segments = [
            known.get(entry) or Segment(self.path / SEGMENTS / entry.id, entry) for entry in manifest.segments
        ]
        for cached in ("episodes", "lengths"):
            self.__dict__.pop(cached, None)

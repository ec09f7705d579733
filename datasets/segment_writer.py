"""Gathering episodes into segments of a sensible size, without losing any on Ctrl-C."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from onestride.datasets.manifest import read_manifest
from onestride.datasets.schema import Episode
from onestride.datasets.segments import write_segment

if TYPE_CHECKING:
    from onestride.datasets.store import Store


SEGMENT_BYTES = 64 << 20
"""At what size a segment is closed: what a writer holds in memory at most, besides one episode."""


class SegmentWriter:
    """Context manager that appends episodes to a store; its only writer while it is open.

    Every episode that was added is committed at the end, after an exception or Ctrl-C too. `kill -9` loses what
    was gathered since the last segment: with `target_bytes=0` that is nothing.
    """

    def __init__(self, store: Store, target_bytes: int) -> None:
        self.store = store
        self._target = target_bytes
        self._gathered: list[Episode] = []
        self._bytes = 0
        self._attempt: int | None = None
        """Segments there were when a flush began that has not returned."""
        self._stack = ExitStack()

    def __enter__(self) -> SegmentWriter:
        """Take the store's append lock.

        Raises:
            OneStrideError: another process is writing.
        """
        self._stack.enter_context(self.store.exclusive())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what is gathered and release the lock."""
        with self._stack:
            self.flush()

    def add(self, episode: Episode) -> None:
        """Take one episode; commits a segment when enough are gathered.

        Raises:
            OneStrideError: the episode breaks the schema (it is then not taken), or the disk refuses.
        """
        episode.validate(self.store.schema)
        self._settle()
        self._gathered.append(episode)
        self._bytes += episode.nbytes
        if self._bytes >= self._target:
            self.flush()

    def flush(self) -> None:
        """Commit what is gathered."""
        self._settle()
        if self._gathered:
            self._attempt = self._segments()
            schema, gathered = self.store.schema, self._gathered
            # Checked one by one when they were taken.
            lengths = [episode.length for episode in gathered]
            self.store.commit(lengths, lambda staged: write_segment(staged, schema, gathered))
            self._forget()

    def _settle(self) -> None:
        """Ctrl-C may strike after a commit and before we took note of it: append nothing twice."""
        if self._attempt is not None and self._segments() > self._attempt:
            self._forget()

    def _forget(self) -> None:
        self._gathered, self._bytes, self._attempt = [], 0, None

    def _segments(self) -> int:
        return len(read_manifest(self.store.path).segments)

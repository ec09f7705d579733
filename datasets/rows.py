"""Where the rows that readers see lie: episodes, or parts of them, over the segments of a store.

Rows of a stream are numbered over all visible episodes, one after the other. A part of a split episode has its own
base steps, and of every other stream the rows measured during them, preceded by the one that was available at its
start: so every step of it has what the whole episode had at that step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from onestride.datasets.manifest import Part
from onestride.datasets.schema import BASE, Array, Episode, Feature
from onestride.datasets.segment_reader import Segment


@dataclass(frozen=True)
class Piece:
    """What readers see as one episode."""

    segment: Segment
    index: int
    """Number of the committed episode within its segment."""
    part: Part

    @property
    def length(self) -> int:
        """Base steps."""
        return self.part.stop - self.part.start

    @property
    def whole(self) -> bool:
        """Whether it is all of the committed episode."""
        return self.part.start == 0 and self.part.stop == self.segment.entry.lengths[self.index]

    @property
    def ends(self) -> bool:
        """Whether it ends where the committed episode ends."""
        return self.part.stop == self.segment.entry.lengths[self.index]

    @classmethod
    def whole_of(cls, segment: Segment, index: int) -> Piece:
        """A committed episode as it was recorded."""
        return cls(segment, index, Part(start=0, stop=segment.entry.lengths[index]))

    def read(self, data: Iterable[Feature], finals: Iterable[Feature], streams: Sequence[str]) -> Episode:
        """The episode.

        Args:
            data: features whose rows are read.
            finals: features whose value after the last action is read, where there is one.
            streams: the schema's.
        """
        spans = {stream: slice(*self.rows(streams, stream)) for stream in streams}
        after = {feature.name: self.final(feature, {}) for feature in finals}
        return Episode(
            data={one.name: self._data(one, spans[one.stream]) for one in data},
            timestamps={stream: self.segment.time(stream, span) for stream, span in spans.items()},
            final={name: value for name, value in after.items() if value is not None},
            attributes=self.attributes,
        )

    @property
    def attributes(self) -> dict[str, JsonValue]:
        """What was recorded about it, as relabelled since."""
        return self.part.relabelled(self.segment.attributes[self.index])

    def _data(self, feature: Feature, rows: slice) -> Array:
        if rows.start == rows.stop:
            return np.zeros((0, *feature.shape), feature.dtype)
        return self.segment.read(feature.name, rows)

    def rows(self, streams: Sequence[str], stream: str) -> tuple[int, int]:
        """Rows [start, stop) of a stream within the segment."""
        base = self.segment.entry.starts[self.index]
        if stream == BASE:
            return base + self.part.start, base + self.part.stop
        start, stop = (int(row) for row in self.segment.bounds[self.index, streams.index(stream)])
        return (start, stop) if self.whole else self._among(stream, start, stop, base)

    def available(self, streams: Sequence[str], stream: str, offset: int) -> NDArray[np.int64]:
        """For each base step (T,) the last row of a stream available then, counted from `offset`; -1 = none yet."""
        first, last = self.rows(streams, stream)
        index = self.segment.index(stream, slice(*self.rows(streams, BASE)))
        # Where two base steps share an instant, the first of them may end a part.
        index = np.minimum(index, last - 1)
        return np.where(index < first, -1, index - first + offset)

    def final(self, feature: Feature, cached: dict[str, tuple[Array, NDArray[np.bool_]]]) -> Array | None:
        """Value after the last action: recorded, or what the episode went on with where it was split.

        Args:
            feature: of the base stream; others have none.
            cached: segment id -> its final values, filled here for the next piece.
        """
        if not _goes_on(feature):
            return None
        if not self.ends:
            row = self.segment.entry.starts[self.index] + self.part.stop
            after: Array = self.segment.read(feature.name, slice(row, row + 1))[0]
            return after
        identity = self.segment.entry.id
        if identity not in cached:
            cached[identity] = self.segment.final(feature)
        values, present = cached[identity]
        return values[self.index] if present[self.index] else None

    def has_final(self, feature: Feature) -> bool:
        """Whether `final` is known."""
        return _goes_on(feature) and (not self.ends or bool(self.segment.final_present(feature)[self.index]))

    def _among(self, stream: str, start: int, stop: int, base: int) -> tuple[int, int]:
        clock = self.segment.time(stream, slice(start, stop))
        first, last = start, stop
        if self.part.start > 0:
            begins = self._instant(base + self.part.start)
            first = start + max(0, int(np.searchsorted(clock, begins, side="right")) - 1)
        if not self.ends:
            ends = self._instant(base + self.part.stop)
            last = start + int(np.searchsorted(clock, ends, side="left"))
        return first, max(first, last)

    def _instant(self, row: int) -> int:
        return int(self.segment.time(BASE, slice(row, row + 1))[0])


@dataclass(frozen=True)
class Run:
    """Consecutive rows [start, stop) of one segment."""

    segment: Segment
    start: int
    stop: int


class Rows:
    """Every visible row of one stream.

    Args:
        pieces: the visible episodes, in order.
        streams: the schema's streams.
        stream: the one to lay out.
    """

    def __init__(self, pieces: Sequence[Piece], streams: Sequence[str], stream: str) -> None:
        self._pieces = pieces
        self._streams = streams
        self._stream = stream

    @cached_property
    def runs(self) -> list[Run]:
        """Consecutive stretches, in order."""
        runs: list[Run] = []
        for piece, (start, stop) in zip(self._pieces, self._spans, strict=True):
            last = runs[-1] if runs else None
            if last is not None and last.segment is piece.segment and last.stop == start:
                runs[-1] = Run(last.segment, last.start, stop)
            elif start < stop:
                runs.append(Run(piece.segment, start, stop))
        return runs

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Rows of each visible episode (E,)."""
        return np.array([stop - start for start, stop in self._spans], np.int64)

    @cached_property
    def count(self) -> int:
        """Number of rows."""
        return int(self.lengths.sum())

    def between(self, start: int, stop: int) -> Iterator[Run]:
        """The runs that rows [start, stop) lie in."""
        place = max(0, bisect_right(self._offsets, start) - 1)
        for run, offset in zip(self.runs[place:], self._offsets[place:], strict=False):
            low, high = max(start, offset), min(stop, offset + run.stop - run.start)
            if low >= stop:
                return
            if low < high:
                yield Run(run.segment, run.start + low - offset, run.start + high - offset)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """Rows within the segment, of each visible episode."""
        return [piece.rows(self._streams, self._stream) for piece in self._pieces]

    @cached_property
    def _offsets(self) -> list[int]:
        """Number of the first row of each run."""
        return list(accumulate((run.stop - run.start for run in self.runs), initial=0))


def _goes_on(feature: Feature) -> bool:
    """Whether it has a value after the last action."""
    return feature.role in ("observation", "state") and feature.stream == BASE

"""Where windows gather their rows from: memory, memory-mapped files, or a bounded buffer over the store itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from onestride.datasets.columns import Column, ColumnReader, Indices, Timeline
from onestride.datasets.sampling import Blocks
from onestride.datasets.schema import Array
from onestride.hardware.errors import unknown

Mode = Literal["resident", "mapped", "streaming"]
MODES: tuple[Mode, ...] = get_args(Mode)

BUFFER_BYTES = 256 << 20
"""Rows that streaming holds at once, unless told otherwise. While it reads it holds an eighth more, twice that where
the store's dtype is wider, and a chunk of the store; and 8 bytes for each window of an epoch's pool."""


@dataclass(frozen=True)
class Part:
    """Some windows whose rows lie in the arrays now, until the next part is asked for."""

    chosen: Indices | None
    """Which of the windows; None = all."""
    shift: Indices | None
    """What to add to a row's number to find it in the arrays, for each chosen window; None = nothing."""


class Source(Protocol):
    """Arrays of rows, and where to find a row in them."""

    arrays: Mapping[str, Array]
    """Column -> its rows, all of them or those of the present part."""
    available: int
    """Rows of each array."""

    def parts(self, rows: Indices) -> Iterator[Part]:
        """Bring the surroundings of each row (B,) into the arrays, in as many parts as that takes."""
        ...


class WholeSource:
    """Every row of every column, in memory or mapped."""

    def __init__(self, arrays: Mapping[str, Array], available: int) -> None:
        self.arrays = arrays
        self.available = available

    def parts(self, rows: Indices) -> Iterator[Part]:  # noqa: ARG002  (any rows: all are here)
        """Everything is here."""
        yield Part(None, None)


def load(columns: Sequence[Column], reader: ColumnReader, timeline: Timeline) -> WholeSource:
    """All columns in memory; while they are read, `READ_BYTES` of the store's rows, twice."""
    arrays = {}
    for column in columns:
        rows = np.empty((timeline.num_rows, *column.shape), column.dtype)
        for start, stop in reader.blocks(column):
            reader.fill(column, start, rows[start:stop])
        arrays[column.key] = rows
    return WholeSource(arrays, timeline.num_rows)


class StreamingSource:
    """A buffer of blocks, read from the store when they are first needed; the longest unused one makes room.

    Args:
        columns: what to read.
        reader: of the store.
        blocks: how the rows are cut; each block is kept with the margins that its windows reach into.
        num_rows: of the whole store.
    """

    def __init__(self, columns: Sequence[Column], reader: ColumnReader, blocks: Blocks, num_rows: int) -> None:
        self._columns, self._reader, self._blocks, self._num_rows = columns, reader, blocks, num_rows
        self.available = blocks.slots * blocks.slot_rows
        self.arrays: Mapping[str, Array] = {
            one.key: np.zeros((self.available, *one.shape), one.dtype) for one in columns
        }
        self._held = np.full(blocks.slots, -1)
        """Block in each slot, -1 = none."""
        self._slot = np.full(blocks.count, -1)
        """Slot of each block, -1 = none."""
        self._used = np.zeros(blocks.slots, np.int64)
        """When each slot was last asked for."""
        self._now = 0

    def parts(self, rows: Indices) -> Iterator[Part]:
        """One part where the rows' blocks fit into the buffer together, else one for every bufferful."""
        blocks = rows // self._blocks.size
        if (self._slot[blocks] >= 0).all():
            needed = self._slot[blocks]
            self._touch(np.unique(needed))
            yield Part(None, self._shift(blocks))
            return
        needed = np.unique(blocks)
        # What is here first: otherwise bringing the next blocks would drive it out before it is used.
        needed = needed[np.argsort(self._slot[needed] < 0, kind="stable")]
        for first in range(0, len(needed), self._blocks.slots):
            some = needed[first : first + self._blocks.slots]
            self._bring(some)
            chosen = None if len(some) == len(needed) else np.flatnonzero(np.isin(blocks, some))
            yield Part(chosen, self._shift(blocks if chosen is None else blocks[chosen]))

    def _bring(self, blocks: Indices) -> None:
        self._touch(self._slot[blocks[self._slot[blocks] >= 0]])
        for block in blocks[self._slot[blocks] < 0]:
            slot = int(self._used.argmin())
            self._read(int(block), slot)
            self._touch(np.array([slot]))

    def _touch(self, slots: Indices) -> None:
        self._now += 1
        self._used[slots] = self._now

    def _read(self, block: int, slot: int) -> None:
        if self._held[slot] >= 0:
            self._slot[self._held[slot]] = -1
        self._held[slot] = -1
        start = int(self._blocks.first_rows(np.array(block)))
        stop = min((block + 1) * self._blocks.size + self._blocks.behind, self._num_rows)
        place = slot * self._blocks.slot_rows
        for column in self._columns:
            self._reader.fill(column, start, self.arrays[column.key][place : place + stop - start])
        self._held[slot], self._slot[block] = block, slot

    def _shift(self, blocks: Indices) -> Indices:
        return self._slot[blocks] * self._blocks.slot_rows - self._blocks.first_rows(blocks)


def checked_mode(mode: str) -> None:
    """Refuse what is no mode.

    Raises:
        OneStrideError: lists the modes.
    """
    if mode not in MODES:
        raise unknown("mode of windows", mode, MODES)

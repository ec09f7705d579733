"""Windows straight from the store: a bounded buffer of blocks, and a thread that reads those of the next pool."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from onestride.datasets.columns import Column, ColumnReader, Indices
from onestride.datasets.sampling import SLOTS, Blocks
from onestride.datasets.schema import Array
from onestride.datasets.sources import Part

_EMPTY, _RESERVED = -1, -2
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class _Filler:
    """Reads blocks into slots. Apart from the source, so that reading ahead does not keep that alive."""

    columns: Sequence[Column]
    reader: ColumnReader
    blocks: Blocks
    num_rows: int
    arrays: Mapping[str, Array]

    def fill(self, block: int, slot: int) -> None:
        """Read a block with its margins into a slot."""
        start = int(self.blocks.first_rows(np.array(block)))
        stop = min((block + 1) * self.blocks.size + self.blocks.behind, self.num_rows)
        place = slot * self.blocks.slot_rows
        for column in self.columns:
            self.reader.fill(column, start, self.arrays[column.key][place : place + stop - start])


class StreamingSource:
    """A buffer of blocks, read from the store when they are first needed; the longest unused one makes room.

    It holds the blocks of two pools: what windows are drawn from, and what they will be drawn from next. Only the
    thread that asks for windows alters what is said of the slots; the other one fills a slot that was set aside.

    Args:
        columns: what to read.
        reader: of the store.
        blocks: how the rows are cut; each block is kept with the margins that its windows reach into.
        num_rows: of the whole store.
    """

    def __init__(self, columns: Sequence[Column], reader: ColumnReader, blocks: Blocks, num_rows: int) -> None:
        self._blocks = blocks
        slots = min(2 * SLOTS, blocks.count)
        self.available = slots * blocks.slot_rows
        self.arrays: Mapping[str, Array] = {
            one.key: np.zeros((self.available, *one.shape), one.dtype) for one in columns
        }
        self._fill = _Filler(columns, reader, blocks, num_rows, self.arrays).fill
        self._held = np.full(slots, _EMPTY)
        """Block in each slot."""
        self._slot = np.full(blocks.count, -1)
        """Slot of each block, -1 = none."""
        self._used = np.zeros(slots, np.int64)
        """When each slot was last asked for."""
        self._now = 0
        self._expected: Indices = np.zeros(0, np.int64)
        self._coming: dict[int, tuple[int, Future[None]]] = {}
        """Block that is being read ahead -> the slot that was set aside for it."""
        self._thread: ThreadPoolExecutor | None = None

    def parts(self, rows: Indices) -> Iterator[Part]:
        """One part where the rows' blocks fit into the buffer together, else one for every bufferful.

        Raises:
            OneStrideError: a segment was altered.
        """
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

    def expect(self, blocks: Indices) -> None:
        """Begin to read blocks that will be asked for, in a thread; those that were expected before are given up."""
        if blocks is self._expected:
            return
        self._give_up()
        # What was expected is drawn from now: neither it nor what is expected next makes room.
        for pool in (self._expected, blocks):
            self._touch(self._slot[pool[self._slot[pool] >= 0]])
        self._expected = blocks
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="streaming")
            # Whoever forgets to close waits for one block at most.
            weakref.finalize(self, self._thread.shutdown, wait=False, cancel_futures=True)
        for block in blocks[self._slot[blocks] < 0].tolist():
            slot = self._vacate()
            self._held[slot], self._used[slot] = _RESERVED, _NEVER
            self._coming[block] = slot, self._thread.submit(self._fill, block, slot)

    def close(self) -> None:
        """Stop reading ahead, and wait for the thread to end. Windows can still be asked for."""
        self._give_up()
        self._expected = np.zeros(0, np.int64)
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _bring(self, blocks: Indices) -> None:
        self._touch(self._slot[blocks[self._slot[blocks] >= 0]])
        for block in blocks[self._slot[blocks] < 0].tolist():
            if block in self._coming:
                self._arrive(block)
                continue
            slot = self._vacate()
            self._fill(block, slot)
            self._settle(block, slot)

    def _arrive(self, block: int) -> None:
        """Wait for a block that is being read ahead."""
        slot, filled = self._coming.pop(block)
        try:
            filled.result()
        except BaseException:
            self._release(slot)
            raise
        self._settle(block, slot)

    def _give_up(self) -> None:
        """Read no further ahead: what was not begun is not read, what is there already stays."""
        for block, (slot, filled) in list(self._coming.items()):
            # An error is not lost: whoever asks for the block reads it again.
            if filled.cancel() or filled.exception() is not None:
                del self._coming[block]
                self._release(slot)
            else:
                self._arrive(block)

    def _settle(self, block: int, slot: int) -> None:
        self._held[slot], self._slot[block] = block, slot
        self._touch(np.array([slot]))

    def _release(self, slot: int) -> None:
        self._held[slot], self._used[slot] = _EMPTY, 0

    def _touch(self, slots: Indices) -> None:
        self._now += 1
        self._used[slots] = self._now

    def _vacate(self) -> int:
        """The slot that was not asked for for longest, emptied."""
        slot = int(self._used.argmin())
        if self._held[slot] >= 0:
            self._slot[self._held[slot]] = -1
        self._release(slot)
        return slot

    def _shift(self, blocks: Indices) -> Indices:
        return self._slot[blocks] * self._blocks.slot_rows - self._blocks.first_rows(blocks)

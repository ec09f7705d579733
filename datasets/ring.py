"""A ring of rows between one thread that must not wait and one that writes to a disk.

One writer, one reader, no lock: each moves its own counter, and rows are copied before the counter moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.journal import TIME

Rows = NDArray[Any]

_NUMBERS = frozenset({float, int, bool})


class Ring:
    """The rows of one stream, in memory that is allocated and touched once.

    Args:
        dtype: of a packed row, see `journal.row_dtypes`.
        capacity: rows.

    Attributes:
        head: rows put so far.
        tail: rows taken so far.
        lost: rows that found no room.
        malformed: rows that did not fit the schema.
        trouble: why the last malformed row did not.
        reordered: rows whose timestamp was before the last one's, and was raised to it.
    """

    def __init__(self, dtype: np.dtype[Any], capacity: int) -> None:
        self._rows: Rows = np.zeros(capacity, dtype)
        self._rows.view(np.uint8)[:] = 0  # touched, so that the first round costs no page faults
        self._times = self._rows[TIME]
        self._columns = {name: self._rows[name] for name in dtype.names or () if name != TIME}
        self._shapes = {name: column.shape[1:] for name, column in self._columns.items()}
        self.capacity, self.head, self.tail = capacity, 0, 0
        self.lost = self.malformed = self.reordered = 0
        self.trouble, self._newest = "", 0

    def put(self, values: Mapping[str, Any], stamp: int) -> bool:
        """Copy one row in, stamped [ns]; whether there was room and it fitted. Never raises, never waits."""
        head = self.head
        if head - self.tail >= self.capacity:
            self.lost += 1
            return False
        place = head % self.capacity
        try:
            for name, column in self._columns.items():
                value = values[name]
                shape = () if type(value) in _NUMBERS else np.shape(value)
                if shape != self._shapes[name]:
                    raise ValueError(f"{name}: expected shape {self._shapes[name]}, got {shape}")
                column[place] = value
        except Exception as error:  # whatever it is, a recording must not end a control loop
            self.malformed += 1
            self.trouble = f"{type(error).__name__}: {error}"
            return False
        if stamp < self._newest:
            stamp, self.reordered = self._newest, self.reordered + 1
        self._times[place] = self._newest = stamp
        self.head = head + 1
        return True

    def forget_time(self) -> None:
        """The next row may be older than the last."""
        self._newest = 0

    def take(self, until: int) -> Iterator[Rows]:
        """The rows not taken yet, up to row number `until`, in at most two runs; each is free for new rows after it."""
        while self.tail < until:
            start = self.tail % self.capacity
            count = min(until - self.tail, self.capacity - start)
            yield self._rows[start : start + count]
            self.tail += count

    def skip(self, until: int) -> None:
        """Let go of the rows up to row number `until`."""
        self.tail = max(self.tail, until)

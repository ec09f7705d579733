"""Stretches of neighbouring rows, one for each window, in one copy each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.columns import Indices
from onestride.datasets.schema import Array


class Rows:
    """An array of rows (M, *shape), C-contiguous, from which stretches of `count` are copied.

    The rows of a window lie side by side: overlapping views of all windows make one memory copy of each.
    """

    def __init__(self, rows: Array, count: int) -> None:
        self.rows = rows
        self._shape = (count, *rows.shape[1:])
        self._views: Array | None = None
        if rows.size and len(rows) >= count:
            window = np.dtype((np.void, count * rows.strides[0]))
            self._views = np.ndarray(len(rows) - count + 1, window, rows, 0, rows.strides[:1])

    def straight(self, begin: Indices) -> Array:
        """The rows from each of B beginnings (B, count, *shape), where they are all inside the array."""
        if self._views is None:
            return np.zeros((len(begin), *self._shape), self.rows.dtype)
        return self._views[begin].view(self.rows.dtype).reshape(len(begin), *self._shape)


class Stretches:
    """Rows `first` to `first + count - 1` for each of B windows, bent where they would leave their episode.

    Args:
        first: where each window begins (B,); may lie outside the arrays.
        count: rows of a window.
        low: a row in front of this one is replaced by it (B,); None = none is.
        high: a row behind this one is replaced by it (B,); None = none is.
        available: rows M of the arrays.
    """

    def __init__(self, first: Indices, count: int, low: Indices | None, high: Indices | None, available: int) -> None:
        self._count = count
        self._first, self._low, self._high = first, low, high
        self._begin = np.minimum(first, available - count)
        if low is not None:
            self._begin = np.maximum(self._begin, 0)
        # Too few rows for even one window: each of them is put together.
        self._bent = self._outside() if available >= count else np.arange(len(first))
        self._wanted = self._rows(self._bent) if len(self._bent) else self._bent

    def of(self, rows: Rows) -> Array:
        """A copy of them (B, count, *shape)."""
        stretches = rows.straight(self._begin)
        if len(self._bent) and rows.rows.size:
            stretches[self._bent] = rows.rows.take(self._wanted, axis=0)
        return stretches

    def _outside(self) -> Indices:
        """The windows that reach over a border."""
        outside = np.zeros(len(self._first), bool) if self._low is None else self._first < self._low
        if self._high is not None:
            outside |= self._first + (self._count - 1) > self._high
        return outside.nonzero()[0]

    def _rows(self, chosen: Indices) -> Indices:
        wanted = self._first.take(chosen)[:, None] + np.arange(self._count)
        if self._high is not None:
            wanted = np.minimum(wanted, self._high.take(chosen)[:, None])
        return wanted if self._low is None else np.maximum(wanted, self._low.take(chosen)[:, None])


class Single:
    """One row for each of B windows: what `Stretches` are for a count of 1, with less to think about."""

    def __init__(self, row: Indices, high: Indices | None) -> None:
        self._row = row if high is None else np.minimum(row, high)

    def of(self, rows: Rows) -> Array:
        """A copy of them (B, 1, *shape)."""
        return rows.rows.take(self._row, axis=0)[:, None]


def steps_of(rows: Array, last_steps: Indices) -> Array:
    """The rows that are steps (N, *shape), without those after each episode's last action."""
    return np.delete(rows, last_steps + 1, axis=0)


def prefixes(count: int) -> NDArray[np.float32]:
    """Row n has n ones, then zeros (count + 1, count)."""
    return np.tri(count + 1, count, -1, np.float32)

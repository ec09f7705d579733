"""Sums and quantiles of rows that come block by block: to the bit those of numpy over all rows at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

LEAST = 128
"""Rows that numpy does not halve any more."""


def cuts(count: int, size: int, block: int) -> Iterator[tuple[int, int]]:
    """Where to cut rows (count, size) so that `ColumnSums` adds them up in numpy's order.

    numpy adds up several columns row by row, so any cut does; a single one it halves again and again, pairwise
    summation, so the cuts are the borders of those halves.

    Args:
        count: rows.
        size: columns.
        block: most rows in a block, at least `LEAST`.
    """
    if size > 1:
        yield from ((start, min(start + block, count)) for start in range(0, count, block))
    else:
        yield from _leaves(0, count, block)


class ColumnSums:
    """Sum of each column, over the blocks of `cuts`.

    Args:
        count: rows in all.
        size: columns.
        block: as for `cuts`.
    """

    def __init__(self, count: int, size: int, block: int) -> None:
        self._count, self._size, self._block = count, size, block
        self._parts: list[Vector] = []

    def add(self, rows: Vector) -> None:
        """The next block (n, size)."""
        if self._size > 1 and self._parts:
            rows = np.concatenate([self._parts.pop()[None], rows])
        self._parts.append(rows.sum(axis=0))

    @property
    def value(self) -> Vector:
        """The sums (size,) of all blocks."""
        return self._parts[0] if self._size > 1 else _paired(self._count, self._block, iter(self._parts))


class Tails:
    """Two quantiles of each column, linearly interpolated: the `share` lowest and the `share` highest rows are kept.

    Args:
        count: rows in all.
        share: of the lower quantile, from 0 to 0.5; the upper one is at 1 - share.
    """

    def __init__(self, count: int, share: float) -> None:
        self._count = count
        self._places = [(count - 1) * share, (count - 1) * (1 - share)]
        self._low = _Lowest(min(math.floor(self._places[0]) + 2, count))
        self._high = _Lowest(count - math.floor(self._places[1]))

    def add(self, rows: Vector) -> None:
        """The next block (n, size)."""
        self._low.add(rows)
        self._high.add(-rows)

    @property
    def value(self) -> tuple[Vector, Vector]:
        """Both quantiles (size,)."""
        return _between(self._low.rows, self._places[0]), _between(-self._high.rows[::-1], self._places[1] % 1)


class _Lowest:
    """The lowest values of each column."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: Vector | None = None

    def add(self, rows: Vector) -> None:
        both = rows if self._kept is None else np.concatenate([self._kept, rows])
        if len(both) > self._count:
            both = np.partition(both, self._count - 1, axis=0)[: self._count].copy()
        self._kept = both

    @property
    def rows(self) -> Vector:
        """Each column in ascending order (count, size)."""
        assert self._kept is not None
        return np.sort(self._kept, axis=0)


def _leaves(start: int, stop: int, block: int) -> Iterator[tuple[int, int]]:
    if stop - start <= block:
        yield start, stop
        return
    middle = start + _half(stop - start)
    yield from _leaves(start, middle, block)
    yield from _leaves(middle, stop, block)


def _paired(count: int, block: int, sums: Iterator[Vector]) -> Vector:
    if count <= block:
        return next(sums)
    left = _paired(_half(count), block, sums)
    return left + _paired(count - _half(count), block, sums)


def _half(count: int) -> int:
    """Where numpy's pairwise summation halves; it adds up eight at a time."""
    return count // 2 - count // 2 % 8


def _between(rows: Vector, place: float) -> Vector:
    """The value at a fractional row, by numpy's formula, which is exact at both ends."""
    low, part = math.floor(place), place % 1
    first, second = rows[low], rows[min(low + 1, len(rows) - 1)]
    step = second - first
    return np.asarray(second - step * (1 - part) if part >= 0.5 else first + step * part)

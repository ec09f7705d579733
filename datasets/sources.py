"""Where windows gather their rows from: memory, memory-mapped files, or a bounded buffer over the store itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from onestride.datasets.columns import Column, ColumnReader, Indices, Timeline
from onestride.datasets.schema import Array
from onestride.hardware.errors import unknown

Mode = Literal["resident", "mapped", "streaming"]
MODES: tuple[Mode, ...] = get_args(Mode)

BUFFER_BYTES = 256 << 20
"""Rows among which streaming draws, unless told otherwise. It holds twice that, for it reads ahead; while it reads, an
eighth of it more, twice that where the store's dtype is wider, and a chunk of the store; and 8 bytes for each window of
an epoch's pool."""


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

    def expect(self, blocks: Indices) -> None:
        """Make ready for rows of these blocks of the shuffle buffer."""
        ...

    def close(self) -> None:
        """End what works in the background."""
        ...


class WholeSource:
    """Every row of every column, in memory or mapped."""

    def __init__(self, arrays: Mapping[str, Array], available: int) -> None:
        self.arrays = arrays
        self.available = available

    def parts(self, rows: Indices) -> Iterator[Part]:  # noqa: ARG002  (any rows: all are here)
        """Everything is here."""
        yield Part(None, None)

    def expect(self, blocks: Indices) -> None:
        """Everything is here."""

    def close(self) -> None:
        """Nothing works in the background."""


def load(columns: Sequence[Column], reader: ColumnReader, timeline: Timeline) -> WholeSource:
    """All columns in memory; while they are read, `READ_BYTES` of the store's rows, twice."""
    arrays = {}
    for column in columns:
        rows = np.empty((timeline.num_rows, *column.shape), column.dtype)
        for start, stop in reader.blocks(column):
            reader.fill(column, start, rows[start:stop])
        arrays[column.key] = rows
    return WholeSource(arrays, timeline.num_rows)


def checked_mode(mode: str) -> None:
    """Refuse what is no mode.

    Raises:
        OneStrideError: lists the modes.
    """
    if mode not in MODES:
        raise unknown("mode of windows", mode, MODES)

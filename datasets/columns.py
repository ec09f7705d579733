"""What windows gather from: a store's features laid side by side, with one row more at each episode's end.

An episode of T steps takes T + 1 rows here: its steps, then what was observed after its last action. So a step and
its successor are always neighbours, and any stretch of rows can be read without the rest.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.schema import BASE, Array, Feature, Role
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError, unknown

Indices = NDArray[np.int64]

READ_BYTES = 32 << 20
"""Most bytes of a column that are decompressed at once while a dataset is loaded or copied."""


TABLE_STEPS = 2 << 20
"""Up to here the episode of a step is looked up in a table (8 MB), beyond it is searched for, which takes longer."""


class Timeline:
    """Where each episode lies among the steps, N in all, and among the rows, N + E in all.

    Args:
        lengths: steps of each episode (E,).
        known: whether the observation after the last action is recorded (E,).
    """

    def __init__(self, lengths: Indices, known: NDArray[np.bool_]) -> None:
        self.lengths = lengths
        self.stops: Indices = np.cumsum(lengths)
        """One past the last step."""
        self.first_rows: Indices = self.stops - lengths + np.arange(len(lengths))
        self.last_steps: Indices = self.first_rows + lengths - 1
        """Row of the last step."""
        self.last_rows: Indices = self.last_steps + known
        """Last row that holds an observation."""
        self.num_steps = int(self.stops[-1])
        self.num_rows = self.num_steps + len(lengths)
        small = self.num_steps <= TABLE_STEPS
        self._episode_of: Array | None = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths) if small else None

    def episodes(self, steps: Indices) -> Indices:
        """Episode of each step."""
        if self._episode_of is not None:
            return np.asarray(self._episode_of.take(steps))
        return self.stops.searchsorted(steps, side="right")

    def steps_before(self, rows: Indices) -> Indices:
        """Number of steps in the rows before each row, which may be one past the last."""
        done = self.last_steps.searchsorted(rows, side="left")
        inside = np.concatenate([self.first_rows, [self.num_rows]])[done]
        before: Indices = np.concatenate([[0], self.stops])[done]
        return np.asarray(before + np.maximum(rows - inside, 0), np.int64)

    def row_episodes(self, start: int, stop: int) -> tuple[int, int]:
        """The episodes [first, last) whose row after the last action lies in rows [start, stop)."""
        first, last = (self.last_steps + 1).searchsorted([start, stop], side="left")
        return int(first), int(last)


@dataclass(frozen=True)
class Column:
    """Features that are always gathered together: one array of rows."""

    key: str
    """Its name in a batch."""
    features: tuple[Feature, ...]
    shape: tuple[int, ...]
    """Of one row."""
    dtype: str
    horizon: int = 0
    """Not 0: instead of the feature, the number of rows up to the next one that is not 0, at most this many."""

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return int(np.dtype(self.dtype).itemsize) * math.prod(self.shape)

    @classmethod
    def vector(cls, key: str, features: Sequence[Feature]) -> Column:
        """The features' elements one after the other, as float32."""
        return cls(key, tuple(features), (sum(one.size for one in features),), "float32")

    @classmethod
    def image(cls, feature: Feature) -> Column:
        """One feature as it was recorded."""
        return cls(feature.name, (feature,), feature.shape, feature.dtype)

    @classmethod
    def countdown(cls, key: str, feature: Feature, horizon: int) -> Column:
        """Rows up to the feature's next one that is not 0, at most `horizon`."""
        return cls(key, (feature,), (), "int16" if horizon <= np.iinfo(np.int16).max else "int32", horizon)


class ColumnReader:
    """Reads any rows of any column of a store, holding no more than those."""

    def __init__(self, store: Store, timeline: Timeline) -> None:
        self._store = store
        self._timeline = timeline

    def fill(self, column: Column, start: int, out: Array) -> None:
        """Write rows [start, start + len(out)) of a column into `out`.

        Raises:
            OneStrideError: a segment was altered.
        """
        if column.horizon:
            self._count_down(column, start, out)
        else:
            self._copy(column, start, out)
        # zarr leaves what it decompressed in reference cycles, and Python counts objects, not bytes, before it looks.
        gc.collect(1)

    def _count_down(self, column: Column, start: int, out: Array) -> None:
        stop = min(start + len(out) + column.horizon, self._timeline.num_rows)
        values = np.zeros((stop - start, 1), np.float32)
        self._copy(Column.vector(column.key, column.features), start, values)
        places = np.arange(len(values))
        next_one = np.where(values[:, 0] != 0, places, len(values) + column.horizon)
        next_one = np.minimum.accumulate(next_one[::-1])[::-1]
        out[...] = np.minimum(next_one - places, column.horizon)[: len(out)]

    def _copy(self, column: Column, start: int, out: Array) -> None:
        stop = start + len(out)
        low, high = (int(step) for step in self._timeline.steps_before(np.array([start, stop])))
        first, last = self._timeline.row_episodes(start, stop)
        after = self._timeline.last_steps[first:last] + 1 - start
        is_step = np.ones(len(out), bool)
        is_step[after] = False
        place = 0
        for feature in column.features:
            part = out if column.shape == feature.shape else out[:, place : place + feature.size]
            rows = self._store.read_rows(feature.name, low, high)
            part[is_step] = rows.reshape(-1, *part.shape[1:])
            # Where it is unknown these are zeros, which are never looked up.
            values, _ = self._store.read_final(feature.name, first, last)
            part[after] = values.reshape(-1, *part.shape[1:])
            place += feature.size

    def blocks(self, column: Column) -> Iterator[tuple[int, int]]:
        """Stretches [start, stop) of all rows, each of at most `READ_BYTES`, one row at least."""
        count = max(1, READ_BYTES // max(1, column.row_bytes))
        for start in range(0, self._timeline.num_rows, count):
            yield start, min(start + count, self._timeline.num_rows)


def is_image(feature: Feature) -> bool:
    """Whether it is a picture: kept as it is, not joined into the vector of observations."""
    return feature.dtype == "uint8" and len(feature.shape) == 3


def chosen_observations(store: Store, names: Sequence[str] | None) -> list[Feature]:
    """The named observation features of the base stream; None = all that are no pictures.

    Raises:
        OneStrideError: an unknown or unfit name, one named twice, or none at all.
    """
    offered = [one for one in store.schema.by_role("observation") if one.stream == BASE]
    if names is None:
        names = [feature.name for feature in offered if not is_image(feature)]
    if not names or len(set(names)) != len(names):
        raise OneStrideError(
            f"expected at least one observation, each once, got {list(names)}, "
            f"available: {', '.join(one.name for one in offered) or 'none'}"
        )
    by_name = {feature.name: feature for feature in offered}
    for name in names:
        if name not in by_name:
            raise unknown(f"observation on the stream {BASE!r}", name, by_name)
    return [by_name[name] for name in names]


def scalar(store: Store, role: Role) -> Feature | None:
    """The store's feature of that role, one number for each step; None where it has none.

    Raises:
        OneStrideError: it has another shape or clock.
    """
    features = store.schema.by_role(role)
    if features and (features[0].size != 1 or features[0].stream != BASE):
        raise OneStrideError(
            f"expected one {role} for each step of stream {BASE!r}, "
            f"got {features[0].name!r} of shape {features[0].shape}"
        )
    return features[0] if features else None


def finals_known(store: Store, features: Sequence[Feature]) -> NDArray[np.bool_]:
    """Whether the observation after each episode's last action is recorded (E,).

    All features or none: an observation of two instants would be one that never was.
    """
    known = np.ones(store.num_episodes, bool)
    for feature in features:
        known &= store.final_known(feature.name)
    return known

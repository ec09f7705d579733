"""Which windows come next: uniform, weighted or by task, with or without replacement, the same on every machine.

The order is a function of the seed, the weights, the number of ranks and the shuffle buffer, never of where rows are
read from. All ranks draw the whole order and each takes its share of every batch, so that R ranks of B windows see,
together and in order, what one rank of R * B windows sees; one state serves them all.

**How random a shuffle buffer is.** Without one, every window is drawn from the whole dataset. With one, the rows are
cut into blocks of a sixteenth of the buffer; each pass puts the blocks into a new random order and takes sixteen at a
time; windows are drawn, or shuffled, among those sixteen only, in proportion to their share of the dataset. So over
a pass every window is as likely as without a buffer, but a batch holds windows of sixteen blocks, thirty-two at a
seam, and the learner sees one part of the data after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onestride.datasets.columns import Indices, Timeline
from onestride.datasets.store import Store
from onestride.hardware.durable import canonical_json
from onestride.hardware.errors import OneStrideError

Weights: TypeAlias = Literal["per-task"] | ArrayLike
Masses = NDArray[np.float64]

SLOTS = 16
"""Blocks in a shuffle buffer."""
_PASS, _EPOCH = 1, 2
"""Keep the random streams of the two ways to draw apart."""


@dataclass(frozen=True)
class Blocks:
    """How a shuffle buffer cuts the rows: block b is rows [b * size, (b + 1) * size)."""

    size: int
    count: int
    before: int
    """Rows in front of a block that its windows look back to."""
    behind: int
    """Rows behind a block that its windows reach."""

    @classmethod
    def cut(cls, num_rows: int, row_bytes: int, buffer: int, before: int, behind: int) -> Blocks:
        """The largest blocks of which `SLOTS`, margins included, fit into `buffer` bytes.

        Raises:
            OneStrideError: not even blocks of one row fit.
        """
        size = min(buffer // (SLOTS * row_bytes) - before - behind, num_rows)
        if size < 1:
            least = SLOTS * row_bytes * (1 + before + behind)
            raise OneStrideError(f"expected a buffer of at least {least} bytes for these windows, got {buffer}")
        return cls(size, -(-num_rows // size), before, behind)

    @property
    def slots(self) -> int:
        """Blocks in memory at once."""
        return min(SLOTS, self.count)

    @property
    def slot_rows(self) -> int:
        """Rows of a block with its margins."""
        return self.size + self.before + self.behind

    def first_rows(self, blocks: Indices) -> Indices:
        """First row of each block, its margin included."""
        return np.asarray(np.maximum(0, blocks * self.size - self.before), np.int64)


class Pool:
    """Windows that are drawn together: P runs of consecutive starts.

    Args:
        first: first start of each run (P,).
        counts: starts in each run (P,).
        mass: share of the draws of each run (P,), positive; None = all windows alike.
    """

    def __init__(self, first: Indices, counts: Indices, mass: Masses | None) -> None:
        self._first, self._counts = first, counts
        self._stops: Indices = np.cumsum(counts)
        self.count = int(self._stops[-1])
        self._shares = None if mass is None else np.cumsum(mass) / mass.sum()
        if self._shares is not None:
            self._shares[-1] = 1.0  # where rounding left a gap, a draw would fall past the end

    def draw(self, generator: np.random.Generator, count: int) -> Indices:
        """Starts (count,) with replacement."""
        if self._shares is None:
            return self._starts(generator.integers(self.count, size=count))
        runs = self._shares.searchsorted(generator.random(count), side="right")
        return np.asarray(self._first[runs] + generator.integers(self._counts[runs]), np.int64)

    def shuffled(self, generator: np.random.Generator) -> Indices:
        """Every start once, in random order."""
        return self._starts(generator.permutation(self.count))

    def _starts(self, numbers: Indices) -> Indices:
        if len(self._first) == 1:
            return numbers + self._first[0] if self._first[0] else numbers
        runs = self._stops.searchsorted(numbers, side="right")
        return np.asarray(self._first[runs] + numbers - (self._stops - self._counts)[runs], np.int64)


class Shuffle:
    """The pools that windows are drawn from, one after the other, in every pass over the data.

    Args:
        timeline: the episodes.
        mass: share of the draws of each episode (E,); None = all steps alike.
        blocks: of the shuffle buffer; None = everything is one pool.
    """

    def __init__(self, timeline: Timeline, mass: Masses | None, blocks: Blocks | None) -> None:
        self._timeline, self._mass = timeline, mass
        whole = blocks is None or blocks.count <= blocks.slots
        size = timeline.num_rows if blocks is None or whole else blocks.size
        self._edges = timeline.steps_before(np.append(np.arange(0, timeline.num_rows, size), timeline.num_rows))
        self._shares = np.array([self._runs(block)[2].sum() for block in range(len(self._edges) - 1)])
        self._used = np.flatnonzero(self._shares > 0)

    @property
    def single(self) -> bool:
        """Whether all windows are in one pool."""
        return len(self._edges) == 2

    @cached_property
    def count(self) -> int:
        """Windows that can be drawn at all."""
        lengths = self._timeline.lengths
        return int((lengths if self._mass is None else lengths[self._mass > 0]).sum())

    def groups(self, generator: np.random.Generator) -> list[Indices]:
        """The blocks of each pool of a pass, in random order."""
        order = generator.permutation(self._used)
        return [order[first : first + SLOTS] for first in range(0, len(order), SLOTS)]

    def pool(self, blocks: Indices) -> Pool:
        """The windows of some blocks."""
        parts = [self._runs(int(block)) for block in np.sort(blocks)]
        first, counts, mass = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Pool(first, counts, None if self._mass is None else mass)

    def quotas(self, groups: list[Indices]) -> Indices:
        """Draws of a pass, `count` in all, that are made when each pool is done (G,)."""
        shares = np.cumsum([self._shares[group].sum() for group in groups])
        return np.asarray(np.round(shares / shares[-1] * self.count), np.int64)

    def sizes(self, groups: list[Indices]) -> Indices:
        """Windows of the pools up to each one, itself included (G,)."""
        return np.cumsum([sum(int(self._runs(int(block))[1].sum()) for block in group) for group in groups])

    def _runs(self, block: int) -> tuple[Indices, Indices, Masses]:
        """First starts, counts and masses of a block's runs: one for each drawable episode, or one in all."""
        low, high = self._edges[block : block + 2]
        if self._mass is None:
            return np.array([low]), np.array([high - low]), np.array([high - low], np.float64)
        stops, lengths = self._timeline.stops, self._timeline.lengths
        inside = np.arange(stops.searchsorted(low, side="right"), stops.searchsorted(high, side="left") + 1)
        inside = inside[(inside < len(stops)) & (high > low)]
        inside = inside[self._mass[inside] > 0]
        first = np.maximum(stops[inside] - lengths[inside], low)
        counts = np.minimum(stops[inside], high) - first
        return first, counts, self._mass[inside] * counts / lengths[inside]


class Draws:
    """The stream of starts, and how far it has come.

    Args:
        shuffle: what to draw from.
        seed: of the draws.
        rank: this process's number.
        ranks: how many processes share every batch.

    Raises:
        OneStrideError: no such rank.
    """

    def __init__(self, shuffle: Shuffle, seed: int, rank: int = 0, ranks: int = 1) -> None:
        if not 0 <= rank < ranks:
            raise OneStrideError(f"expected a rank from 0 to ranks - 1, got rank {rank} of {ranks} ranks")
        self._shuffle, self._rank, self._ranks = shuffle, rank, ranks
        self._generator = np.random.default_rng(seed)
        self._seed = seed
        self._pass, self._drawn = 0, 0
        self._epoch, self._position = 0, 0
        self._everything = shuffle.pool(np.array([0])) if shuffle.single else None
        # What is made for the present pass, epoch and pool, with their numbers.
        self._pass_groups: tuple[int, list[Indices], Indices] | None = None
        self._epoch_groups: tuple[int, list[Indices], Indices] | None = None
        self._pool: tuple[int, int, Pool] | None = None
        self._pool_order: tuple[int, int, Indices] | None = None
        self.coming: Indices = np.zeros(0, np.int64)
        """Blocks that are drawn from when those of the last draw are done; none where there is no shuffle buffer."""

    def sample(self, count: int) -> Indices:
        """This rank's starts (count,) of the next `ranks * count`, with replacement."""
        drawn = self._draw(count * self._ranks)
        return drawn[self._rank * count : (self._rank + 1) * count]

    def epoch(self, count: int, drop_last: bool) -> Iterator[Indices]:
        """This rank's starts of every batch that is left of the epoch, every window once."""
        total, together = self._shuffle.count, count * self._ranks
        while self._position < total:
            stop = min(self._position + together, total)
            if drop_last and stop - self._position < together:
                break
            starts = self._ordered(self._position, stop)
            self._position = stop
            if len(share := np.array_split(starts, self._ranks)[self._rank]):
                yield share
        self._epoch, self._position = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, as JSON values; the same on every rank."""
        return {
            "generator": self._generator.bit_generator.state,
            "seed": self._seed,
            "pass": [self._pass, self._drawn],
            "epoch": [self._epoch, self._position],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; a state of the generator alone begins a first pass and epoch.

        Raises:
            OneStrideError: not such a state.
        """
        try:
            drawn = self._place(state.get("pass", [0, 0]))
            epoch = self._place(state.get("epoch", [0, 0]))
            seed = int(state.get("seed", self._seed))
            self._generator.bit_generator.state = state["generator"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OneStrideError(f"expected a sampler state with a PCG64 generator, got: {error}") from error
        (self._pass, self._drawn), (self._epoch, self._position), self._seed = drawn, epoch, seed
        self._forget()

    def _place(self, value: Any) -> tuple[int, int]:
        number, done = (int(one) for one in value)
        if number < 0 or not 0 <= done <= self._shuffle.count:
            raise ValueError(f"{done} of {self._shuffle.count} windows done in round {number}")
        return number, done

    def _draw(self, count: int) -> Indices:
        if self._everything is not None:
            return self._everything.draw(self._generator, count)
        parts = []
        while count:
            pool, left = self._current_pool()
            parts.append(pool.draw(self._generator, min(count, left)))
            count -= len(parts[-1])
            self._drawn += len(parts[-1])
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _current_pool(self) -> tuple[Pool, int]:
        """Where the next draws are made, and how many of them."""
        if self._drawn >= self._shuffle.count:
            self._pass, self._drawn = self._pass + 1, 0
        if self._pass_groups is None or self._pass_groups[0] != self._pass:
            groups = self._shuffle.groups(self._stream(_PASS, self._pass))
            self._pass_groups = (self._pass, groups, self._shuffle.quotas(groups))
        _, groups, quotas = self._pass_groups
        index = int(quotas.searchsorted(self._drawn, side="right"))
        if self._pool is None or self._pool[:2] != (self._pass, index):
            self._pool = (self._pass, index, self._shuffle.pool(groups[index]))
            self.coming = self._after(_PASS, self._pass, index, groups)
        return self._pool[2], int(quotas[index]) - self._drawn

    def _ordered(self, start: int, stop: int) -> Indices:
        """Starts number `start` to `stop` of the epoch."""
        if self._epoch_groups is None or self._epoch_groups[0] != self._epoch:
            groups = self._shuffle.groups(self._stream(_EPOCH, self._epoch))
            self._epoch_groups = (self._epoch, groups, self._shuffle.sizes(groups))
        _, groups, sizes = self._epoch_groups
        parts = []
        while start < stop:
            index = int(sizes.searchsorted(start, side="right"))
            begin = int(sizes[index - 1]) if index else 0
            order = self._order(index, groups)
            parts.append(order[start - begin : stop - begin])
            start += len(parts[-1])
        return np.concatenate(parts)

    def _order(self, index: int, groups: list[Indices]) -> Indices:
        if self._pool_order is None or self._pool_order[:2] != (self._epoch, index):
            self._pool_order = None  # one pool's order in memory, not two
            order = self._shuffle.pool(groups[index]).shuffled(self._stream(_EPOCH, self._epoch, index + 1))
            self.coming = self._after(_EPOCH, self._epoch, index, groups)
            self._pool_order = (self._epoch, index, order)
        return self._pool_order[2]

    def _after(self, way: int, number: int, index: int, groups: list[Indices]) -> Indices:
        """Blocks of the pool after one of a pass or epoch."""
        if self._shuffle.single:
            return self.coming
        return groups[index + 1] if index + 1 < len(groups) else self._shuffle.groups(self._stream(way, number + 1))[0]

    def _stream(self, *name: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *name])

    def _forget(self) -> None:
        """Make the orders anew when they are next needed."""
        self._pass_groups = self._epoch_groups = self._pool = self._pool_order = None


def episode_mass(store: Store, weights: Weights | None) -> Masses | None:
    """Share of the draws of each episode (E,); None = every step alike.

    Args:
        store: the episodes.
        weights: one number >= 0 for each episode, 0 = never drawn; or `per-task`: every task alike, and every step
            of a task alike.

    Raises:
        OneStrideError: not such weights, or an episode without a task.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights != "per-task":
            raise OneStrideError(f"weights: expected one number for each episode or 'per-task', got {weights!r}")
        return _per_task(store)
    mass = np.array(weights, np.float64)
    if mass.shape != (store.num_episodes,) or not np.isfinite(mass).all() or (mass < 0).any() or not mass.any():
        raise OneStrideError(
            f"weights: expected {store.num_episodes} finite numbers >= 0, not all 0, one for each episode, "
            f"got shape {mass.shape} from {mass.min(initial=np.inf)} to {mass.max(initial=-np.inf)}"
        )
    return mass


def _per_task(store: Store) -> Masses:
    tasks = [one.attributes.get("task") for one in store.episodes]
    without = [number for number, task in enumerate(tasks) if task is None]
    if without:
        raise OneStrideError(
            f"weights: expected the attribute 'task' in every episode, got none in {len(without)} of "
            f"{len(tasks)}, the first is episode {without[0]}"
        )
    _, numbers = np.unique([canonical_json(task) for task in tasks], return_inverse=True)
    steps = np.bincount(numbers, weights=store.lengths)
    return np.asarray(store.lengths / steps[numbers], np.float64)

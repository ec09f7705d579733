"""Windows of steps for training: padded and marked at episode ends, drawn in a fixed order, resumable to the bit.

A batch is a handful of numpy gathers, no loop over its samples. Rows come from memory (`resident`), from a
memory-mapped copy (`mapped`) or from the store itself through a bounded buffer (`streaming`); the windows are the same
to the bit, and so is their order where the shuffle buffer is the same, see `onestride.datasets.sampling`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.columns import (
    Column,
    ColumnReader,
    Indices,
    Timeline,
    chosen_observations,
    finals_known,
    is_image,
    scalar,
)
from onestride.datasets.gather import Rows, Single, Stretches, prefixes, steps_of
from onestride.datasets.memmap_cache import mapped
from onestride.datasets.sampling import Blocks, Draws, Shuffle, Weights, episode_mass
from onestride.datasets.schema import Array, Feature, Role
from onestride.datasets.sources import BUFFER_BYTES, Mode, Part, Source, checked_mode, load
from onestride.datasets.store import Store
from onestride.datasets.streaming_source import StreamingSource
from onestride.hardware.errors import OneStrideError

Batch = dict[str, Array]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]

_KEYS = ("observations", "actions", "rewards", "masks", "terminals", "next_observations", "valid")
_ROLES: tuple[Role, ...] = ("reward", "terminal", "mask")
_OUTCOMES = "outcomes"
"""Column of what is recorded of reward, terminal and mask."""
_AHEAD = "ahead"
"""Column of the number of steps up to the next terminal."""


class Windows:
    """Sampler of windows that start at any step of any episode.

    Args:
        store: where the steps are read from.
        observations: observation features, in this order; None = all but pictures, in the schema's order. Those of
            uint8 (H, W, C) are pictures and keep their name in a batch, the others are joined into one vector.
        horizon: steps h of a window.
        history: observations To up to and including the window's first step; before an episode's start the
            first observation is repeated.
        seed: of the order, >= 0.
        mode: `resident` reads everything into memory; `mapped` copies it once into memory-mapped files; `streaming`
            reads from the store what it needs, in a thread ahead of it, and holds twice `buffer` bytes of it.
        weights: share of the draws of each episode (E,), every step of it alike, 0 = left out; or `per-task`: every
            task (attribute `task`) alike; None = every step of the dataset alike.
        rank: this process's number of `ranks`, which share every batch without overlap.
        ranks: processes that train together.
        buffer: bytes of rows among which windows are drawn at a time, see `onestride.datasets.sampling`; None = all,
            and `BUFFER_BYTES` in the mode `streaming`. It shapes the order whatever the mode.
        cache: folder for `mapped`; None = beside the store, or in the user's cache folder.
        successors: whether batches hold what was observed after each window: `next_observations`, `next_<picture>`.
        outcomes: whether batches hold `rewards`, `masks` and `terminals`; imitation needs none of them.

    Raises:
        OneStrideError: an empty store, an unknown or unfit feature, or an argument out of its range.
    """

    def __init__(
        self,
        store: Store,
        *,
        observations: Sequence[str] | None,
        horizon: int,
        history: int = 1,
        seed: int = 0,
        mode: Mode = "resident",
        weights: Weights | None = None,
        rank: int = 0,
        ranks: int = 1,
        buffer: int | None = None,
        cache: Path | None = None,
        successors: bool = True,
        outcomes: bool = True,
    ) -> None:
        if horizon < 1 or history < 1:
            raise OneStrideError(f"expected horizon and history of at least 1, got {horizon} and {history}")
        if seed < 0:
            raise OneStrideError(f"expected a seed of at least 0, got {seed}")
        if store.num_steps == 0:
            raise OneStrideError(f"{store.path}: expected recorded episodes, got an empty store")
        checked_mode(mode)
        self.horizon = horizon
        self.history = history
        self.starts: Indices = np.zeros(0, np.int64)
        """Of the last `sample`: where its windows begin."""
        self._successors = successors
        self._with_outcomes = outcomes
        self._choose(store, chosen_observations(store, observations))
        mass = episode_mass(store, weights)
        self._unequal = isinstance(weights, str) or (mass is not None and len(np.unique(mass[mass > 0])) > 1)
        blocks = self._blocks(BUFFER_BYTES if buffer is None and mode == "streaming" else buffer)
        self._draws = Draws(Shuffle(self._timeline, mass, blocks), seed, rank, ranks)
        self._source = self._open(store, mode, blocks, cache)
        lengths = {"actions": horizon, _OUTCOMES: horizon}
        self._rows = {key: Rows(rows, lengths.get(key, history)) for key, rows in self._source.arrays.items()}

    @property
    def observation_dim(self) -> int:
        """Elements Do of one observation's vector."""
        return self._columns["observations"].shape[0]

    @property
    def action_dim(self) -> int:
        """Elements Da of one action."""
        return self._columns["actions"].shape[0]

    @property
    def num_windows(self) -> int:
        """Number of different windows: one for each step."""
        return self._timeline.num_steps

    @property
    def arrays(self) -> dict[str, Floats]:
        """Copies of what windows are made of, N steps: observations (N, Do), actions (N, Da), outcomes (N,) if any.

        Raises:
            OneStrideError: not all of it is in memory.
        """
        if self._mode != "resident":
            raise OneStrideError(f"expected the mode 'resident' for whole arrays, got {self._mode!r}")
        batch = {
            key: steps_of(self._source.arrays[key], self._timeline.last_steps) for key in ("observations", "actions")
        }
        if not self._with_outcomes:
            return batch
        outcomes = steps_of(self._source.arrays[_OUTCOMES], self._timeline.last_steps)
        terminals = self._outcome(outcomes, "terminal")
        masks = self._outcome(outcomes, "mask") if "mask" in self._places else 1 - terminals
        return {**batch, "rewards": self._outcome(outcomes, "reward"), "terminals": terminals, "masks": masks}

    def sample(self, batch_size: int) -> Batch:
        """Windows at starts that are drawn with replacement, as the weights say; see `at`.

        Raises:
            OneStrideError: a batch size below 1.
        """
        self.starts = self._draws.sample(_checked(batch_size))
        return self._drawn(self.starts)

    def epoch(self, batch_size: int, *, drop_last: bool = False) -> Iterator[Batch]:
        """Every window once, in random order: what is left of the present epoch, then it ends.

        Args:
            batch_size: windows of a batch, on each rank.
            drop_last: whether to leave out what does not fill a batch on every rank. Otherwise the ranks share it, so
                that some may get one window, or one batch, less than others.

        Raises:
            OneStrideError: a batch size below 1, or weights that only drawing with replacement can follow.
        """
        if self._unequal:
            raise OneStrideError(
                "expected weights that are equal or 0 for epochs, in which every window comes once, "
                "got different ones; use sample, which draws with replacement"
            )
        return self._epoch(_checked(batch_size), drop_last)

    def at(self, starts: Indices) -> Batch:
        """The windows that start at the given steps (B,) of the concatenated episodes.

        Returns:
            `observations` (B, To, Do); `actions` (B, h, Da), the episode's last one repeated past its end;
            `rewards` and `terminals` (B, h) as recorded, 0 past the end; `masks` (B, h), the running minimum;
            `valid` (B, h), 0 past the end and after the first terminal, which is what is not 0; `next_observations`
            (B, To, Do) after the last valid step. Each picture (B, To, H, W, C) uint8 under its feature's name, and
            the ones after the last valid step under `next_<name>`. Less what `successors` and `outcomes` leave out.
            With both, an episode's last step is not valid if no one recorded what was observed after it, unless its
            mask is 0: a value learnt from there would be its own.

        Raises:
            OneStrideError: no such step.

        Reference: arXiv:2507.07969 (Q-chunking), the chunk's masks and valid.
        """
        starts = np.asarray(starts, np.int64)
        if len(starts) and not 0 <= starts.min() <= starts.max() < self.num_windows:
            raise OneStrideError(
                f"expected starts from 0 to {self.num_windows - 1}, got {starts.min()} to {starts.max()}"
            )
        return self._at(starts)

    def state_dict(self) -> dict[str, Any]:
        """Where the order is, as JSON values: the next batch of `sample`, and of an epoch; the same on every rank."""
        return self._draws.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken, in any mode and with any number of ranks.

        Raises:
            OneStrideError: not such a state.
        """
        self._draws.load_state_dict(state)

    def close(self) -> None:
        """Stop reading ahead in the mode `streaming`, which else ends with this object; windows can still be drawn."""
        self._source.close()

    def _choose(self, store: Store, features: list[Feature]) -> None:
        """Settle what is gathered, and where each episode lies."""
        vector = [one for one in features if not is_image(one)]
        pictures = [one for one in features if is_image(one)]
        reserved = (*_KEYS, _OUTCOMES, _AHEAD)
        if taken := [one.name for one in pictures if one.name in reserved or one.name.startswith("next_")]:
            raise OneStrideError(
                f"expected pictures not named {', '.join(reserved)} or next_…, which batches use, "
                f"got {', '.join(taken)}"
            )
        asked: tuple[Role, ...] = _ROLES if self._with_outcomes else ("terminal",)
        roles = {role: scalar(store, role) for role in asked}
        recorded = {role: feature for role, feature in roles.items() if feature is not None}
        self.observations = tuple(one.name for one in vector)
        """Features of the vector, in order."""
        self.images = tuple(one.name for one in pictures)
        """Features that are pictures, in order."""
        self._places = {role: place for place, role in enumerate(recorded)}
        columns = [
            Column.vector("observations", vector),
            Column.vector("actions", [store.schema.feature(store.schema.label)]),
            *([Column.vector(_OUTCOMES, list(recorded.values()))] if self._with_outcomes else []),
            *(Column.image(one) for one in pictures),
        ]
        if "terminal" in recorded:
            columns.append(Column.countdown(_AHEAD, recorded["terminal"], self.horizon))
        self._columns = {column.key: column for column in columns}
        self._timeline = Timeline(store.lengths, finals_known(store, features))
        self._prefixes = prefixes(self.horizon)

    def _blocks(self, buffer: int | None) -> Blocks | None:
        if buffer is None:
            return None
        row_bytes = sum(column.row_bytes for column in self._columns.values())
        return Blocks.cut(self._timeline.num_rows, row_bytes, buffer, self.history - 1, self.horizon)

    def _open(self, store: Store, mode: Mode, blocks: Blocks | None, cache: Path | None) -> Source:
        self._mode = mode
        reader, columns = ColumnReader(store, self._timeline), list(self._columns.values())
        if blocks is not None and mode == "streaming":
            return StreamingSource(columns, reader, blocks, self._timeline.num_rows)
        if mode == "mapped":
            return mapped(store, columns, reader, self._timeline, cache)
        return load(columns, reader, self._timeline)

    def _epoch(self, batch_size: int, drop_last: bool) -> Iterator[Batch]:
        for starts in self._draws.epoch(batch_size, drop_last):
            yield self._drawn(starts)

    def _drawn(self, starts: Indices) -> Batch:
        """The windows at drawn starts, and then those to come are looked for."""
        batch = self._at(starts)
        self._source.expect(self._draws.coming)
        return batch

    def _at(self, starts: Indices) -> Batch:
        episodes = self._timeline.episodes(starts)
        rows = starts + episodes
        batch: Batch = {}
        for part in self._source.parts(rows):
            if part.chosen is None:
                return self._windows(rows, episodes, part)
            for key, values in self._windows(rows[part.chosen], episodes[part.chosen], part).items():
                if key not in batch:
                    batch[key] = np.empty((len(starts), *values.shape[1:]), values.dtype)
                batch[key][part.chosen] = values
        return batch

    def _windows(self, rows: Indices, episodes: Indices, part: Part) -> Batch:
        """The windows of one part, all of whose rows the source holds."""
        first = self._timeline.first_rows.take(episodes)
        last = self._timeline.last_steps.take(episodes)
        end = self._timeline.last_rows.take(episodes)
        if part.shift is not None:
            rows, first, last, end = rows + part.shift, first + part.shift, last + part.shift, end + part.shift
        chunk = Stretches(rows, self.horizon, None, last, self._source.available)
        left = np.minimum(last - rows + 1, self.horizon)
        ahead = self._source.arrays[_AHEAD].take(rows) if "terminal" in self._places else left
        counts = np.minimum(ahead + 1, left)
        batch = {
            **self._histories("", rows, first, None),
            "actions": chunk.of(self._rows["actions"]),
        }
        if self._with_outcomes:
            batch |= self._outcomes(chunk, left, ahead)
            if self._successors:
                counts = counts - _unanswered(rows + counts > last, end == last, batch["masks"])
        if self._successors:
            batch |= self._histories("next_", rows + counts, first, end)
        batch["valid"] = self._prefixes.take(counts, axis=0)
        return batch

    def _histories(self, prefix: str, rows: Indices, first: Indices, end: Indices | None) -> Batch:
        """Observations (B, To, ...) up to the given rows, the episode's first and last one repeated outside it."""
        if self.history == 1:
            chosen: Single | Stretches = Single(rows, end)
        else:
            chosen = Stretches(rows - (self.history - 1), self.history, first, end, self._source.available)
        return {prefix + key: chosen.of(self._rows[key]) for key in ("observations", *self.images)}

    def _outcomes(self, chunk: Stretches, left: Indices, ahead: Indices) -> Batch:
        """Rewards, masks and terminals (B, h).

        Args:
            chunk: the windows.
            left: steps up to the episode's end, at most h (B,).
            ahead: steps up to the next terminal (B,).
        """
        found: Floats = chunk.of(self._rows[_OUTCOMES])
        inside = self._prefixes.take(left, axis=0)
        if "mask" in self._places:
            masks = _lowest(self._outcome(found, "mask"))
        else:
            masks = self._prefixes.take(np.where(ahead < left, ahead, self.horizon), axis=0)
        return {
            "rewards": self._outcome(found, "reward") * inside,
            "masks": masks,
            "terminals": self._outcome(found, "terminal") * inside,
        }

    def _outcome(self, found: Floats, role: str) -> Floats:
        """The recorded values of a role, or zeros."""
        return found[..., self._places[role]] if role in self._places else np.zeros(found.shape[:-1], np.float32)


def _unanswered(to_the_end: Flags, unknown: Flags, masks: Floats) -> Flags:
    """Whether the last step has a value that goes on, at an observation that no one recorded (B,).

    Args:
        to_the_end: whether the window reaches its episode's last step (B,).
        unknown: whether what was observed after the episode is not recorded (B,).
        masks: (B, h).
    """
    goes_on: Flags = masks[:, -1] != 0
    return to_the_end & unknown & goes_on


def _lowest(values: Floats) -> Floats:
    """Running minimum along each row (B, h), as a new array; few rows are not constant."""
    lowest = np.array(values)
    varied = (lowest != lowest[:, :1]).any(axis=1).nonzero()[0]
    if len(varied):
        lowest[varied] = np.minimum.accumulate(lowest[varied], axis=1)
    return lowest


def _checked(batch_size: int) -> int:
    if batch_size < 1:
        raise OneStrideError(f"expected a batch size of at least 1, got {batch_size}")
    return batch_size

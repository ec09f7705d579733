"""Proving a claim on every state of a region, by bounds on cells that are split until they decide.

On each cell the conditions are bounded by intervals and by the mean value theorem (value at the centre plus steepness
times radius), whichever is tighter. A cell where an option keeps all conditions is proved. A centre where none does is
a counterexample. All others are split. Where the level is free, it sinks below everything that could not be proved;
what remains is the certified region: `V < level` within the domain, which no step leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onestride.hardware.state import Array
from onestride.training.certificates.claims import Function, Option
from onestride.training.certificates.jets import Jet, affine, stacked, variables

Progress = Callable[[float, str], None]
Bools = NDArray[np.bool_]
Indices = NDArray[np.int64]

#: What rounding of float64 cannot make up: conditions must be this far below zero.
MARGIN = 1e-9


@dataclass(frozen=True)
class Effort:
    """How much work a proof may be.

    Attributes:
        cells: bounded at most.
        resolution: smallest half width of a cell, relative to the domain's.
        batch: cells bounded at once.
        samples: random states tried before anything is bounded.
        seed: of those.
    """

    cells: int = 2_000_000
    resolution: float = 2.0**-12
    batch: int = 16_384
    samples: int = 20_000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Verdict:
    """What was proved.

    Attributes:
        accepted: whether the claim is proved: on the whole given level, or where that was free on any region at all.
        level: the claim holds where V is below.
        volume: of the certified region, estimated by sampling, in units of the state.
        share: of the domain's volume.
        counterexamples: states where every option breaks the claim (k, n).
        cells: bounded.
        undecided: cells too small to split, or left when the work was used up.
        seconds: it took.
    """

    accepted: bool
    level: float
    volume: float
    share: float
    counterexamples: Array
    cells: int
    undecided: int
    seconds: float


@dataclass
class _Search:
    """A proof under way."""

    region: Function
    options: Sequence[Option]
    half: Array
    resolution: float
    frame: Array
    disturbance: Array
    level: float
    fixed: bool
    highest: float = -np.inf
    counterexamples: list[Array] = field(default_factory=list)
    cells: int = 0
    undecided: int = 0

    def violated(self, x: Array) -> Bools:
        """Which states (n, B) break the claim whatever the option."""
        still = np.ones(x.shape[1], dtype=bool)
        calm = [np.zeros(x.shape[1])] * len(self.disturbance)
        for option in self.options:
            worst = np.maximum.reduce([np.broadcast_to(one, still.shape) for one in option(list(x), calm)])
            still &= ~(worst <= 0.0)
        return still

    def refute(self, x: Array) -> None:
        """Look for counterexamples among states (n, B); the level sinks to them, or they are held against it.

        The cell around one stays open: what it holds below the new level is still to be proved.
        """
        value = np.asarray(self.region(list(x)))
        bad = self.violated(x) & (value < self.level)
        if bad.any():
            self.counterexamples.append(x[:, bad].T)
            self.level = self.level if self.fixed else min(self.level, float(value[bad].min()))

    def give_up(self, low: Array) -> None:
        """Cells stay undecided whose values begin at `low` (B,)."""
        self.undecided += len(low)
        if not self.fixed and len(low):
            self.level = min(self.level, float(low.min()))

    def states(self, z: Array) -> Array:
        """The states at coordinates `z` (n, B)."""
        return np.asarray(self.frame @ z)

    def bound(self, centre: Array, radius: Array) -> tuple[Bools, Array, Indices]:
        """One batch of cells: which are open still (B,), where their values begin, and the axis to split (B,)."""
        self.cells += centre.shape[1]
        jets, _ = self._jets(centre, radius)
        low, high, _ = tightened(self.region(jets), np.asarray(self.region(list(self.states(centre)))), radius)
        open_, axis = low < self.level, np.zeros(centre.shape[1], dtype=np.int64)
        proved = np.zeros_like(open_)
        for option in self.options:
            left = np.flatnonzero(open_ & ~proved)
            if not len(left):
                break
            proved[left], axis[left] = self._kept(option, centre[:, left], radius[:, left])
        self.highest = max(self.highest, float(high.max()))
        return open_ & ~proved, low, axis

    def _jets(self, centre: Array, radius: Array) -> tuple[list[Jet], list[Jet]]:
        """State and disturbance of each cell."""
        still = np.zeros((len(self.disturbance), centre.shape[1]))
        jets = variables(np.vstack([centre, still]), np.vstack([radius, still + self.disturbance[:, None]]))
        state = affine(self.frame, stacked(jets[: len(centre)]), np.zeros(len(centre)))
        return [state.row(index) for index in range(state.rows)], jets[len(centre) :]

    def _kept(self, option: Option, centre: Array, radius: Array) -> tuple[Bools, Indices]:
        """Whether an option keeps all conditions on each cell, and along which axis to split it if not."""
        jets, pushes = self._jets(centre, radius)
        calm = [np.zeros(centre.shape[1])] * len(pushes)
        reach = np.vstack([radius, np.broadcast_to(self.disturbance[:, None], (len(pushes), centre.shape[1]))])
        relative = radius / self.half[:, None]
        kept, score = np.ones(centre.shape[1], dtype=bool), relative / relative.max(axis=0)
        for jet, value in zip(option(jets, pushes), option(list(self.states(centre)), calm), strict=True):
            _, high, swing = tightened(jet, np.asarray(value), reach)
            kept &= high <= -MARGIN
            score = score + np.where(high <= -MARGIN, 0.0, swing[: len(centre)] / (swing.sum(axis=0) + 1e-300))
        return kept, np.where(relative > self.resolution, score, -1.0).argmax(axis=0)


def tightened(jet: Jet, centre: Array, radius: Array) -> tuple[Array, Array, Array]:
    """Bounds of a function on cells, by its interval and by its slope, and how much each variable contributes.

    Args:
        jet: the function on B cells of v variables.
        centre: its value at their centres (B,).
        radius: half widths (v, B).

    Returns:
        Lowest (B,), highest (B,) and contributions (v, B).
    """
    swing = np.nan_to_num(jet.steepness[: len(radius)] * radius, nan=np.inf)
    spread = swing.sum(axis=0)
    return np.maximum(jet.low, centre - spread), np.minimum(jet.high, centre + spread), swing


def verify(
    region: Function,
    options: Sequence[Option],
    domain: Sequence[float],
    *,
    level: float | None = None,
    ceiling: float = np.inf,
    frame: Array | None = None,
    disturbance: Sequence[float] = (),
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Prove that at every state of the domain with `V < level` an option keeps all its conditions.

    Args:
        region: V.
        options: ways to act, with their conditions.
        domain: largest coordinate of either sign (n,).
        level: of V; None finds the largest that can be proved.
        ceiling: no level above it is looked for; needed where the cells do not fill the domain.
        frame: cells are cut in coordinates z of the state `x = frame @ z` (n, n); by default in the state itself.
        disturbance: largest push per step on each element of the state, of either sign (n,); empty for none.
        effort: how much work it may be.
        progress: told the share of the domain that is decided, and a note.
    """
    effort, start = effort or Effort(), time.perf_counter()
    half = np.asarray(domain, dtype=float)
    frame = np.eye(len(half)) if frame is None else frame
    push, top = np.asarray(disturbance, dtype=float), ceiling if level is None else level
    search = _Search(region, options, half, effort.resolution, frame, push, top, level is not None)
    rng = np.random.default_rng(effort.seed)
    samples = search.states(rng.uniform(-half, half, (effort.samples, len(half))).T)
    search.refute(samples)
    _sweep(search, half, effort, progress)
    whole = float(np.prod(2.0 * half) * abs(np.linalg.det(frame)))
    return _verdict(search, samples, whole, time.perf_counter() - start)


def _sweep(search: _Search, half: Array, effort: Effort, progress: Progress | None) -> None:
    """Bound and split, the lowest values first, until every cell is decided or the work is used up."""
    waiting = _Cells(np.zeros((len(half), 1)), half[:, None], np.zeros(1))
    whole = waiting.volume
    while len(waiting.low) and not (search.fixed and search.counterexamples):
        cells, waiting = waiting.lowest(effort.batch)
        open_, low, axis = search.bound(cells.centre, cells.radius)
        search.refute(search.states(cells.centre[:, open_]))
        hopeless = open_ & (cells.radius <= effort.resolution * half[:, None]).all(axis=0)
        search.give_up(low[hopeless])
        again = open_ & ~hopeless
        halves = _Cells(cells.centre[:, again], cells.radius[:, again], low[again]).halved(axis[again])
        waiting = waiting.joined(halves)
        if search.cells >= effort.cells:
            search.give_up(waiting.low)
            return
        if progress is not None:
            progress(1.0 - waiting.volume / whole, f"{search.cells} cells, level {search.level:.4g}")


@dataclass(frozen=True, eq=False)
class _Cells:
    """Cells that wait: centre (n, B), half width (n, B), and where V begins on what they were cut from (B,)."""

    centre: Array
    radius: Array
    low: Array

    @property
    def volume(self) -> float:
        """Of all of them."""
        return float(np.prod(2.0 * self.radius, axis=0).sum())

    def lowest(self, count: int) -> tuple[_Cells, _Cells]:
        """The `count` cells with the lowest values, and the rest."""
        if len(self.low) <= count:
            return self, self._picked(np.zeros(0, dtype=np.int64))
        order = np.argpartition(self.low, count).astype(np.int64)
        return self._picked(order[:count]), self._picked(order[count:])

    def _picked(self, index: Indices) -> _Cells:
        return _Cells(self.centre[:, index], self.radius[:, index], self.low[index])

    def halved(self, axis: Indices) -> _Cells:
        """Both halves of each, split along its axis (B,)."""
        smaller, shift, column = self.radius.copy(), np.zeros_like(self.centre), np.arange(len(axis))
        smaller[axis, column] *= 0.5
        shift[axis, column] = smaller[axis, column]
        return _Cells(self.centre - shift, smaller, self.low).joined(_Cells(self.centre + shift, smaller, self.low))

    def joined(self, other: _Cells) -> _Cells:
        """These and the others."""
        return _Cells(
            np.concatenate([self.centre, other.centre], axis=1),
            np.concatenate([self.radius, other.radius], axis=1),
            np.concatenate([self.low, other.low]),
        )


def _verdict(search: _Search, samples: Array, whole: float, seconds: float) -> Verdict:
    level = search.level if search.fixed else min(search.level, search.highest)
    share = float(np.mean(np.asarray(search.region(list(samples))) < level))
    found = search.counterexamples
    refuted = search.fixed and (bool(found) or search.undecided > 0)
    return Verdict(
        accepted=not refuted and share > 0.0,
        level=level,
        volume=share * whole,
        share=share,
        counterexamples=np.concatenate(found) if found else np.empty((0, len(samples))),
        cells=search.cells,
        undecided=search.undecided,
        seconds=seconds,
    )

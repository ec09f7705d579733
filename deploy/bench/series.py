"""Series of timed turns: back to back, and paced on absolute deadlines as a control loop runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.bench.report import Figures, Paced

Samples = NDArray[np.float64]
Turn = Callable[[int], None]
"""What is timed; it is given the turn's number."""

QUANTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p999": 99.9}


class Stopwatch:
    """Durations of named stages, a row for each turn, in memory that is taken before the clock runs.

    A stage that runs twice in a turn is added up; one that does not run stays out of its series.
    """

    def __init__(self, stages: Sequence[str], turns: int) -> None:
        self.stages = tuple(stages)
        self._rows = np.zeros((turns, len(self.stages)), np.int64)
        self._places = {name: at for at, name in enumerate(self.stages)}
        self._row = self._rows[0]

    def begin(self, turn: int) -> None:
        """Write into this turn's row from now on."""
        self._row = self._rows[turn]

    def add(self, stage: str, nanoseconds: int) -> None:
        """Count time for a stage of this turn [ns]."""
        self._row[self._places[stage]] += nanoseconds

    def watch(self, stage: str, owner: Any, method: str) -> None:
        """Count every call of an object's method for a stage, as long as the object lives."""
        inner, add, clock = getattr(owner, method), self.add, time.perf_counter_ns

        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = clock()
            try:
                return inner(*arguments, **keywords)
            finally:
                add(stage, clock() - start)

        setattr(owner, method, timed)

    def remainder(self, stage: str, whole: str) -> None:
        """Count for a stage what no other stage of this turn covers of the whole one."""
        covered = int(self._row.sum()) - int(self._row[self._places[whole]])
        self.add(stage, max(0, int(self._row[self._places[whole]]) - covered))

    def clear(self, turns: int) -> None:
        """Forget every turn, and expect this many."""
        self._rows = np.zeros((turns, len(self.stages)), np.int64)
        self._row = self._rows[0]

    def durations(self, stage: str, when: str | None = None) -> Samples:
        """Of the turns in which the stage ran [us], or of those in which another one did, too."""
        column, asked = (self._rows[:, self._places[name]] for name in (stage, when or stage))
        return column[(column > 0) & (asked > 0)].astype(np.float64) * 1e-3

    def figures(self) -> dict[str, Figures]:
        """Of every stage that ran."""
        series = {stage: self.durations(stage) for stage in self.stages}
        return {stage: figures(durations) for stage, durations in series.items() if len(durations)}


def figures(samples: Samples) -> Figures:
    """Percentiles of durations (N,) [us], N >= 1."""
    values = {name: float(np.percentile(samples, q)) for name, q in QUANTILES.items()}
    values |= {"min": float(samples.min()), "max": float(samples.max()), "mean": float(samples.mean())}
    return Figures(n=len(samples), **{name: round(value, 2) for name, value in values.items()})


def longest_run(missed: NDArray[np.int64]) -> int:
    """Most deadlines missed one after the other, by turns that missed so many each (N,)."""
    longest = current = 0
    for count in missed.tolist():
        current = current + count if count else 0
        longest = max(longest, current)
    return longest


def back_to_back(turn: Turn, watch: Stopwatch, turns: int) -> dict[str, Figures]:
    """Turns without a pause between them."""
    for index in range(turns):
        watch.begin(index)
        turn(index)
    return watch.figures()


def paced(turn: Turn, watch: Stopwatch, turns: int, rate: float, between: Turn | None = None) -> Paced:
    """Turns on absolute deadlines; those that pass while a turn runs are missed, and not made up for.

    Args:
        turn: timed by `watch`.
        watch: with a row for every turn.
        turns: how many.
        rate: deadlines per second [Hz].
        between: runs after each turn and is no part of it, such as the plant that a real robot would be.
    """
    period, delays, missed = 1.0 / rate, np.empty(turns), np.zeros(turns, np.int64)
    deadline = time.perf_counter() + period
    for index in range(turns):
        time.sleep(max(0.0, deadline - time.perf_counter()))
        start = time.perf_counter()
        watch.begin(index)
        turn(index)
        end = time.perf_counter()
        delays[index], missed[index] = start - deadline, max(0, math.floor((end - deadline) / period))
        if between is not None:
            between(index)
        deadline += period * (math.floor((time.perf_counter() - deadline) / period) + 1)
    return Paced(
        rate_hz=rate,
        stages=watch.figures(),
        wakeup=figures(delays * 1e6),
        overruns=int(missed.sum()),
        longest_run=longest_run(missed),
    )

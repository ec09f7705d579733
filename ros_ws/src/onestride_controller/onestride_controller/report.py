"""What the node measures of itself: rates, timing, ages, interventions and faults."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onestride.deploy.controller import Mode, Tick
from onestride.deploy.monitors import Reading
from onestride.deploy.runtime import Float32, Policy
from onestride.hardware.state import Array

#: Samples a series keeps for its percentiles: 20 minutes of ticks at 200 Hz.
CAPACITY = 1 << 18

#: Bars of a histogram.
BINS = 60

#: Figures of time, and what is said in their place where the time is simulated.
TIMING = (
    "deadline_misses",
    "late_ticks",
    "longest_run_late",
    "control_rate_hz",
    "policy_rate_hz",
    "tick_ms",
    "wakeup_ms",
    "observation_age_ms",
    "policy_us",
    "safe_stop_delay_ms",
)
NO_TIMING = "none: the loop keeps simulated time (use_sim_time), by which nothing about this machine is measured"

#: Samples that the status looks back on.
RECENT = 2000


class Series:
    """The latest samples of one figure, in memory that is allocated once."""

    def __init__(self) -> None:
        self._samples, self.count, self._largest = np.zeros(CAPACITY), 0, 0.0

    def add(self, value: float) -> None:
        """One more sample."""
        self._samples[self.count % CAPACITY] = value
        self.count += 1
        self._largest = max(self._largest, value)

    def summary(self, last: int = CAPACITY) -> dict[str, float | None]:
        """p50 and p99 of the `last` samples, and the largest ever; None where there are none."""
        if not self.count:
            return {"p50": None, "p99": None, "max": None}
        p50, p99 = np.percentile(self._latest(min(self.count, CAPACITY, last)), [50, 99])
        return {"p50": round(float(p50), 4), "p99": round(float(p99), 4), "max": round(self._largest, 4)}

    def _latest(self, count: int) -> Array:
        end = self.count % CAPACITY
        if count <= end:
            return self._samples[end - count : end]
        return np.concatenate([self._samples[end - count :], self._samples[:end]])

    def histogram(self) -> dict[str, list[float]]:
        """Counts of the kept samples between logarithmic edges; both empty where there are none."""
        known = self._samples[: min(self.count, CAPACITY)]
        if not len(known):
            return {"edges": [], "counts": []}
        low, high = max(float(known.min()), 1e-4), max(float(known.max()), 1e-3)
        edges = np.geomspace(low, high * 1.001, BINS + 1)
        counts, _ = np.histogram(np.maximum(known, low), edges)
        return {"edges": edges.tolist(), "counts": counts.tolist()}


class Rate:
    """Events per second, over the stretches of time in which they happened."""

    def __init__(self) -> None:
        self._intervals, self._elapsed = 0, 0.0
        self._last: float | None = None

    def add(self, now: float) -> None:
        """An event at `now` [s]."""
        if self._last is not None:
            self._intervals += 1
            self._elapsed += now - self._last
        self._last = now

    def pause(self) -> None:
        """The next event begins a new stretch."""
        self._last = None

    @property
    def value(self) -> float | None:
        """[Hz]; None before two events."""
        return round(self._intervals / self._elapsed, 3) if self._elapsed > 0 else None


class Lateness:
    """Deadlines at which no tick began within half a period, and the longest run of them.

    A tick that begins several periods late has missed its own deadline and those that passed meanwhile, which get none.
    """

    def __init__(self) -> None:
        self.count = self.longest = self._run = 0

    def add(self, late: float, period: float) -> None:
        """A tick that began `late` [s]."""
        missed = 1 + math.floor(late / period) if late > 0.5 * period else 0
        self._run = self._run + missed if missed else 0
        self.count += missed
        self.longest = max(self.longest, self._run)


class Report:
    """Figures accumulated over activations.

    Args:
        timed: give figures of time; not where time is simulated.

    Attributes:
        events: mode changes `(mode, reason)` that nobody has logged yet.
        tell: called after each of them, by whatever thread made it.
    """

    def __init__(self, *, timed: bool = True) -> None:
        self.timed = timed
        self.events: deque[tuple[Mode, str]] = deque(maxlen=100)
        self.tell: Callable[[], None] = lambda: None
        self._mode = Mode.IDLE
        self._period = float("inf")
        self.reset()

    def reset(self) -> None:
        """Start all figures anew."""
        self.tick_ms, self.wakeup_ms, self.age_ms, self.policy_us = Series(), Series(), Series(), Series()
        self._control, self._policy, self._lateness = Rate(), Rate(), Lateness()
        self._counters: Counter[str] = Counter()
        self._above: Counter[str] = Counter()
        self._monitors: dict[str, dict[str, float | None]] = {}
        self.ticks = self.deadline_misses = self.warnings = self.activations = 0
        self._readings: dict[str, float] = {}
        self._faults: list[str] = []
        self._stop_delay_ms: float | None = None

    def begin(self, period: float) -> None:
        """An activation begins, with a tick every `period` [s]."""
        self.activations += 1
        self._period = period
        self._control.pause()
        self._policy.pause()

    def tick(self, tick: Tick, now: float, late: float, joints_received: float) -> None:
        """One control tick that began at `now`, `late` after its deadline, and has sent its command [s]."""
        self.ticks += 1
        self.wakeup_ms.add(late * 1e3)
        self._lateness.add(late, self._period)
        self.tick_ms.add((time.monotonic() - now) * 1e3)
        if tick.command is not None:
            self._control.add(now)
        if tick.observation is not None:
            self.age_ms.add((now - joints_received) * 1e3)
        if tick.action is not None:
            self._policy.add(now)
        if tick.certified is not None:
            self.warnings += bool(tick.certified.warnings)
            self._readings = dict(tick.certified.readings)
        self.changed(tick.mode, tick.reason)

    def changed(self, mode: Mode, reason: str = "") -> None:
        """The controller's mode changed, if it did."""
        if mode is self._mode:
            return
        self._mode = mode
        self.events.append((mode, reason))
        if mode is Mode.FAULT:
            self._faults = [*self._faults, reason][-20:]
        self.tell()

    def stopped(self, detected: float) -> None:
        """The first safe-stop command has gone out for what was `detected` [s]."""
        delay = (time.monotonic() - detected) * 1e3
        self._stop_delay_ms = round(max(delay, self._stop_delay_ms or 0.0), 4)

    def watched(self, readings: Sequence[Reading]) -> None:
        """Take the readings of an inference: the newest of each monitor, and a count of those above its threshold.

        The thread of inference calls it while another reads: both figures are replaced, never changed in place.
        """
        above, monitors = Counter(self._above), dict(self._monitors)
        for reading in readings:
            above[f"above_{reading.name}"] += reading.tripped
            last = reading.value if np.isfinite(reading.value) else None
            monitors[reading.name] = {"last": last, "threshold": reading.threshold}
        self._above, self._monitors = above, monitors

    def absorb(self, counters: Counter[str]) -> None:
        """Keep the filters' counters of an activation and clear them."""
        self._counters.update(counters)
        counters.clear()

    def summary(self, running: Counter[str], last: int = CAPACITY) -> dict[str, Any]:
        """All figures, as JSON.

        Args:
            running: the filters' counters of the running activation.
            last: samples that percentiles look back on.
        """
        counters = self._counters + self._above + running
        certified = counters["ticks"]
        refused = {} if self.timed else {**dict.fromkeys(TIMING), "timing": NO_TIMING}
        return {
            "activations": self.activations,
            "ticks": self.ticks,
            "deadline_misses": self.deadline_misses,
            "late_ticks": self._lateness.count,
            "longest_run_late": self._lateness.longest,
            "control_rate_hz": self._control.value,
            "policy_rate_hz": self._policy.value,
            "tick_ms": self.tick_ms.summary(last),
            "wakeup_ms": self.wakeup_ms.summary(last),
            "observation_age_ms": self.age_ms.summary(last),
            "policy_us": self.policy_us.summary(last),
            "intervention_rate": counters["interventions"] / certified if certified else None,
            "counters": dict(counters),
            "warnings": self.warnings,
            "readings": {name: value for name, value in self._readings.items() if np.isfinite(value)},
            "monitors": dict(self._monitors),
            "faults": self._faults,
            "safe_stop_delay_ms": self._stop_delay_ms,
            **refused,
        }


class TimedPolicy:
    """A policy that notes how long each inference takes.

    Args:
        policy: that infers.
        report: where it notes.
    """

    def __init__(self, policy: Policy, report: Report) -> None:
        self._policy, self._report = policy, report
        self.provider, self.readings = policy.provider, policy.readings

    def reset(self, seed: int) -> None:
        """Start the noise sequence of `seed`."""
        self._policy.reset(seed)

    def infer(self, observation: Array) -> Float32:
        """The chunk (h, Da) for an observation (To * Do,)."""
        start = time.perf_counter()
        chunk = self._policy.infer(observation)
        self.readings = self._policy.readings
        self._report.policy_us.add((time.perf_counter() - start) * 1e6)
        self._report.watched(self.readings)
        return chunk

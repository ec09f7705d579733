"""What is wrong with a dataset, and what it covers: clocks, gaps, NaNs, duplicates, dead elements, SACo and TQ.

One pass over the episodes; of images only the clocks are looked at. Memory: one episode, and eight bytes for each
step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.coverage import Coverage, CoverageCounter, trajectory_quality
from onestride.datasets.schema import BASE, Array, Episode, Feature
from onestride.datasets.store import Store
from onestride.datasets.video import VideoNote

GAP = 1.5
"""An interval longer than this many periods is a gap: at least one tick is missing."""
RATE_TOLERANCE = 0.05
"""Relative difference of the measured rate to the schema's that is a problem."""

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


@dataclass(frozen=True)
class ClockQuality:
    """How regularly a stream was recorded, over the intervals within episodes."""

    rows: int
    rate: float | None
    """Median [Hz]."""
    jitter_p50: float
    """Of the intervals' deviation from their median, absolute [s]."""
    jitter_p99: float
    jitter_max: float
    gaps: int
    """Intervals longer than `GAP` periods."""
    longest_gap: float
    """[s]"""
    gap_episodes: tuple[int, ...]
    """The first ten episodes with gaps."""
    repeated: int
    """Rows with the timestamp of the row before."""


@dataclass(frozen=True)
class Quality:
    """All findings."""

    clocks: dict[str, ClockQuality]
    """Stream -> its clock."""
    non_finite: dict[str, int]
    """Feature -> values that are NaN or infinite, where there are any."""
    duplicates: tuple[tuple[int, ...], ...]
    """Episodes with the same data in all features that are no images."""
    constant: tuple[str, ...]
    """Elements that never change, in datasets of more than one step."""
    video: dict[str, tuple[float, float]]
    """Feature -> PSNR over all frames and of the worst [dB]."""
    coverage: Coverage
    problems: tuple[str, ...] = field(default=())
    """What `inspect --strict` fails for."""

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON values."""
        return asdict(self)


def assess(
    store: Store,
    *,
    reference: Store | None = None,
    returns: tuple[float, float] | None = None,
    progress: Progress | None = None,
) -> Quality:
    """Look through every episode of a store.

    Args:
        store: the dataset.
        reference: dataset whose coverage counts as 1 for SACo; None = the number of steps does.
        returns: return of the worst and of the best policy known, for TQ; None = of this dataset's own episodes.
        progress: told about each episode.

    Raises:
        OneStrideError: damage, or a reference of other features.
    """
    flat = [feature for feature in store.schema.features if len(feature.shape) <= 1]
    clocks = {stream: _Clock() for stream in store.schema.streams}
    values = _Values(flat)
    counter = CoverageCounter(store, reference)
    for number in range(store.num_episodes):
        episode = store.read_episode(number, [feature.name for feature in flat])
        for stream, clock in clocks.items():
            clock.add(number, episode.timestamps[stream])
        values.add(number, episode)
        counter.add(episode)
        if progress is not None:
            progress(number + 1, store.num_episodes)
    found = Quality(
        clocks={stream: clock.result() for stream, clock in clocks.items()},
        non_finite=values.non_finite,
        duplicates=values.duplicates,
        constant=values.constant if store.num_steps > 1 else (),
        video={name: _psnr(notes) for name, notes in store.video_notes.items()},
        coverage=Coverage(*counter.result(), *trajectory_quality(store, returns)),
    )
    return Quality(**{**found.__dict__, "problems": tuple(_problems(store, found))})


class _Clock:
    """Gathers the intervals of one stream."""

    def __init__(self) -> None:
        self._gaps: list[NDArray[np.int64]] = []
        self._episodes: list[int] = []
        self._rows = 0

    def add(self, number: int, clock: NDArray[np.int64]) -> None:
        self._rows += len(clock)
        self._gaps.append(np.diff(clock))
        self._episodes.append(number)

    def result(self) -> ClockQuality:
        gaps = np.concatenate([np.zeros(0, np.int64), *self._gaps])
        if not len(gaps):
            return ClockQuality(self._rows, None, 0.0, 0.0, 0.0, 0, 0.0, (), 0)
        moving = gaps[gaps > 0]
        period = float(np.median(moving)) if len(moving) else 0.0
        away = np.abs(gaps - period) * 1e-9
        p50, p99 = np.quantile(away, [0.5, 0.99])
        limit = GAP * period
        with_gaps = [number for number, one in zip(self._episodes, self._gaps, strict=True) if np.any(one > limit)]
        count = int(np.count_nonzero(gaps > limit))
        return ClockQuality(
            rows=self._rows,
            rate=1e9 / period if period else None,
            jitter_p50=float(p50),
            jitter_p99=float(p99),
            jitter_max=float(away.max()),
            gaps=count,
            longest_gap=float(gaps.max()) * 1e-9 if count else 0.0,
            gap_episodes=tuple(with_gaps[:10]),
            repeated=int(np.count_nonzero(gaps == 0)),
        )


class _Values:
    """Gathers what is found in the values themselves."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features
        self._seen: dict[bytes, list[int]] = {}
        self._range: dict[str, tuple[Array, Array]] = {}
        self.non_finite: dict[str, int] = {}

    def add(self, number: int, episode: Episode) -> None:
        digest = hashlib.sha256()
        for feature in self._features:
            rows = episode.data[feature.name]
            digest.update(f"{feature.name}{rows.shape}".encode() + np.ascontiguousarray(rows).tobytes())
            if rows.dtype.kind == "f" and (bad := int(np.count_nonzero(~np.isfinite(rows)))):
                self.non_finite[feature.name] = self.non_finite.get(feature.name, 0) + bad
            if len(rows):
                self._widen(feature.name, rows.min(axis=0), rows.max(axis=0))
        self._seen.setdefault(digest.digest(), []).append(number)

    def _widen(self, name: str, low: Array, high: Array) -> None:
        known = self._range.get(name, (low, high))
        self._range[name] = np.minimum(known[0], low), np.maximum(known[1], high)

    @property
    def duplicates(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(numbers) for numbers in self._seen.values() if len(numbers) > 1)

    @property
    def constant(self) -> tuple[str, ...]:
        """Observations and actions only: rewards and terminals may well be constant."""
        return tuple(
            feature.element(index)
            for feature in self._features
            if feature.role in ("observation", "action") and feature.name in self._range
            for index in np.flatnonzero(np.ravel(self._range[feature.name][0] == self._range[feature.name][1]))
        )


def _psnr(notes: Sequence[VideoNote]) -> tuple[float, float]:
    """PSNR over all frames of several files, and of the worst frame [dB]."""
    frames = sum(note.frames for note in notes)
    square = sum(note.frames * 10 ** (-note.psnr / 10) for note in notes) / frames
    return round(-10 * float(np.log10(square)), 2), min(note.psnr_min for note in notes)


def _problems(store: Store, found: Quality) -> list[str]:
    problems = [f"not committed: {name}" for name in store.dropped]
    if not store.num_episodes:
        problems.append("no episodes")
    for name, count in found.non_finite.items():
        problems.append(f"{name}: {count} values are NaN or infinite")
    problems += [f"episodes {', '.join(map(str, same))} are the same" for same in found.duplicates]
    for stream, clock in found.clocks.items():
        problems += _clock_problems(stream, clock, store.schema.control_rate if stream == BASE else None)
    return problems


def _clock_problems(stream: str, clock: ClockQuality, expected: float | None) -> list[str]:
    problems = []
    if clock.gaps:
        where = ", ".join(map(str, clock.gap_episodes))
        problems.append(f"stream {stream}: {clock.gaps} gaps, the longest {clock.longest_gap:.3g} s, episodes {where}")
    if clock.repeated:
        problems.append(f"stream {stream}: {clock.repeated} timestamps are repeated")
    if expected and clock.rate and abs(clock.rate / expected - 1) > RATE_TOLERANCE:
        problems.append(f"stream {stream}: expected {expected:g} Hz, got {clock.rate:.4g} Hz")
    return problems

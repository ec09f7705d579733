"""How much of what could be done a dataset shows (SACo), and how well it is done in it (TQ).

Reference: Schweighofer et al., "A Dataset Perspective on Offline Reinforcement Learning", CoLLAs 2022,
arXiv:2111.04714:

- SACo(D) = u(D) / u(D_ref), with u the number of unique state-action pairs; there D_ref is the replay dataset of an
  online run in the same environment.
- TQ(D) = (g(D) - g(D_min)) / (g(D_best) - g(D_min)), with g the average return of the trajectories; there D_min is
  collected by a random policy and D_best by the best one known.

The paper's pairs are discrete. Here each element of observation and label is put into one of `BINS` equal bins of its
range, so that "the same" means "within a tenth of what was seen": in many dimensions nearly every step is then unique
and SACo says little; compare datasets of one schema, not across them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.schema import BASE, Array, Episode, Feature
from onestride.datasets.statistics import statistics
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

BINS = 10
"""Bins for each element."""


@dataclass(frozen=True)
class Coverage:
    """Coverage measures, each with what it is relative to."""

    unique_pairs: int
    """Unique state-action pairs u(D)."""
    saco: float | None
    saco_reference: str
    """Dataset id of D_ref, or "steps": then SACo is the share of steps that are unique."""
    tq: float | None
    tq_reference: str
    """What the return is and what D_min and D_best are."""


class CoverageCounter:
    """Counts unique state-action pairs episode by episode; eight bytes for each step.

    Args:
        store: the dataset that is counted.
        reference: D_ref; None = as if every step of it were unique.

    Raises:
        OneStrideError: the reference lacks a feature.
    """

    def __init__(self, store: Store, reference: Store | None) -> None:
        self._features = _pair(store)
        self._steps = store.num_steps
        self._reference = reference
        stores = [one for one in (store, reference) if one is not None and one.num_steps]
        names = [feature.name for feature in self._features]
        if reference is not None and any(_shape(reference, name) != _shape(store, name) for name in names):
            raise OneStrideError(f"expected a reference with the shapes of {', '.join(names)}, got {reference.path}")
        ranges = [_range(one, names) for one in stores]
        self._low = np.min([low for low, _ in ranges], axis=0) if ranges else np.zeros(1)
        high = np.max([high for _, high in ranges], axis=0) if ranges else np.ones(1)
        self._scale = BINS / np.where(high > self._low, high - self._low, 1.0)
        self._weights = np.random.default_rng(0).integers(0, 2**63, len(self._low), dtype=np.uint64) * 2 + 1
        self._keys: list[NDArray[np.uint64]] = []

    def add(self, episode: Episode) -> None:
        """Count the pairs of one more episode."""
        self._keys.append(self._hashed(episode))

    def result(self) -> tuple[int, float | None, str]:
        """Unique pairs, SACo and what it is relative to."""
        unique = _unique(self._keys)
        if self._reference is None:
            return unique, (unique / self._steps if self._steps else None), "steps"
        names = [feature.name for feature in self._features]
        numbers = range(self._reference.num_episodes)
        others = _unique([self._hashed(self._reference.read_episode(number, names)) for number in numbers])
        return unique, (unique / others if others else None), self._reference.dataset_id

    def _hashed(self, episode: Episode) -> NDArray[np.uint64]:
        """One number (T,) for each pair: equal for equal bins, and else equal by an accident of 1 in 2**63."""
        rows = _joined(episode.data, self._features)
        with np.errstate(invalid="ignore"):  # NaN has no bin; `assess` tells of it
            bins = np.nan_to_num(np.clip((rows - self._low) * self._scale, 0, BINS - 1)).astype(np.uint64)
        # Overflow is wanted: arithmetic modulo 2**64.
        keys: NDArray[np.uint64] = ((bins + np.uint64(1)) * self._weights).sum(axis=1, dtype=np.uint64)
        return keys


def trajectory_quality(store: Store, returns: tuple[float, float] | None) -> tuple[float | None, str]:
    """TQ and what it is relative to; the return is the sum of rewards, or 1 for a success where there are none.

    Args:
        store: the dataset.
        returns: g(D_min) and g(D_best); None = of the dataset's own worst and best episode, or 0 and 1 for successes.
    """
    gained, what = _returns(store)
    if not len(gained):
        return None, what
    if returns is None and what == "success":
        returns = (0.0, 1.0)
    low, high = returns or (float(gained.min()), float(gained.max()))
    relative = f"{what}, from {low:g} to {high:g}" + ("" if returns else " (own worst and best episode)")
    return ((float(gained.mean()) - low) / (high - low) if high > low else None), relative


def _returns(store: Store) -> tuple[Array, str]:
    rewards = store.schema.by_role("reward")
    if rewards and rewards[0].stream == BASE and store.num_steps:
        starts = np.cumsum(store.lengths) - store.lengths
        values = store.read(rewards[0].name).reshape(store.num_steps, -1).sum(axis=1, dtype=np.float64)
        return np.add.reduceat(values, starts), "sum of rewards"
    told = [info.attributes["success"] for info in store.episodes if "success" in info.attributes]
    if told:
        return np.array([bool(success) for success in told], float), "success"
    return np.zeros(0), "neither rewards nor successes"


def _pair(store: Store) -> list[Feature]:
    """Flat observations of the base stream (the state where there are none) and the label."""
    schema = store.schema
    for candidates in (schema.by_role("observation"), schema.by_role("state")):
        seen = [one for one in candidates if one.stream == BASE and len(one.shape) <= 1]
        if seen:
            return [*seen, schema.feature(schema.label)]
    return [schema.feature(schema.label)]


def _shape(store: Store, name: str) -> tuple[int, ...]:
    return store.schema.feature(name).shape


def _range(store: Store, names: list[str]) -> tuple[Array, Array]:
    known = statistics(store, names).features
    low, high = (np.concatenate([getattr(known[name], which) for name in names]) for which in ("min", "max"))
    return low, high


def _joined(data: dict[str, Array], features: list[Feature]) -> Array:
    return np.concatenate([data[one.name].reshape(-1, one.size).astype(np.float64) for one in features], axis=1)


def _unique(keys: list[NDArray[np.uint64]]) -> int:
    return len(np.unique(np.concatenate([np.zeros(0, np.uint64), *keys])))

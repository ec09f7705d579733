"""Statistics of features over a whole dataset, computed once and kept beside its manifest."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.layout import STAGING
from onestride.datasets.reductions import LEAST, ColumnSums, Tails, cuts
from onestride.datasets.store import Store
from onestride.hardware.durable import canonical_json, write_atomic
from onestride.hardware.errors import OneStrideError

NAME = "statistics.json"
BLOCK_BYTES = 16 << 20
"""Of a feature's rows as float64 that are held at once while its statistics are computed, a few times over."""
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureStatistics:
    """Per-element statistics over all steps; the deviation is the true one, zero for a constant element."""

    mean: Vector
    std: Vector
    min: Vector
    max: Vector
    q01: Vector
    q99: Vector
    count: int
    """Number of steps."""

    def to_json(self) -> dict[str, object]:
        """Lists of floats; reading them back gives the same bits."""
        vectors = {name: getattr(self, name).tolist() for name in VECTORS}
        return {**vectors, "count": self.count}

    @classmethod
    def from_json(cls, content: dict[str, list[float]]) -> FeatureStatistics:
        """What `to_json` wrote."""
        vectors = {name: np.array(content[name], np.float64) for name in VECTORS}
        return cls(**vectors, count=int(np.asarray(content["count"])))


VECTORS = tuple(field.name for field in fields(FeatureStatistics) if field.name != "count")


@dataclass(frozen=True)
class Statistics:
    """Statistics of some features of one dataset."""

    dataset_id: str
    features: dict[str, FeatureStatistics]

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over the features' names, counts and float bytes, in the order of the names."""
        digest = hashlib.sha256()
        for name in sorted(self.features):
            one = self.features[name]
            digest.update(canonical_json([name, one.count, len(one.mean)]))
            for vector in VECTORS:
                digest.update(getattr(one, vector).astype("<f8").tobytes())
        return digest.hexdigest()


def statistics(store: Store, feature_names: Iterable[str]) -> Statistics:
    """Statistics of the named features over every step of the store.

    Cached in the store's directory for its present content; a changed store is computed anew.

    Raises:
        OneStrideError: no such feature, or nothing recorded.
    """
    wanted = list(feature_names)
    known = _read_cache(store)
    missing = [name for name in wanted if name not in known]
    if missing:
        known |= {name: _compute(store, name) for name in missing}
        _write_cache(store, known)
    return Statistics(store.dataset_id, {name: known[name] for name in wanted})


def _compute(store: Store, name: str) -> FeatureStatistics:
    """In two passes over blocks of `BLOCK_BYTES`; besides one, a fiftieth of the feature is held, for the quantiles."""
    feature = store.schema.feature(name)
    count, size = store.num_rows(feature.stream), feature.size
    if not count:
        raise OneStrideError(f"{store.path}: expected recorded steps of {name!r}, got none")
    block = max(LEAST, BLOCK_BYTES // (8 * max(1, size)))
    sums, squares = ColumnSums(count, size, block), ColumnSums(count, size, block)
    tails = Tails(count, 0.01)
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    with np.errstate(invalid="ignore"):  # a store from elsewhere may hold infinities: `inspect` tells of them
        for rows in _blocks(store, name, block):
            sums.add(rows)
            tails.add(rows)
            low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
        mean = sums.value / count
        for rows in _blocks(store, name, block):
            squares.add(np.square(rows - mean))
        std = np.sqrt(squares.value / count)
        q01, q99 = (np.where(np.isnan(low), low, value) for value in tails.value)
    # Rounding gives a constant element a deviation of 1e-17: small enough to be wrong, too large to be seen as 0.
    constant = low == high
    return FeatureStatistics(
        mean=np.where(constant, low, mean),
        std=np.where(constant, 0.0, std),
        min=low,
        max=high,
        q01=q01,
        q99=q99,
        count=count,
    )


def _blocks(store: Store, name: str, block: int) -> Iterator[Vector]:
    """Rows (n, size) of a feature, in order."""
    feature = store.schema.feature(name)
    for start, stop in cuts(store.num_rows(feature.stream), feature.size, block):
        yield store.read_rows(name, start, stop).reshape(stop - start, feature.size).astype(np.float64)
        gc.collect(1)  # see `ColumnReader.fill`


def _read_cache(store: Store) -> dict[str, FeatureStatistics]:
    """The cached features; none where the cache is absent, damaged, or of other content."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(_cache(store).read_bytes())
        features = {name: FeatureStatistics.from_json(one) for name, one in content["features"].items()}
        cached = Statistics(content["dataset_id"], features)
        if cached.dataset_id == store.dataset_id and cached.fingerprint == content["fingerprint"]:
            return features
    return {}


def _write_cache(store: Store, features: dict[str, FeatureStatistics]) -> None:
    content = {
        "dataset_id": store.dataset_id,
        "fingerprint": Statistics(store.dataset_id, features).fingerprint,
        "features": {name: one.to_json() for name, one in features.items()},
    }
    # A store on a read-only disk still has statistics, they are only not remembered.
    with suppress(OSError):
        write_atomic(_cache(store), json.dumps(content).encode(), store.path / STAGING)


def _cache(store: Store) -> Path:
    return store.path / NAME

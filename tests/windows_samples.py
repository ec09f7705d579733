"""Stores with vectors, pictures and outcomes, small enough to walk through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store

VECTORS = ("pose", "force")
PICTURES = ("wrist",)
FEATURES = (
    Feature(name="pose", role="observation", shape=(3,), dtype="float64"),
    Feature(name="force", role="observation", shape=(), dtype="float32"),
    Feature(name="wrist", role="observation", shape=(4, 3, 3), dtype="uint8"),
    Feature(name="action", role="action", shape=(2,), dtype="float32"),
    Feature(name="reward", role="reward", shape=(), dtype="float32"),
    Feature(name="done", role="terminal", shape=(), dtype="bool"),
)


def sample_store(
    path: Path,
    lengths: Sequence[int],
    *,
    seed: int = 0,
    finals: Sequence[bool] = (True,),
    per_segment: int = 3,
    tasks: Sequence[str] = (),
) -> Store:
    """Random episodes, `per_segment` to a segment; `finals` and `tasks` go round."""
    schema = Schema(features=FEATURES, control_rate=10.0, label="action", label_source="oracle")
    store = Store.create(path, schema, Provenance.now("test"))
    random = np.random.default_rng(seed)
    episodes = [
        _episode(random, length, finals[number % len(finals)], tasks[number % len(tasks)] if tasks else None)
        for number, length in enumerate(lengths)
    ]
    for first in range(0, len(episodes), per_segment):
        store.append(episodes[first : first + per_segment])
    return store


def _episode(random: np.random.Generator, length: int, final: bool, task: str | None) -> Episode:
    def rows(feature: Feature, count: int) -> NDArray[Any]:
        shape = (count, *feature.shape)
        if feature.dtype in ("uint8", "bool"):
            return random.integers(0, 2 if feature.dtype == "bool" else 256, shape).astype(feature.dtype)
        return random.normal(size=shape).astype(feature.dtype)

    data = {feature.name: rows(feature, length) for feature in FEATURES}
    after = {name: rows(feature, 1)[0] for name, feature in zip(VECTORS + PICTURES, FEATURES, strict=False)}
    attributes: dict[str, Any] = {} if task is None else {"task": task}
    return Episode(data, {"base": synthetic_clock(length, 10.0)}, after if final else {}, attributes)

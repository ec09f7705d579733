"""A store of random actions in the environment on a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from line_environment import NAME, RATE, Line

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store


def line_store(path: Path, episodes: int = 12, *, seed: int = 0, reward: bool = True, scale: float = 1.0) -> Store:
    """Random actions in the environment."""
    outcomes = (
        Feature(name="reward", role="reward", shape=(), dtype="float32"),
        Feature(name="terminal", role="terminal", shape=(), dtype="bool"),
        Feature(name="cost", role="info", shape=(), dtype="float32"),
    )
    features = (
        Feature(name="observation", role="observation", shape=(3,), dtype="float32"),
        Feature(name="action", role="action", shape=(2,), dtype="float32"),
        *(outcomes if reward else ()),
    )
    schema = Schema(features=features, control_rate=RATE, label="action", label_source="oracle", environment=NAME)
    store = Store.create(path, schema, Provenance.now("test"))
    store.append([_episode(seed + number, reward, scale) for number in range(episodes)])
    return store


def _episode(seed: int, reward: bool, scale: float) -> Episode:
    environment, random = Line(), np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {name: [] for name in ("observation", "action", "reward", "terminal", "cost")}
    seen, over = environment.reset(seed), False
    while not over:
        action = random.uniform(-1, 1, 2).astype(np.float32)
        step = environment.step(action.astype(np.float64))
        row = (seen, scale * action, step.reward, step.terminal, step.cost)
        for name, value in zip(rows, row, strict=True):
            rows[name].append(value)
        seen, over = step.observation, step.terminal or step.cut
    kinds = {"terminal": bool}
    data = {name: np.array(values, kinds.get(name, np.float32)) for name, values in rows.items()}
    data = data if reward else {name: data[name] for name in ("observation", "action")}
    last = {"observation": np.asarray(seen, np.float32)}
    return Episode(data, {"base": synthetic_clock(len(rows["action"]), RATE)}, last, {"seed": seed})

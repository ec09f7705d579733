"""A small dataset whose action is a known function of its observation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema
from onestride.datasets.store import Store
from onestride.policies.normaliser import Affine
from onestride.training.agents.mvp import MVPAgent, MVPConfig

OBSERVATION, ACTION = 3, 2
SMALL = MVPConfig(horizon=2, n_action_steps=2, hidden=(16, 16), batch_size=16)


def expert(observation: np.ndarray) -> np.ndarray:
    """The action (..., 2) shown at an observation (..., 3)."""
    return np.tanh(observation[..., :2] - 0.5 * observation[..., 2:])


def make_store(path: Path, *, episodes: int = 8, length: int = 20, scale: float = 1.0) -> Store:
    """Observations drawn anew each step, the expert's action times ``scale``."""
    features = (
        Feature(name="position", role="observation", shape=(2,), dtype="float32", names=("x", "y"), units=("m", "m")),
        Feature(name="goal", role="observation", shape=(1,), dtype="float32", names=("g",), units=("m",)),
        Feature(name="action", role="action", shape=(2,), dtype="float32"),
    )
    schema = Schema(features=features, control_rate=20.0, label="action", label_source="oracle")
    store = Store.create(path, schema, Provenance.now("test"))
    generator = np.random.default_rng(0)
    store.append([_episode(generator, length, scale) for _ in range(episodes)])
    return store


def _episode(generator: np.random.Generator, length: int, scale: float) -> Episode:
    observation = generator.uniform(-1, 1, (length, OBSERVATION)).astype(np.float32)
    data = {
        "position": observation[:, :2],
        "goal": observation[:, 2:],
        "action": (scale * expert(observation)).astype(np.float32),
    }
    return Episode(data=data, timestamps={"base": np.arange(length, dtype=np.int64) * 50_000_000})


def make_agent(config: MVPConfig = SMALL, *, steps: int = 100, seed: int = 0) -> MVPAgent:
    return MVPAgent(config, Affine.identity(OBSERVATION), Affine.identity(ACTION), steps=steps, seed=seed)


def random_batch(config: MVPConfig = SMALL, *, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    batch, horizon = config.batch_size, config.horizon
    return {
        "observations": torch.randn(batch, 1, OBSERVATION, generator=g),
        "actions": torch.rand(batch, horizon, ACTION, generator=g) * 2 - 1,
        "valid": torch.ones(batch, horizon),
    }

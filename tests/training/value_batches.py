"""Small agents of chunks and the batches they learn from."""

from __future__ import annotations

from typing import Any

import torch

from onestride.policies.normaliser import Affine
from onestride.training.agents import catalogue

OBSERVATION, ACTION, BATCH = 3, 2, 16

IMITATION = ("bc_flow",)
VALUED = ("mvp", "qc", "bfn", "fql", "qc_fql", "fmq")
AGENTS = (*IMITATION, *VALUED)

_SMALL: dict[str, Any] = {"hidden": (16, 16), "batch_size": BATCH, "lr": 1e-3}
_VALUED: dict[str, Any] = {"critic_hidden": (16, 16), "critic_lr": 1e-3, "rank_dtype": "float32"}
_CHUNKS: dict[str, Any] = {"horizon": 2, "n_action_steps": 2}
_OWN: dict[str, dict[str, Any]] = {
    "bc_flow": {**_CHUNKS, "nfe": (4,)},
    "mvp": {**_CHUNKS, "candidates": 4, "nfe": (1,)},
    "qc": {**_CHUNKS, "candidates": 4, "nfe": (4,)},
    "bfn": {"nfe": (4,)},
    "fql": {"flow_steps": 4},
    "qc_fql": {**_CHUNKS, "flow_steps": 4},
    "fmq": _CHUNKS,
}


def make(name: str, *, steps: int = 100, seed: int = 0, **settings: Any) -> Any:
    """A small agent."""
    entry = catalogue.find(name)
    config = entry.config(**(_SMALL | (_VALUED if name in VALUED else {}) | _OWN[name] | settings))
    return entry.agent(config, Affine.identity(OBSERVATION), Affine.identity(ACTION), steps=steps, seed=seed)


def make_batch(horizon: int, *, seed: int = 0, rows: int = BATCH) -> dict[str, torch.Tensor]:
    """Whole chunks with random rewards; a third of them ends the task at its last step."""
    g = torch.Generator().manual_seed(seed)
    ends = torch.rand(rows, generator=g) < 1 / 3
    terminals = torch.zeros(rows, horizon)
    terminals[:, -1] = ends.float()
    return {
        "observations": torch.randn(rows, 1, OBSERVATION, generator=g),
        "actions": torch.rand(rows, horizon, ACTION, generator=g) * 2 - 1,
        "rewards": -torch.rand(rows, horizon, generator=g),
        "masks": 1 - terminals,
        "terminals": terminals,
        "next_observations": torch.randn(rows, 1, OBSERVATION, generator=g),
        "valid": torch.ones(rows, horizon),
    }

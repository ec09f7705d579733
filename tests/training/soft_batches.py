"""Batches for the tests of soft actor-critics."""

from __future__ import annotations

import torch

OBSERVATION, ACTION = 3, 2


def soft_batch(batch: int = 8, *, horizon: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """A random batch with rewards and costs, all valid, none terminal."""
    g = torch.Generator().manual_seed(seed)
    ones = torch.ones(batch, horizon)
    return {
        "observations": torch.randn(batch, 1, OBSERVATION, generator=g),
        "actions": torch.rand(batch, horizon, ACTION, generator=g) * 2 - 1,
        "rewards": torch.randn(batch, horizon, generator=g),
        "costs": torch.rand(batch, horizon, generator=g),
        "next_observations": torch.randn(batch, 1, OBSERVATION, generator=g),
        "masks": ones.clone(),
        "valid": ones.clone(),
        "terminals": torch.zeros(batch, horizon),
    }

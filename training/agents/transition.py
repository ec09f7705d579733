"""A batch of windows as the transition that a critic learns from: one decision of h steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from onestride.policies.gaussian import GaussianPolicy


class Transition(NamedTuple):
    """Normalised decisions and what they led to."""

    s: torch.Tensor
    """Observation (B, S)."""
    a: torch.Tensor
    """Chunk taken (B, h * Da)."""
    next_s: torch.Tensor
    """Observation after the last valid step (B, S)."""
    reward: torch.Tensor
    """``Σ γ^i r_i`` over the chunk (B,)."""
    mask: torch.Tensor
    """1 where a value lies beyond the chunk, 0 after a terminal step (B,)."""
    valid: torch.Tensor
    """1 where the whole chunk was taken, 0 where the episode ended within it (B,)."""


def transition(policy: GaussianPolicy[Any], batch: Mapping[str, torch.Tensor], discount: float) -> Transition:
    """Normalise a batch and sum its rewards.

    Args:
        policy: Whose normalisers count.
        batch: ``observations`` and ``next_observations`` (B, To, Do), ``actions`` (B, h, Da), ``rewards``, ``masks``
            and ``valid`` (B, h).
        discount: γ per step.

    Reference: arXiv:2507.07969, the chunked temporal-difference target.
    """
    return Transition(
        s=policy.condition(batch["observations"]),
        a=policy.action(batch["actions"]).flatten(1),
        next_s=policy.condition(batch["next_observations"]),
        reward=discounted(batch["rewards"], discount),
        mask=batch["masks"][:, -1],
        valid=batch["valid"][:, -1],
    )


def discounted(values: torch.Tensor, discount: float) -> torch.Tensor:
    """``Σ γ^i v_i`` over the steps of (B, h): (B,)."""
    if values.shape[1] == 1:
        return values[:, 0]
    return values @ discount ** torch.arange(values.shape[1], device=values.device, dtype=values.dtype)

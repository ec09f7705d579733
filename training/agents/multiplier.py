"""Lagrange multipliers of state-wise constraints: their network, and how they are reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from onestride.policies.networks import MLP
from onestride.training.agents.soft_critic import Metrics

SATURATED = 0.99
"""Share of the largest multiplier from which on it counts as saturated, and its state as infeasible."""


@runtime_checkable
class Constrained(Protocol):
    """An agent with a multiplier at each state: what probes, reports and risk maps read."""

    @property
    def max_multiplier(self) -> float:
        """Largest multiplier there can be."""
        ...

    def multipliers(self, observations: torch.Tensor) -> torch.Tensor:
        """λ(s) (B,) at observations (B, To * Do) in dataset units."""
        ...

    def excess(self, observations: torch.Tensor) -> torch.Tensor:
        """``g(s)`` (B,) of the policy's mode at observations (B, To * Do): positive where the limit is broken."""
        ...


class MultiplierNetwork(nn.Module):
    """A number for each state, not yet bounded; how it becomes a multiplier is the algorithm's affair."""

    def __init__(self, observation_dim: int, hidden: Sequence[int]) -> None:
        """Build the network over observations s (B, S)."""
        super().__init__()
        self.network = MLP(observation_dim, hidden, 1, activation=nn.ReLU)

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """From s (B, S) to (B,)."""
        output: torch.Tensor = self.network(s)
        return output.squeeze(-1)


def saturated(multipliers: torch.Tensor, maximum: float) -> torch.Tensor:
    """Where multipliers (...) are at their largest: no action meets the constraint there, as far as is learnt."""
    return multipliers >= SATURATED * maximum


def multiplier_metrics(multipliers: torch.Tensor, maximum: float) -> Metrics:
    """Mean, maximum and saturated share of a batch of multipliers (B,)."""
    multipliers = multipliers.detach()
    return {
        "multiplier/mean": multipliers.mean(),
        "multiplier/max": multipliers.amax(),
        "multiplier/saturated": saturated(multipliers, maximum).to(multipliers.dtype).mean(),
    }

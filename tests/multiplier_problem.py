"""A constrained problem whose multipliers are known in closed form at every state, and agents that learn it.

One step, state s in [-1, 1] and action a in [-1, 1]: maximise ``m s a - κ a² / 2`` subject to ``a <= 0``. The
Lagrangian ``-m s a + κ a² / 2 + λ a`` is stationary in a at ``λ = m s - κ a``. So for s > 0 the constraint is active,
a* = 0 and λ*(s) = m s; for s < 0 it is not, and λ*(s) = 0. The entropy of a tanh-Gaussian is symmetric about a = 0 and
moves neither. Without curvature (κ = 0) nothing damps the game of actor and multiplier: the hard case for dual ascent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from onestride.policies.normaliser import Affine
from onestride.training.agents import catalogue

BATCH = 128
PROBES = torch.linspace(-0.9, 0.9, 7).unsqueeze(1)


class Outcome(NamedTuple):
    """The last quarter of training, at the probes."""

    mean: torch.Tensor
    swing: torch.Tensor
    """Standard deviation of the multiplier over time."""
    mode: torch.Tensor
    """What the policy does in the end."""

    def error(self, slope: float) -> float:
        """Largest distance of a mean multiplier from the closed form."""
        return float((self.mean - closed_form(slope)).abs().max())


def closed_form(slope: float) -> torch.Tensor:
    """λ* at the probes."""
    return (slope * PROBES[:, 0]).clamp_min(0)


def learn(
    name: str, *, slope: float = 2.0, curvature: float = 0.0, steps: int = 3000, seed: int = 0, **own: Any
) -> Outcome:
    """The same problem, networks and learning rates for every agent; what is its own stays at its default."""
    entry: Any = catalogue.find(name)
    shared = {"hidden": (32, 32), "batch_size": BATCH, "lr": 1e-3, "multiplier_lr": 1e-3, "tau": 0.05}
    problem = {"discount": 0.0, "cost_discount": 0.0, "cost_limit": 0.0, "max_multiplier": 10.0, "temperature": 0.1}
    config = entry.config(**shared, **problem, **own)
    agent = entry.agent(config, Affine.identity(1), Affine.identity(1), steps=steps, seed=seed)
    g, seen = torch.Generator().manual_seed(seed), []
    for step in range(steps):
        agent.update(_batch(g, slope, curvature))
        if step >= steps * 3 // 4:
            seen.append(agent.multipliers(PROBES))
    history = torch.stack(seen)
    return Outcome(history.mean(0), history.std(0), agent.act(PROBES, torch.zeros(len(PROBES), 1, 1))[:, 0, 0])


def _batch(g: torch.Generator, slope: float, curvature: float) -> dict[str, torch.Tensor]:
    s, a = (torch.rand(BATCH, 1, 1, generator=g) * 2 - 1 for _ in range(2))
    one = torch.ones(BATCH, 1)
    return {
        "observations": s,
        "next_observations": s,
        "actions": a,
        "rewards": (slope * s * a - 0.5 * curvature * a.square())[:, :, 0],
        "costs": a[:, :, 0],
        "masks": 0 * one,
        "terminals": one,
        "valid": one,
    }

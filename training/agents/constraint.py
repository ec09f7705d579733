"""Safety constraints: what is bounded and by how much, and the critics that predict it.

A constraint holds at a state where ``g(s) = E_a[G(s, a)] - d <= 0``. ``G`` is the discounted sum of costs, or the
reachability value, the worst constraint value on the way; ``d`` is the limit.

References: reachability, arXiv:2205.07536 (RCRL); state-wise constraints, arXiv:2105.10682 (FAC).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from onestride.policies.ensemble import Ensemble
from onestride.policies.gaussian_export import Monitor
from onestride.training.agents.followed import Followed
from onestride.training.agents.settings import require
from onestride.training.agents.soft_actor import SoftConfig
from onestride.training.agents.soft_critic import Metrics, values
from onestride.training.agents.transition import Transition, discounted


@dataclass(frozen=True)
class ConstrainedConfig(SoftConfig):
    """Settings that every constrained soft actor-critic has."""

    critics: int = 2
    """Critics of the return; the smallest value counts."""
    constraint: Literal["cost", "reachability"] = "cost"
    """What is bounded: the discounted sum of costs, or the worst cost on the way, where a cost > 0 is a violation."""
    cost_limit: float = 25.0
    """Largest sum of costs, not discounted, over ``cost_horizon`` steps; for the constraint ``cost``."""
    cost_horizon: int = 1000
    """Steps that ``cost_limit`` is for."""
    cost_discount: float = 0.99
    """γ per step, of costs."""
    reach_limit: float = 0.0
    """Largest reachability value; for the constraint ``reachability``."""
    constraint_critics: int = 2
    """Constraint critics; their mean is trained against, their maximum watches the exported policy."""
    constraint_draws: int = 2
    """Actions drawn per state to average the constraint value over, before any penalty is taken."""
    max_multiplier: float = 100.0
    """Largest multiplier; a state whose multiplier is there counts as infeasible."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        super().__post_init__()
        for field in ("critics", "cost_horizon", "constraint_critics", "constraint_draws"):
            require(self, field, getattr(self, field) >= 1, ">= 1")
        require(self, "constraint", self.constraint in ("cost", "reachability"), "cost or reachability")
        single = self.constraint == "cost" or self.horizon == 1
        require(self, "horizon", single, "1 with the constraint reachability")
        require(self, "cost_limit", 0 <= self.cost_limit < math.inf, ">= 0")
        require(self, "cost_discount", 0 <= self.cost_discount < 1, "in [0, 1)")
        require(self, "reach_limit", math.isfinite(self.reach_limit), "a finite number")
        require(self, "max_multiplier", 0 < self.max_multiplier < math.inf, "> 0")

    @property
    def limit(self) -> float:
        """d, the largest constraint value."""
        if self.constraint == "reachability":
            return self.reach_limit
        return discounted_limit(self.cost_limit, self.cost_horizon, self.cost_discount)


def discounted_limit(limit: float, steps: int, discount: float) -> float:
    """The discounted sum of a cost that runs on for ever at the rate ``limit / steps``: 2.5 for (25, 1000, 0.99)."""
    return limit / steps / (1 - discount)


class ConstraintCritic(nn.Module):
    """K critics ``G_k(s, a)`` of the constraint value, and their target copies.

    Attributes:
        ensemble: The critics and their copies.
        limit: d.
    """

    def __init__(self, config: ConstrainedConfig, input_dim: int) -> None:
        """Build the critics of (s, a), together ``input_dim`` long."""
        super().__init__()
        self.ensemble = Followed(Ensemble(config.constraint_critics, input_dim, config.hidden))
        self.limit, self._config = config.limit, config

    def loss(self, step: Transition, costs: torch.Tensor, next_a: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        """Squared error to the target of the constraint value.

        Args:
            step: The batch.
            costs: (B, h).
            next_a: (B, h * Da) drawn by the policy at ``next_s``.

        Returns:
            The scalar loss and its metrics, keyed ``critic/...``.
        """
        with torch.no_grad():
            following = values(self.ensemble.target, step.next_s, next_a).mean(0)
            target = self.target(costs, step.mask, following)
        found = values(self.ensemble.online, step.s, step.a)
        loss = ((found - target).square() * step.valid).mean()
        return loss, {"critic/constraint_loss": loss.detach(), "critic/constraint_value": found.detach().mean()}

    def target(self, costs: torch.Tensor, mask: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        """The value (B,) of a step from the value of the next one.

        ``Σ γ^i c_i + γ^h G'`` for costs, with G' = 0 after a terminal step; ``(1 - γ) h + γ max(h, G')`` for
        reachability with constraint value h, where after a terminal step nothing worse than h follows.

        Args:
            costs: (B, h) costs c, or for reachability (B, 1) constraint values.
            mask: (B,) 0 after a terminal step.
            following: (B,) G'.
        """
        gamma = self._config.cost_discount
        if self._config.constraint == "cost":
            return discounted(costs, gamma) + gamma ** costs.shape[1] * mask * following
        h = costs[:, 0]
        worst = torch.where(mask > 0, torch.maximum(h, following), h)
        return (1 - gamma) * h + gamma * worst

    @property
    def monitor(self) -> Monitor:
        """What an exported policy promises about the constraint."""
        what = "discounted sum of costs" if self._config.constraint == "cost" else "reachability value"
        return Monitor("risk", f"largest {what} of the action that a constraint critic expects", self.limit)

    def excess(self, s: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """``g(s) = mean over draws and critics of G(s, a) - d`` (B,), with a (draws, B, h * Da) drawn at s (B, S)."""
        draws, batch, _ = a.shape
        spread = s.expand(draws, *s.shape).flatten(0, 1)
        found = values(self.ensemble.online, spread, a.flatten(0, 1))
        return found.view(-1, draws, batch).mean((0, 1)) - self.limit

"""The critics of the soft actor-critics: an ensemble, its target copies, and their temporal-difference loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from onestride.policies.ensemble import Ensemble
from onestride.training.agents.followed import Followed
from onestride.training.agents.transition import Transition

Summary = Literal["min", "mean"]
Metrics = dict[str, torch.Tensor]


class SoftCritic(nn.Module):
    """K critics ``Q_k(s, a)``, valued by the smallest of a subset of their target copies.

    Attributes:
        ensemble: The critics and their copies.
        subset: How many copies are drawn for a target; all of them where it is K.
        discount: ``γ^h``.

    References: twin critics, arXiv:1812.05905; the drawn subset, arXiv:2101.05982 (REDQ).
    """

    def __init__(self, ensemble: Ensemble, *, subset: int, discount: float) -> None:
        """Put target copies beside an ensemble.

        Args:
            ensemble: The critics of (s, a).
            subset: How many are drawn for a target.
            discount: ``γ^h``, of a whole chunk.
        """
        super().__init__()
        self.ensemble = Followed(ensemble)
        self.subset, self.discount = subset, discount

    def forward(self, s: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """Values (K, B) of chunks a (B, h * Da) at s (B, S)."""
        return values(self.ensemble.online, s, a)

    def target_value(self, s: torch.Tensor, a: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The smallest value (B,) among the drawn target copies."""
        found = values(self.ensemble.target, s, a)
        if self.subset < len(found):
            drawn = torch.randperm(len(found), generator=generator, device=found.device)
            found = found[drawn[: self.subset]]
        return found.amin(0)

    def loss(
        self,
        step: Transition,
        next_a: torch.Tensor,
        next_log_prob: torch.Tensor,
        temperature: torch.Tensor,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, Metrics]:
        """Squared error to ``r + γ^h mask (min Q̄(s', a') - α log π(a'|s'))``.

        Args:
            step: The batch.
            next_a: (B, h * Da) drawn by the policy at ``next_s``.
            next_log_prob: (B,) its log density; zeros leave the entropy out.
            temperature: α, scalar.
            generator: Of the subset.

        Returns:
            The scalar loss and its metrics, keyed ``critic/...``.
        """
        with torch.no_grad():
            following = self.target_value(step.next_s, next_a, generator) - temperature * next_log_prob
            target = step.reward + self.discount * step.mask * following
        found = self(step.s, step.a)
        loss = ((found - target).square() * step.valid).mean()
        return loss, {"critic/loss": loss.detach(), "critic/value": found.detach().mean()}


def values(ensemble: Ensemble, s: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Each member's value (K, B) of a (B, A) at s (B, S)."""
    output: torch.Tensor = ensemble(torch.cat([s, a], dim=-1))
    return output.squeeze(-1)


def summary(values: torch.Tensor, kind: Summary) -> torch.Tensor:
    """One value (B,) of an ensemble's (K, B)."""
    return values.amin(0) if kind == "min" else values.mean(0)

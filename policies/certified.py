"""Candidates that keep a certificate: what a generative policy draws is judged before it is ranked.

The one here is learnt (a Lyapunov or constraint critic): that a candidate keeps it is a statement of that network, not
a proof. :mod:`onestride.policies.modelled` holds the other kind, a claim about a known model.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from onestride.policies.critic import CriticEnsemble

#: Of the outputs that tell how the candidates fared.
COUNT, LEAST = "certified_candidates", "certificate_violation"


class CandidateCertificate(nn.Module):
    """``L(s, a) <= limit`` for every member of an ensemble, on the first actions of a chunk.

    Attributes:
        words: What is kept, for people.
        critic: Values (s, first actions).
        limit: Of its values.
        steps: Actions of the chunk that it looks at.
    """

    words = "the learnt certificate"

    def __init__(self, critic: CriticEnsemble, limit: float, steps: int) -> None:
        """Join the three.

        Raises:
            ValueError: Fewer than 1 step.
        """
        super().__init__()
        if steps < 1:
            raise ValueError(f"expected steps >= 1, got {steps}")
        self.critic, self.limit, self.steps = critic, limit, steps

    def forward(self, s: torch.Tensor, chunks: torch.Tensor) -> torch.Tensor:
        """By how much candidates break the certificate: (B, S) and (B, N, h, Da) -> (B, N), 0 or less where kept."""
        values: torch.Tensor = self.critic(s, chunks[:, :, : self.steps].flatten(2))
        return values.amax(0) - self.limit


class Judged(NamedTuple):
    """What became of N candidates of each observation."""

    chosen: torch.Tensor
    """The one chosen (B,)."""
    kept: torch.Tensor
    """How many keep the certificate, as a float (B,)."""
    least: torch.Tensor
    """The least violation of any (B,); 0 or less where one keeps it."""


def judge(values: torch.Tensor, violation: torch.Tensor) -> Judged:
    """Choose the best of the candidates that keep the certificate, or the one that breaks it least.

    Args:
        values: (B, N), larger is better.
        violation: (B, N), 0 or less where the certificate is kept.
    """
    kept = violation <= 0.0
    some = kept.any(1, keepdim=True)
    score = torch.where(some, torch.where(kept, values, -torch.inf), -violation)
    return Judged(score.argmax(1), kept.to(values.dtype).sum(1), violation.amin(1))


def near_judged(values: torch.Tensor, violation: torch.Tensor, slack: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Between which candidates rounding may decide, and between which counts.

    Args:
        values: Of one observation's candidates (N,).
        violation: Of the same (N,).
        slack: Of both, relative to their largest magnitude.

    Returns:
        Whether each may be chosen (N,), and the counts that may be told (K,).
    """
    loose = slack * values.abs().max().clamp_min(1.0)
    width = slack * violation.abs().max().clamp_min(1.0)
    surely, perhaps = violation <= -width, violation <= width
    counts = torch.arange(int(surely.sum()), int(perhaps.sum()) + 1, dtype=values.dtype)
    if surely.any():
        return perhaps & (values >= values[surely].max() - loose), counts
    return perhaps | (violation <= violation.min() + width), counts

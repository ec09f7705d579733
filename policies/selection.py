"""Generate and select: draw N chunks, let the critic rank them, take the best.

Reference: arXiv:2602.13810, Eq. 11 and 20.
"""

from __future__ import annotations

import torch
from torch import nn

from onestride.policies.critic import CriticEnsemble
from onestride.policies.policy import ChunkFlow, ChunkPolicy


def take(chunks: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """One of N chunks for each row: (B, N, h, Da) at (B,) -> (B, h, Da)."""
    return chunks[torch.arange(len(chunks), device=chunks.device), index]


def draw_and_value(
    flow: ChunkFlow, critic: CriticEnsemble, s: torch.Tensor, noise: torch.Tensor, nfe: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw N candidates for each observation and value them.

    Args:
        flow: Draws them.
        critic: Values them, by the mean of its members.
        s: (B, S) observation.
        noise: (B * N, h, Da) standard normal, N rows for each observation.
        nfe: Network evaluations per chunk.

    Returns:
        Normalised chunks (B, N, h, Da) in [-1, 1] and their values (B, N).
    """
    candidates = len(noise) // len(s)
    chunks = flow.sample(s.repeat_interleave(candidates, 0), noise, nfe).clamp(-1.0, 1.0)
    chunks = chunks.reshape(len(s), candidates, *noise.shape[1:])
    return chunks, critic(s, chunks.flatten(2)).mean(0)


class BestOfN(nn.Module):
    """A policy that draws N chunks and acts with the one its critic values most.

    Attributes:
        policy: Draws the chunks.
        critic: Ranks them by the mean of its members.
        candidates: N.
    """

    def __init__(self, policy: ChunkPolicy[ChunkFlow], critic: CriticEnsemble, candidates: int) -> None:
        """Join the two.

        Raises:
            ValueError: Fewer than 1 candidate.
        """
        super().__init__()
        if candidates < 1:
            raise ValueError(f"expected candidates >= 1, got {candidates}")
        self.policy, self.critic, self.candidates = policy, critic, candidates

    @property
    def flow(self) -> ChunkFlow:
        """What turns noise into a chunk."""
        return self.policy.flow

    def values(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised chunks (B, N, h, Da) and their values (B, N); see :func:`draw_and_value`."""
        return draw_and_value(self.policy.flow, self.critic, s, noise, nfe)

    def best(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """The normalised chunks (B, h, Da) that are valued most; see :func:`draw_and_value`."""
        if self.candidates == 1:
            return self.policy.generate(s, noise, nfe)
        chunks, values = self.values(s, noise, nfe)
        return take(chunks, values.argmax(1))

    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Act with the best candidates.

        Args:
            observation: (B, To * Do) in dataset units.
            noise: (B * N, h, Da) standard normal, N rows for each observation.
            nfe: Network evaluations per chunk.

        Returns:
            (B, h, Da) in dataset units, inside the action box.
        """
        return self.policy.to_dataset(self.best(self.policy.condition(observation), noise, nfe))

    def near_best(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int, slack: float) -> torch.Tensor:
        """The chunks (M, h, Da) of one observation whose values lie within ``slack`` of the best, in dataset units.

        Rounding may decide between them; ``slack`` is relative to the largest value in magnitude.
        """
        chunks, values = self.values(self.policy.condition(observation), noise, nfe)
        enough = values.max() - slack * values.abs().max().clamp_min(1.0)
        return self.policy.to_dataset(chunks[0, values[0] >= enough])

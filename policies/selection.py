"""Generate and select: draw N chunks, let the critic rank them, take the best.

Reference: arXiv:2602.13810, Eq. 11 and 20.
"""

from __future__ import annotations

import torch
from torch import nn

from onestride.policies.certified import CandidateCertificate, Judged, judge, near_judged
from onestride.policies.critic import CriticEnsemble
from onestride.policies.modelled import ModelCertificate
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
        certificate: What a candidate has to keep to be ranked at all; None for none.
    """

    def __init__(
        self,
        policy: ChunkPolicy[ChunkFlow],
        critic: CriticEnsemble,
        candidates: int,
        certificate: CandidateCertificate | ModelCertificate | None = None,
    ) -> None:
        """Join them.

        Raises:
            ValueError: Fewer than 1 candidate.
        """
        super().__init__()
        if candidates < 1:
            raise ValueError(f"expected candidates >= 1, got {candidates}")
        self.policy, self.critic, self.candidates, self.certificate = policy, critic, candidates, certificate

    @property
    def flow(self) -> ChunkFlow:
        """What turns noise into a chunk."""
        return self.policy.flow

    def values(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised chunks (B, N, h, Da) and their values (B, N); see :func:`draw_and_value`."""
        return draw_and_value(self.policy.flow, self.critic, s, noise, nfe)

    def best(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """The normalised chunks (B, h, Da) that are valued most; see :func:`draw_and_value`."""
        if self.certificate is not None:
            return self.judged(s, noise, nfe)[0]
        if self.candidates == 1:
            return self.policy.generate(s, noise, nfe)
        chunks, values = self.values(s, noise, nfe)
        return take(chunks, values.argmax(1))

    def judged(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> tuple[torch.Tensor, Judged]:
        """The normalised chunks (B, h, Da) that keep the certificate and are valued most, and how all fared.

        Raises:
            ValueError: There is no certificate.
        """
        if self.certificate is None:
            raise ValueError("expected a certificate, got none")
        chunks, values = self.values(s, noise, nfe)
        judged = judge(values, self.certificate(s, chunks))
        return take(chunks, judged.chosen), judged

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
        return self.near_judged(observation, noise, nfe, slack)[0]

    def near_judged(
        self, observation: torch.Tensor, noise: torch.Tensor, nfe: int, slack: float
    ) -> tuple[torch.Tensor, ...]:
        """As :meth:`near_best`; of a certificate the counts (K,) that may be told and the least violation (1,), too."""
        s = self.policy.condition(observation)
        chunks, values = self.values(s, noise, nfe)
        if self.certificate is None:
            enough = values.max() - slack * values.abs().max().clamp_min(1.0)
            return (self.policy.to_dataset(chunks[0, values[0] >= enough]),)
        violation = self.certificate(s, chunks)
        near, counts = near_judged(values[0], violation[0], slack)
        return self.policy.to_dataset(chunks[0, near]), counts, violation.amin(1)

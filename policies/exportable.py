"""The policy as a plain function of tensors, in the form that is written to an ONNX file."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from onestride.policies.certified import COUNT, LEAST
from onestride.policies.gaussian_export import Monitor
from onestride.policies.lipschitz import ObservationBound
from onestride.policies.policy import ChunkFlow, ChunkPolicy
from onestride.policies.selection import BestOfN


class Exportable(nn.Module):
    """One output per number of network evaluations; all share the same weights.

    Noise is an input, so the caller owns the randomness and a recording can be replayed exactly. Where candidates
    are ranked, the critic is part of the graph.

    Attributes:
        policy: A copy of the policy, in evaluation mode, on the CPU.
        nfe: Network evaluations of each output, in the outputs' order.
        monitors: What each further output means, in order: how the candidates fared, where a certificate judges them.
    """

    def __init__(self, policy: ChunkPolicy[ChunkFlow] | BestOfN, nfe: Sequence[int] = (1, 2, 4)) -> None:
        """Copy ``policy``.

        Raises:
            ValueError: ``nfe`` is empty, repeats a value, or holds one below 1; or a certificate judges candidates that
                several numbers of evaluations would draw.
        """
        super().__init__()
        if not nfe or len(set(nfe)) != len(nfe) or min(nfe) < 1:
            raise ValueError(f"expected distinct numbers of network evaluations >= 1, got {tuple(nfe)}")
        self.policy = copy.deepcopy(policy).cpu().requires_grad_(False)
        if isinstance(self.policy.flow, ObservationBound):
            self.policy.flow.fold()
        self.nfe = tuple(nfe)
        self.monitors = _fared(policy)
        if self.monitors and len(self.nfe) != 1:
            raise ValueError(f"certificate: expected one number of network evaluations, got {self.nfe}")
        self.eval()

    def forward(self, observation: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Action chunks, one per entry of ``nfe``.

        Args:
            observation: (1, To * Do) float32, dataset units.
            noise: (N, h, Da) float32, standard normal, a row for each candidate.

        Returns:
            For each entry of ``nfe``: (1, h, Da) float32, dataset units, inside the action box; then each monitor (1,).
        """
        if self.monitors and isinstance(self.policy, BestOfN):
            s = self.policy.policy.condition(observation)
            chunk, judged = self.policy.judged(s, noise, self.nfe[0])
            return self.policy.policy.to_dataset(chunk), judged.kept, judged.least
        return tuple(self.policy.act(observation, noise, nfe) for nfe in self.nfe)

    def near_best(self, observation: torch.Tensor, noise: torch.Tensor, slack: float) -> tuple[torch.Tensor, ...]:
        """Per entry of ``nfe`` the chunks (M, h, Da) between which rounding may decide; M = 1 without a ranking."""
        if self.monitors and isinstance(self.policy, BestOfN):
            return self.policy.near_judged(observation, noise, self.nfe[0], slack)
        if isinstance(self.policy, BestOfN):
            return tuple(self.policy.near_best(observation, noise, nfe, slack) for nfe in self.nfe)
        return self.forward(observation, noise)

    def example_inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Zero inputs of the right shapes, for tracing."""
        flow = self.policy.flow
        noise = torch.zeros(self.policy.candidates, flow.horizon, flow.action_dim)
        return torch.zeros(1, flow.observation_dim), noise


def _fared(policy: nn.Module) -> tuple[Monitor, ...]:
    """How a policy's candidates fare, if a certificate judges them; the second trips where none keeps it."""
    if not isinstance(policy, BestOfN) or policy.certificate is None:
        return ()
    count, kept = policy.candidates, policy.certificate.words
    return (
        Monitor(COUNT, f"how many of {count} candidates keep {kept}", float(count)),
        Monitor(LEAST, f"least violation of {kept} among the candidates; the chosen one's above 0", 0.0),
    )

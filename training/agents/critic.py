"""A chunked critic that learns: the ensemble, its slowly following target, and their temporal-difference loss.

References: Q-chunking, arXiv:2507.07969; generate-and-select in the target, arXiv:2602.13810, Eq. 20.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal, Protocol

import torch

from onestride.policies.critic import CriticEnsemble
from onestride.policies.policy import ChunkFlow, ChunkPolicy
from onestride.policies.products import rank_dtype
from onestride.policies.ranking import Ranker
from onestride.policies.selection import BestOfN
from onestride.training.agents.state import load_optimiser_tensors, optimiser_tensors


class CriticSettings(Protocol):
    """The fields of an agent's config that this piece reads."""

    @property
    def nfe(self) -> tuple[int, ...]:
        """Network evaluations per chunk; candidates are drawn with the first."""
        ...

    @property
    def candidates(self) -> int:
        """Chunks drawn and ranked, N; 1 = none is ranked."""
        ...

    @property
    def critic_hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        ...

    @property
    def critics(self) -> int:
        """Members of the ensemble."""
        ...

    @property
    def critic_lr(self) -> float:
        """Adam's learning rate."""
        ...

    @property
    def discount(self) -> float:
        """γ per step."""
        ...

    @property
    def tau(self) -> float:
        """Share of the online parameters that the target takes over at each update."""
        ...

    @property
    def rank_dtype(self) -> Literal["auto", "float32", "bfloat16"]:
        """Precision in which candidates are ranked for the target."""
        ...


def chunk_return(rewards: torch.Tensor, masks: torch.Tensor, bootstrap: torch.Tensor, discount: float) -> torch.Tensor:
    """``Σ_{i<h} γ^i r_i + γ^h m V`` of whole chunks, (B,).

    Args:
        rewards: (B, h).
        masks: (B, h), the running minimum; its last column m is 0 where nothing is to be had after the chunk.
        bootstrap: (B,) value V after the chunk.
        discount: γ.
    """
    horizon = rewards.shape[1]
    powers = discount ** torch.arange(horizon, device=rewards.device, dtype=rewards.dtype)
    return rewards @ powers + discount**horizon * masks[:, -1] * bootstrap


class ChunkedCritic:
    """Online and target ensemble with the online one's optimiser, and the policy they judge.

    Attributes:
        online: Ranks candidates, and is trained.
        target: Gives the value after a chunk; follows the online ensemble.
        ranked: The policy that acts with its best candidate.
        ranker: The same, fast, for the target.
    """

    def __init__(self, config: CriticSettings, policy: ChunkPolicy[ChunkFlow]) -> None:
        """Build the ensemble on the policy's device, from torch's global generator, with a target equal to it.

        Args:
            config: Sizes and rates.
            policy: Draws the candidates.
        """
        flow = policy.flow
        sizes = flow.observation_dim, flow.horizon * flow.action_dim
        self.online = CriticEnsemble(*sizes, config.critic_hidden, config.critics).to(policy.low.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.ranked = BestOfN(policy, self.online, config.candidates)
        self.ranker = Ranker(self.ranked, rank_dtype(config.rank_dtype, policy.low.device)[0])
        self.optimiser = torch.optim.Adam(self.online.parameters(), lr=config.critic_lr, fused=True)
        self._config = config
        self._sources: list[torch.Tensor] = list(self.online.parameters())
        self._averages: list[torch.Tensor] = list(self.target.parameters())

    @torch.no_grad()
    def best(self, s: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The best of N fresh candidates at s (B, S): normalised chunks (B, h, Da)."""
        flow, rows = self.ranked.flow, len(s) * self._config.candidates
        noise = torch.randn((rows, flow.horizon, flow.action_dim), generator=generator, device=s.device)
        return self.ranker.best(s, noise, self._config.nfe[0])

    def loss(
        self,
        s: torch.Tensor,
        chunks: torch.Tensor,
        next_s: torch.Tensor,
        batch: Mapping[str, torch.Tensor],
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Squared error toward the chunk's rewards and the target's value of the best candidate after it.

        A chunk that ends before its last step (the episode's end, or a terminal on the way) is left out.

        Args:
            s: (B, S) observation.
            chunks: (B, h, Da) normalised chunk that was executed.
            next_s: (B, S) observation after it.
            batch: ``rewards``, ``masks`` and ``valid``, each (B, h).
            generator: Source of the candidates' noise.

        Returns:
            The scalar loss and its metrics, keyed ``critic/...``.
        """
        with torch.no_grad():
            bootstrap = self.target(next_s, flat(self.best(next_s, generator))).mean(0).squeeze(-1)
            target = chunk_return(batch["rewards"], batch["masks"], bootstrap, self._config.discount)
        values = self.online(s, flat(chunks)).squeeze(-1)
        loss = ((values - target).square() * batch["valid"][:, -1]).mean()
        metrics = {"loss": loss.detach(), "value": values.detach().mean(), "target": target.mean()}
        return loss, {f"critic/{name}": value for name, value in metrics.items()}

    def gradient(self, s: torch.Tensor, chunks: torch.Tensor) -> torch.Tensor:
        """``∇_a mean_k Q_k(s, a)`` (B, h, Da) at normalised chunks (B, h, Da)."""
        point = chunks.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.online(s, flat(point)).mean(0).sum(), point)
        return gradient

    def step(self, loss: torch.Tensor) -> None:
        """One gradient step, then the target follows."""
        self.optimiser.zero_grad()
        torch.autograd.backward(loss, inputs=self._sources)
        self.optimiser.step()
        with torch.no_grad():
            averages, share = self._averages, self._config.tau
            torch._foreach_lerp_(averages, self._sources, share)  # pyright: ignore[reportPrivateImportUsage]

    def tensors(self) -> dict[str, Mapping[str, torch.Tensor]]:
        """Everything needed to go on, as groups of a checkpoint."""
        return {
            "critic": self.online.state_dict(),
            "critic_target": self.target.state_dict(),
            "critic_optimiser": optimiser_tensors(self.optimiser),
        }

    def load(self, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Undo :meth:`tensors`."""
        self.begin_from(tensors)
        load_optimiser_tensors(self.optimiser, tensors["critic_optimiser"])

    def begin_from(self, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Take over another critic's parameters; the optimiser begins anew.

        Raises:
            RuntimeError: Its sizes are others.
        """
        self.online.load_state_dict(tensors["critic"])
        self.target.load_state_dict(tensors["critic_target"])


def flat(chunks: torch.Tensor) -> torch.Tensor:
    """Chunks (B, h, Da) as one candidate each, (B, 1, h * Da)."""
    return chunks.flatten(1).unsqueeze(1)

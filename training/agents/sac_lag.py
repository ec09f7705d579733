"""SAC-Lag: soft actor-critic under a constraint on average, with one multiplier raised by dual ascent.

The actor minimises ``E[α log π - min Q + λ G] / (1 + λ)``, and ``λ <- clip(λ + η E[g], 0, λ_max)`` with
``g = G - d``: the multiplier grows while the constraint is broken on average over the batch, and shrinks otherwise.

Reference: arXiv:1910.01708, Section 4, with the projected ascent spelled out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from onestride.policies.gaussian_export import ExportableGaussian
from onestride.policies.normaliser import Affine
from onestride.policies.products import fast_products
from onestride.training.agents.constrained import ConstrainedActorCritic
from onestride.training.agents.constraint import ConstrainedConfig
from onestride.training.agents.multiplier import multiplier_metrics
from onestride.training.agents.packing import descend, pack, unpack
from onestride.training.agents.settings import require
from onestride.training.agents.soft_critic import Metrics
from onestride.training.agents.state import AgentState
from onestride.training.agents.transition import Transition
from onestride.training.ranks import shared_mean


@dataclass(frozen=True)
class SACLagConfig(ConstrainedConfig):
    """Soft actor-critic under a constraint on average, with one Lagrange multiplier."""

    multiplier_lr: float = 3e-4
    """Step η of the dual ascent."""
    multiplier: float = 0.0
    """λ at the start."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        super().__post_init__()
        require(self, "multiplier_lr", 0 < self.multiplier_lr < math.inf, "> 0")
        require(self, "multiplier", 0 <= self.multiplier <= self.max_multiplier, "between 0 and max_multiplier")


class SACLagAgent:
    """Trains a squashed Gaussian policy against return and one priced constraint.

    Attributes:
        config: The settings.
        core: Actor and critics.
        multiplier: λ, scalar.
    """

    needs: tuple[str, ...] = ("rewards", "costs")

    def __init__(
        self,
        config: SACLagConfig,
        observation: Affine,
        action: Affine,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build networks and optimisers; arguments as of :class:`onestride.training.agents.sac.SACAgent`."""
        del steps
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            core = ConstrainedActorCritic(config, observation, action)
        self.core = core.to(device)
        self.multiplier = torch.full((), config.multiplier, device=device)
        self.critic_optimiser = self.core.critics_optimiser()
        self.actor_optimiser = torch.optim.Adam(self.core.actor.parameters(), lr=config.lr, fused=True)
        self.generator = torch.Generator(device).manual_seed(seed)

    def critic_loss(self, step: Transition, costs: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        """Temporal-difference errors of return and constraint value; costs (B, h)."""
        return self.core.critic_loss(step, costs, self.generator)

    def actor_loss(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """``E[α log π - min Q + λ g] / (1 + λ)`` plus the temperature's own loss.

        Args:
            s: (B, S) normalised observations.

        Returns:
            The scalar loss, ``g`` (B,) without gradient, and the metrics, keyed ``actor/...``.
        """
        soft_loss, excess, log_prob = self.core.propose(s, self.generator)
        loss = (soft_loss + self.multiplier * excess).mean() / (1 + self.multiplier)
        metrics = {"actor/loss": loss.detach(), "actor/excess": excess.detach().mean()}
        actor = self.core.actor
        return loss + actor.temperature_loss(log_prob), excess.detach(), {**metrics, **actor.metrics(log_prob)}

    def multiplier_step(self, excess: torch.Tensor) -> Metrics:
        """Projected dual ascent on the mean of ``g`` (B,)."""
        mean = shared_mean(excess.mean())
        self.multiplier.add_(self.config.multiplier_lr * mean).clamp_(0, self.config.max_multiplier)
        return multiplier_metrics(self.multiplier, self.config.max_multiplier)

    @fast_products()
    def update(self, batch: Mapping[str, torch.Tensor]) -> Metrics:
        """One gradient step of critics, actor and temperature, and one of the multiplier."""
        step = self.core.transition(batch)
        loss, critic_metrics = self.critic_loss(step, batch["costs"])
        descend(self.critic_optimiser, loss)
        loss, excess, actor_metrics = self.actor_loss(step.s)
        descend(self.actor_optimiser, loss)
        multiplier = self.multiplier_step(excess)
        self.core.follow()
        return {**critic_metrics, **actor_metrics, **multiplier}

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Chunks (B, h, Da) at (B, To * Do) from noise (B, h, Da), in dataset units; zeros give the mode."""
        del nfe  # a Gaussian takes one evaluation
        return self.core.actor.policy.act(observation, noise)

    @property
    def max_multiplier(self) -> float:
        """Largest multiplier there can be."""
        return self.config.max_multiplier

    def multipliers(self, observations: torch.Tensor) -> torch.Tensor:
        """λ (B,), the same at every state."""
        return self.multiplier.expand(len(observations)).clone()

    def excess(self, observations: torch.Tensor) -> torch.Tensor:
        """``g(s)`` (B,) of the mode at observations (B, To * Do) in dataset units."""
        return self.core.excess(observations)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> ExportableGaussian:
        """The mode of the policy, watched by the constraint critics, a copy on the CPU."""
        return self.core.exportable(len(nfe or self.config.nfe))

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        groups = pack(*self._parts(), self.generator)
        return AgentState({**groups, "multiplier": {"multiplier": self.multiplier}})

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        unpack(state.tensors, *self._parts(), self.generator)
        self.multiplier.copy_(state.tensors["multiplier"]["multiplier"])

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's policy, temperature, critics and multiplier; the optimisers begin anew.

        Raises:
            RuntimeError: Its sizes are others.
        """
        self.core.load_state_dict(state.tensors["model"])
        self.multiplier.copy_(state.tensors["multiplier"]["multiplier"])

    def _parts(self) -> tuple[dict[str, torch.nn.Module], dict[str, torch.optim.Optimizer]]:
        return {"model": self.core}, {"critic": self.critic_optimiser, "actor": self.actor_optimiser}

"""SAC-ALaM: soft actor-critic under state-wise constraints, by an augmented Lagrangian with a multiplier network.

The paper's abstract states the ingredients: a multiplier network for state-wise constraints, a quadratic penalty that
compensates multipliers that lag behind, and supervised regression of the network toward a dual target. Its schedule
and constants are not public to us. What follows is a **reconstruction** from those ingredients, not the paper's code,
with ``g(s) = E_a[G(s, a)] - d``:

- penalty ``ψ(g, λ, ρ) = λ g + ρ g² / 2`` where ``λ + ρ g > 0``, else ``-λ² / (2 ρ)``;
- actor: ``E[α log π - min Q + ψ(g(s), sg λ(s), ρ)] / (1 + E[λ])``, with G averaged over several actions before ψ;
- dual target: ``y(s) = clip(λ̄(s) + ρ g(s), 0, λ_max)`` with λ̄ a Polyak copy of the network;
- multiplier network: ``½ (λ_φ(s) - sg y(s))²``, clipped to [0, λ_max] wherever it is read.

At a fixed point λ̄ = λ and λ = clip(λ + ρ g), which are the KKT conditions at each state: g <= 0, λ >= 0, λ g = 0. Where
no action meets the constraint λ rises to λ_max: those states are reported as infeasible.

Reference: arXiv:2605.00667 (the ingredients); the classical augmented Lagrangian for the penalty.
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
from onestride.training.agents.followed import Followed
from onestride.training.agents.multiplier import MultiplierNetwork, multiplier_metrics
from onestride.training.agents.packing import descend, pack, unpack
from onestride.training.agents.settings import require
from onestride.training.agents.soft_critic import Metrics
from onestride.training.agents.state import AgentState
from onestride.training.agents.transition import Transition


@dataclass(frozen=True)
class SACALaMConfig(ConstrainedConfig):
    """Soft actor-critic under state-wise constraints, by an augmented Lagrangian with a multiplier network."""

    penalty: float = 1.0
    """ρ, weight of the quadratic penalty and step of the dual target."""
    multiplier_lr: float = 3e-4
    """Adam's learning rate of the multiplier network."""
    multiplier_tau: float = 0.005
    """Share of the way that the multiplier's Polyak copy λ̄ moves at each step."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        super().__post_init__()
        require(self, "penalty", 0 < self.penalty < math.inf, "> 0")
        require(self, "multiplier_lr", 0 < self.multiplier_lr < math.inf, "> 0")
        require(self, "multiplier_tau", 0 < self.multiplier_tau <= 1, "in (0, 1]")


def augmented_penalty(excess: torch.Tensor, multipliers: torch.Tensor, rho: float) -> torch.Tensor:
    """``ψ(g, λ, ρ)``: convex and once differentiable in g, with slope ``max(λ + ρ g, 0)``.

    Args:
        excess: g (B,).
        multipliers: λ (B,), >= 0.
        rho: ρ > 0.
    """
    active = multipliers * excess + 0.5 * rho * excess.square()
    return torch.where(multipliers + rho * excess > 0, active, -multipliers.square() / (2 * rho))


class SACALaMAgent:
    """Trains a squashed Gaussian policy, and beside it the price of the constraint at each state.

    Attributes:
        config: The settings.
        core: Actor and critics.
        multiplier: The multiplier network and its Polyak copy.
    """

    needs: tuple[str, ...] = ("rewards", "costs")

    def __init__(
        self,
        config: SACALaMConfig,
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
            multiplier = Followed(MultiplierNetwork(observation.dim, config.hidden))
        self.core, self.multiplier = core.to(device), multiplier.to(device)
        self.critic_optimiser = self.core.critics_optimiser()
        networks = [
            {"params": self.core.actor.parameters(), "lr": config.lr},
            {"params": self.multiplier.online.parameters(), "lr": config.multiplier_lr},
        ]
        self.actor_optimiser = torch.optim.Adam(networks, fused=True)
        self.generator = torch.Generator(device).manual_seed(seed)

    def critic_loss(self, step: Transition, costs: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        """Temporal-difference errors of return and constraint value; costs (B, h)."""
        return self.core.critic_loss(step, costs, self.generator)

    def actor_loss(self, s: torch.Tensor, multipliers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """``E[α log π - min Q + ψ(g, λ, ρ)] / (1 + E[λ])`` plus the temperature's own loss.

        Args:
            s: (B, S) normalised observations.
            multipliers: λ (B,), taken as given.

        Returns:
            The scalar loss, ``g`` (B,) without gradient, and the metrics, keyed ``actor/...``.
        """
        soft_loss, excess, log_prob = self.core.propose(s, self.generator)
        penalised = soft_loss + augmented_penalty(excess, multipliers, self.config.penalty)
        loss = penalised.mean() / (1 + multipliers.mean())
        metrics = {"actor/loss": loss.detach(), "actor/excess": excess.detach().mean()}
        actor = self.core.actor
        return loss + actor.temperature_loss(log_prob), excess.detach(), {**metrics, **actor.metrics(log_prob)}

    def multiplier_loss(
        self, s: torch.Tensor, output: torch.Tensor, excess: torch.Tensor
    ) -> tuple[torch.Tensor, Metrics]:
        """Regression of the network toward the dual target.

        Args:
            s: (B, S) normalised observations.
            output: (B,) of the network at ``s``, before it is clipped: a clipped one would not learn to come back.
            excess: g (B,).

        Returns:
            The scalar loss and its metrics, keyed ``multiplier/...``.
        """
        with torch.no_grad():
            delayed = self._clipped(self.multiplier.target(s))
            target = self._clipped(delayed + self.config.penalty * excess)
        loss = 0.5 * (output - target).square().mean()
        metrics = multiplier_metrics(self._clipped(output), self.config.max_multiplier)
        return loss, {"multiplier/loss": loss.detach(), **metrics}

    @fast_products()
    def update(self, batch: Mapping[str, torch.Tensor]) -> Metrics:
        """One gradient step of critics, actor, temperature and multiplier network."""
        step = self.core.transition(batch)
        loss, critic_metrics = self.critic_loss(step, batch["costs"])
        descend(self.critic_optimiser, loss)
        output = self.multiplier.online(step.s)
        actor_loss, excess, actor_metrics = self.actor_loss(step.s, self._clipped(output.detach()))
        multiplier_loss, metrics = self.multiplier_loss(step.s, output, excess)
        descend(self.actor_optimiser, actor_loss + multiplier_loss)
        self.core.follow()
        self.multiplier.follow(self.config.multiplier_tau)
        return {**critic_metrics, **actor_metrics, **metrics}

    def _clipped(self, multipliers: torch.Tensor) -> torch.Tensor:
        return multipliers.clamp(0, self.config.max_multiplier)

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Chunks (B, h, Da) at (B, To * Do) from noise (B, h, Da), in dataset units; zeros give the mode."""
        del nfe  # a Gaussian takes one evaluation
        return self.core.actor.policy.act(observation, noise)

    @property
    def max_multiplier(self) -> float:
        """Largest multiplier there can be."""
        return self.config.max_multiplier

    @torch.no_grad()
    def multipliers(self, observations: torch.Tensor) -> torch.Tensor:
        """λ(s) (B,) at observations (B, To * Do) in dataset units."""
        return self._clipped(self.multiplier.online(self.core.actor.policy.condition(observations)))

    def excess(self, observations: torch.Tensor) -> torch.Tensor:
        """``g(s)`` (B,) of the mode at observations (B, To * Do) in dataset units."""
        return self.core.excess(observations)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> ExportableGaussian:
        """The mode of the policy, watched by the constraint critics, a copy on the CPU."""
        return self.core.exportable(len(nfe or self.config.nfe))

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        return AgentState(pack(*self._parts(), self.generator))

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        unpack(state.tensors, *self._parts(), self.generator)

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's policy, temperature, critics and multipliers; the optimisers begin anew.

        Raises:
            RuntimeError: Its sizes are others.
        """
        for name, module in self._parts()[0].items():
            module.load_state_dict(state.tensors[name])

    def _parts(self) -> tuple[dict[str, torch.nn.Module], dict[str, torch.optim.Optimizer]]:
        return (
            {"model": self.core, "multiplier": self.multiplier},
            {"critic": self.critic_optimiser, "actor": self.actor_optimiser},
        )

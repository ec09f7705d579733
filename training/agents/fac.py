"""FAC, the feasible actor-critic: state-wise constraints with a multiplier network raised by dual ascent.

The actor minimises ``E[α log π - min Q + λ(s) g(s)] / (1 + E[λ])`` with ``g(s) = E_a[G(s, a)] - d``, and the network
climbs ``E[λ(s) g(s)]``, where it is not at its largest already, every few updates of the actor. Primal and dual thus
chase each other, and the multipliers swing: what :mod:`onestride.training.agents.sac_alam` is compared with.

Reference: arXiv:2105.10682; the division by 1 + E[λ], the bound and the intervals are this project's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from onestride.policies.gaussian_export import ExportableGaussian
from onestride.policies.normaliser import Affine
from onestride.policies.products import fast_products
from onestride.training.agents.constrained import ConstrainedActorCritic
from onestride.training.agents.constraint import ConstrainedConfig
from onestride.training.agents.multiplier import MultiplierNetwork, multiplier_metrics
from onestride.training.agents.packing import descend, pack, unpack
from onestride.training.agents.settings import require
from onestride.training.agents.soft_critic import Metrics
from onestride.training.agents.state import AgentState
from onestride.training.agents.transition import Transition


@dataclass(frozen=True)
class FACConfig(ConstrainedConfig):
    """Feasible actor-critic: state-wise constraints, a multiplier network by dual ascent."""

    multiplier_lr: float = 3e-4
    """Adam's learning rate of the multiplier network."""
    multiplier_interval: int = 4
    """Updates of the actor for each of the multiplier network."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        super().__post_init__()
        require(self, "multiplier_lr", 0 < self.multiplier_lr < math.inf, "> 0")
        require(self, "multiplier_interval", self.multiplier_interval >= 1, ">= 1")


class FACAgent:
    """Trains a squashed Gaussian policy, and beside it the price of the constraint at each state.

    Attributes:
        config: The settings.
        core: Actor and critics.
        multiplier: The multiplier network; λ is the softplus of its output.
        updates: Gradient steps taken.
    """

    needs: tuple[str, ...] = ("rewards", "costs")

    def __init__(
        self,
        config: FACConfig,
        observation: Affine,
        action: Affine,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build networks and optimisers; arguments as of :class:`onestride.training.agents.sac.SACAgent`."""
        del steps
        self.config, self.updates = config, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            core = ConstrainedActorCritic(config, observation, action)
            multiplier = MultiplierNetwork(observation.dim, config.hidden)
        self.core, self.multiplier = core.to(device), multiplier.to(device)
        self.critic_optimiser = self.core.critics_optimiser()
        networks = [
            {"params": self.core.actor.parameters(), "lr": config.lr},
            {"params": self.multiplier.parameters(), "lr": config.multiplier_lr},
        ]
        self.actor_optimiser = torch.optim.Adam(networks, fused=True)
        self.generator = torch.Generator(device).manual_seed(seed)

    def critic_loss(self, step: Transition, costs: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        """Temporal-difference errors of return and constraint value; costs (B, h)."""
        return self.core.critic_loss(step, costs, self.generator)

    def actor_loss(self, s: torch.Tensor, multipliers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """``E[α log π - min Q + λ g] / (1 + E[λ])`` plus the temperature's own loss.

        Args:
            s: (B, S) normalised observations.
            multipliers: λ (B,), taken as given.

        Returns:
            The scalar loss, ``g`` (B,) without gradient, and the metrics, keyed ``actor/...``.
        """
        soft_loss, excess, log_prob = self.core.propose(s, self.generator)
        loss = (soft_loss + multipliers * excess).mean() / (1 + multipliers.mean())
        metrics = {"actor/loss": loss.detach(), "actor/excess": excess.detach().mean()}
        actor = self.core.actor
        return loss + actor.temperature_loss(log_prob), excess.detach(), {**metrics, **actor.metrics(log_prob)}

    def multiplier_loss(self, multipliers: torch.Tensor, excess: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        """``-E[λ g]``, without the states whose multiplier would only be pushed beyond its bound.

        Args:
            multipliers: λ (B,), not bounded, with gradient.
            excess: g (B,).

        Returns:
            The scalar loss and its metrics, keyed ``multiplier/...``.
        """
        maximum = self.config.max_multiplier
        stopped = (multipliers.detach() >= maximum) & (excess > 0)
        loss = -(multipliers * excess.masked_fill(stopped, 0.0)).mean()
        metrics = multiplier_metrics(multipliers.clamp(max=maximum), maximum)
        return loss, {"multiplier/loss": loss.detach(), **metrics}

    @fast_products()
    def update(self, batch: Mapping[str, torch.Tensor]) -> Metrics:
        """One gradient step of critics, actor and temperature, and when it is due of the multiplier network."""
        step = self.core.transition(batch)
        loss, critic_metrics = self.critic_loss(step, batch["costs"])
        descend(self.critic_optimiser, loss)
        multipliers = functional.softplus(self.multiplier(step.s))
        bounded = multipliers.detach().clamp(max=self.config.max_multiplier)
        loss, excess, actor_metrics = self.actor_loss(step.s, bounded)
        multiplier_loss, metrics = self.multiplier_loss(multipliers, excess)
        self.updates += 1
        due = self.updates % self.config.multiplier_interval == 0
        descend(self.actor_optimiser, loss + multiplier_loss if due else loss)
        self.core.follow()
        return {**critic_metrics, **actor_metrics, **metrics}

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
        output = self.multiplier(self.core.actor.policy.condition(observations))
        return functional.softplus(output).clamp(max=self.config.max_multiplier)

    def excess(self, observations: torch.Tensor) -> torch.Tensor:
        """``g(s)`` (B,) of the mode at observations (B, To * Do) in dataset units."""
        return self.core.excess(observations)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> ExportableGaussian:
        """The mode of the policy, watched by the constraint critics, a copy on the CPU."""
        return self.core.exportable(len(nfe or self.config.nfe))

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        return AgentState(pack(*self._parts(), self.generator), {"updates": self.updates})

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        unpack(state.tensors, *self._parts(), self.generator)
        self.updates = state.values["updates"]

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

"""SAC: soft actor-critic with twin critics and automatic temperature.

A chunk of h actions is one decision: its value, density and entropy are those of all its elements together.

Reference: arXiv:1812.05905.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from onestride.policies.ensemble import Ensemble
from onestride.policies.gaussian_export import ExportableGaussian
from onestride.policies.normaliser import Affine
from onestride.policies.products import fast_products
from onestride.training.agents.packing import descend, held_still, pack, unpack
from onestride.training.agents.settings import require
from onestride.training.agents.soft_actor import SoftActor, SoftConfig
from onestride.training.agents.soft_critic import Metrics, SoftCritic, summary
from onestride.training.agents.state import AgentState
from onestride.training.agents.transition import Transition, transition


@dataclass(frozen=True)
class SACConfig(SoftConfig):
    """Soft actor-critic: maximises return and entropy."""

    critics: int = 2
    """Critics in the ensemble, K."""
    target_critics: int = 2
    """Critics drawn for a target, whose smallest value counts."""
    actor_value: Literal["min", "mean"] = "min"
    """What the actor climbs: the smallest of the critics' values, or their mean."""
    layer_norm: bool = False
    """Whether the critics' hidden layers are normalised."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        super().__post_init__()
        require(self, "critics", self.critics >= 1, ">= 1")
        require(self, "target_critics", 1 <= self.target_critics <= self.critics, "between 1 and critics")
        require(self, "actor_value", self.actor_value in ("min", "mean"), "min or mean")


class SACAgent:
    """Trains a squashed Gaussian policy by its critics, and acts with it.

    Attributes:
        config: The settings.
        actor: Policy and temperature.
        critic: The critics and their target copies.
    """

    needs: tuple[str, ...] = ("rewards",)

    def __init__(
        self,
        config: SACConfig,
        observation: Affine,
        action: Affine,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build networks and optimisers; the same seed gives the same start on every device.

        Args:
            config: The settings.
            observation: Normaliser over the flattened (To * Do) observation.
            action: Normaliser over one (Da,) action to [-1, 1].
            steps: Gradient steps to come; nothing here depends on them.
            seed: Seed of the initial weights and of the actions drawn for the losses.
            device: Where to train.
        """
        del steps
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            actor = SoftActor(config, observation, action)
            input_dim = observation.dim + config.horizon * action.dim
            ensemble = Ensemble(config.critics, input_dim, config.hidden, layer_norm=config.layer_norm)
            critic = SoftCritic(ensemble, subset=config.target_critics, discount=config.discount**config.horizon)
        self.actor, self.critic = actor.to(device), critic.to(device)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=config.lr, fused=True)
        self.critic_optimiser = torch.optim.Adam(self.critic.ensemble.online.parameters(), lr=config.lr, fused=True)
        self.generator = torch.Generator(device).manual_seed(seed)

    def critic_loss(self, step: Transition) -> tuple[torch.Tensor, Metrics]:
        """Temporal-difference error of the critics, with the policy's present actions at ``next_s``."""
        with torch.no_grad():
            next_a, log_prob = self.actor.sample(step.next_s, self.generator)
        return self.critic.loss(step, next_a[0], log_prob[0], self.actor.temperature, self.generator)

    def actor_loss(self, s: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        """``E[α log π(a|s) - Q(s, a)]`` plus the temperature's own loss.

        Args:
            s: (B, S) normalised observations.

        Returns:
            The scalar loss and its metrics, keyed ``actor/...``.
        """
        a, log_prob = (drawn[0] for drawn in self.actor.sample(s, self.generator))
        with held_still(self.critic.ensemble.online):
            value = summary(self.critic(s, a), self.config.actor_value)
        loss = (self.actor.temperature * log_prob - value).mean()
        return loss + self.actor.temperature_loss(log_prob), {
            "actor/loss": loss.detach(),
            **self.actor.metrics(log_prob),
        }

    @fast_products()
    def update(self, batch: Mapping[str, torch.Tensor]) -> Metrics:
        """One gradient step of critics, actor and temperature; the metrics stay on the device."""
        step = transition(self.actor.policy, batch, self.config.discount)
        loss, critic_metrics = self.critic_loss(step)
        descend(self.critic_optimiser, loss)
        loss, actor_metrics = self.actor_loss(step.s)
        descend(self.actor_optimiser, loss)
        self.critic.ensemble.follow(self.config.tau)
        return {**critic_metrics, **actor_metrics}

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Chunks (B, h, Da) at (B, To * Do) from noise (B, h, Da), in dataset units; zeros give the mode."""
        del nfe  # a Gaussian takes one evaluation
        return self.actor.policy.act(observation, noise)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> ExportableGaussian:
        """The mode of the policy as a plain function of tensors, a copy on the CPU."""
        return ExportableGaussian(self.actor.policy, len(nfe or self.config.nfe))

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        return AgentState(pack(*self._parts(), self.generator))

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        unpack(state.tensors, *self._parts(), self.generator)

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's policy, temperature and critics; the optimisers begin anew.

        Raises:
            RuntimeError: Its sizes are others.
        """
        self.actor.load_state_dict(state.tensors["actor"])
        self.critic.load_state_dict(state.tensors["critic"])

    def _parts(self) -> tuple[dict[str, torch.nn.Module], dict[str, torch.optim.Optimizer]]:
        return (
            {"actor": self.actor, "critic": self.critic},
            {"actor": self.actor_optimiser, "critic": self.critic_optimiser},
        )

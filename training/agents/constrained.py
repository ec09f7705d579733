"""What all constrained soft actor-critics share: actor, critics of return and constraint, and their joint losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from onestride.policies.ensemble import Ensemble
from onestride.policies.gaussian_export import ExportableGaussian
from onestride.policies.normaliser import Affine
from onestride.training.agents.constraint import ConstrainedConfig, ConstraintCritic
from onestride.training.agents.packing import held_still
from onestride.training.agents.soft_actor import SoftActor
from onestride.training.agents.soft_critic import Metrics, SoftCritic
from onestride.training.agents.transition import Transition, transition


class Proposal(NamedTuple):
    """What the policy's own actions at a batch of states are worth."""

    soft_loss: torch.Tensor
    """``α log π - min Q`` (B,), what is minimised without a constraint."""
    excess: torch.Tensor
    """``g(s)`` (B,)."""
    log_prob: torch.Tensor
    """(B,) of the first draw."""


class ConstrainedActorCritic(nn.Module):
    """Actor, critics and constraint critics: the part in which all constrained agents agree.

    Attributes:
        actor: Policy and temperature.
        critic: Of the return.
        constraint: Of the constraint value.
    """

    def __init__(self, config: ConstrainedConfig, observation: Affine, action: Affine) -> None:
        """Build the networks around the normalisers."""
        super().__init__()
        self.config = config
        input_dim = observation.dim + config.horizon * action.dim
        self.actor = SoftActor(config, observation, action)
        critics = Ensemble(config.critics, input_dim, config.hidden)
        self.critic = SoftCritic(critics, subset=config.critics, discount=config.discount**config.horizon)
        self.constraint = ConstraintCritic(config, input_dim)

    def critics_optimiser(self) -> torch.optim.Adam:
        """Adam over the critics of return and constraint."""
        online = [*self.critic.ensemble.online.parameters(), *self.constraint.ensemble.online.parameters()]
        return torch.optim.Adam(online, lr=self.config.lr, fused=True)

    def transition(self, batch: Mapping[str, torch.Tensor]) -> Transition:
        """A batch, normalised."""
        return transition(self.actor.policy, batch, self.config.discount)

    def critic_loss(
        self, step: Transition, costs: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, Metrics]:
        """Temporal-difference errors of return and constraint value, with the same actions at ``next_s``."""
        with torch.no_grad():
            next_a, log_prob = (drawn[0] for drawn in self.actor.sample(step.next_s, generator))
        loss, metrics = self.critic.loss(step, next_a, log_prob, self.actor.temperature, generator)
        constraint_loss, constraint_metrics = self.constraint.loss(step, costs, next_a)
        return loss + constraint_loss, {**metrics, **constraint_metrics}

    def propose(self, s: torch.Tensor, generator: torch.Generator) -> Proposal:
        """Draw actions at s (B, S) and value them; the return is valued at the first draw alone."""
        a, log_prob = self.actor.sample(s, generator, self.config.constraint_draws)
        with held_still(self.critic.ensemble.online, self.constraint.ensemble.online):
            value, excess = self.critic(s, a[0]).amin(0), self.constraint.excess(s, a)
        return Proposal(self.actor.temperature * log_prob[0] - value, excess, log_prob[0])

    @torch.no_grad()
    def excess(self, observations: torch.Tensor) -> torch.Tensor:
        """``g(s)`` (B,) of the policy's mode at observations (B, To * Do) in dataset units."""
        s = self.actor.policy.condition(observations)
        return self.constraint.excess(s, self.actor.policy.gaussian.mode(s).unsqueeze(0))

    def follow(self) -> None:
        """Move the target copies of all critics."""
        for critic in (self.critic, self.constraint):
            critic.ensemble.follow(self.config.tau)

    def exportable(self, outputs: int) -> ExportableGaussian:
        """The mode of the policy, watched by the constraint critics, a copy on the CPU."""
        constraint = self.constraint
        return ExportableGaussian(
            self.actor.policy, outputs, constraint=constraint.ensemble.online, monitor=constraint.monitor
        )

"""DSAC-T: distributional soft actor-critic, whose critics are Gaussian value distributions.

Each of two critics gives a mean Q and a deviation σ of the return, and both share the target of the one with the
smaller mean. Three refinements over its predecessor:

- *expected value substitution*: the mean learns from the expected target ``y = r + γ (Q̄ - α log π)``, not from a
  drawn one, so that its gradient has less variance;
- *3σ clip*: the deviation learns from a drawn target ``z = r + γ (Z̄ - α log π)``, ``Z̄ ~ N(Q̄, σ̄²)``, held within
  ``Q ± 3 b`` where b is the running mean of the critic's own σ, not a constant to be tuned;
- *variance-scaled gradient*: weighted by the running mean of σ² over the sample's own σ², so that the size of rewards
  does not set the size of steps.

The critic's gradient is ``-ω [(y - Q) / (σ² + ε) ∇Q + ((clip(z) - Q)² - σ²) / (σ³ + ε) ∇σ]``. Actor, temperature and
target copies move every second step.

Reference: arXiv:2310.05858.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from onestride.policies.ensemble import Ensemble
from onestride.policies.gaussian_export import ExportableGaussian
from onestride.policies.normaliser import Affine
from onestride.policies.products import fast_products
from onestride.training.agents.followed import Followed
from onestride.training.agents.packing import descend, held_still, pack, unpack
from onestride.training.agents.settings import require
from onestride.training.agents.soft_actor import SoftActor, SoftConfig
from onestride.training.agents.soft_critic import Metrics
from onestride.training.agents.state import AgentState
from onestride.training.agents.transition import Transition, transition
from onestride.training.ranks import shared_mean

CRITICS = 2
EPSILON = 0.1
"""ε: keeps the gradient finite where a critic is certain."""
CLIP = 3.0
"""Deviations within which a drawn target is held, and within which it is drawn."""


@dataclass(frozen=True)
class DSACTConfig(SoftConfig):
    """Distributional soft actor-critic: twin Gaussian value distributions."""

    actor_interval: int = 2
    """Steps of the critics for each of actor, temperature and target copies."""
    spread_tau: float = 0.005
    """Share of the way that the running means of σ and σ² move at each step."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        super().__post_init__()
        require(self, "actor_interval", self.actor_interval >= 1, ">= 1")
        require(self, "spread_tau", 0 < self.spread_tau <= 1, "in (0, 1]")


class ValueDistribution(NamedTuple):
    """Gaussian returns of each critic."""

    mean: torch.Tensor
    """Q (2, B)."""
    std: torch.Tensor
    """σ (2, B), > 0."""


class DistributionalCritic(nn.Module):
    """Two critics, their target copies, and the running means of their spread.

    Attributes:
        ensemble: The critics and their copies.
        spread: Running mean of σ (2, 1).
        variance: Running mean of σ² (2, 1).
    """

    spread: torch.Tensor
    variance: torch.Tensor

    def __init__(self, input_dim: int, hidden: Sequence[int]) -> None:
        """Build the critics of (s, a), together ``input_dim`` long."""
        super().__init__()
        self.ensemble = Followed(Ensemble(CRITICS, input_dim, hidden, output_dim=2))
        self.register_buffer("spread", torch.zeros(CRITICS, 1))
        self.register_buffer("variance", torch.zeros(CRITICS, 1))

    def forward(self, s: torch.Tensor, a: torch.Tensor) -> ValueDistribution:
        """Returns of a (B, h * Da) at s (B, S)."""
        return _distribution(self.ensemble.online, s, a)

    def smaller(self, s: torch.Tensor, a: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and a draw (B,) of the target copy with the smaller mean, from standard normal noise (B,)."""
        mean, std = _distribution(self.ensemble.target, s, a)
        least, index = mean.min(0)
        chosen = std.gather(0, index.unsqueeze(0)).squeeze(0)
        return least, least + chosen * noise.clamp(-CLIP, CLIP)

    @torch.no_grad()
    def track(self, std: torch.Tensor, rate: float) -> None:
        """Move the running means toward those of σ (2, B)."""
        self.spread.lerp_(shared_mean(std.mean(1, keepdim=True)), rate)
        self.variance.lerp_(shared_mean(std.square().mean(1, keepdim=True)), rate)


def _distribution(ensemble: Ensemble, s: torch.Tensor, a: torch.Tensor) -> ValueDistribution:
    mean, raw = ensemble(torch.cat([s, a], dim=-1)).unbind(-1)
    return ValueDistribution(mean, functional.softplus(raw))


def distributional_loss(
    found: ValueDistribution,
    expected: torch.Tensor,
    drawn: torch.Tensor,
    spread: torch.Tensor,
    variance: torch.Tensor,
) -> torch.Tensor:
    """Loss per sample (2, B) with the gradient that the module's docstring states.

    Args:
        found: Of the critics, with gradient.
        expected: y (B,).
        drawn: z (B,).
        spread: b (2, 1).
        variance: ω (2, 1).
    """
    mean, std = found.mean.detach(), found.std.detach()
    bounded = mean + (drawn - mean).clamp(-CLIP * spread, CLIP * spread)
    of_mean = 0.5 * (found.mean - expected).square() / (std.square() + EPSILON)
    slope = ((bounded - mean).square() - std.square()) / (std.pow(3) + EPSILON)
    return variance * (of_mean - slope * found.std)


class DSACTAgent:
    """Trains a squashed Gaussian policy by distributional critics, and acts with it.

    Attributes:
        config: The settings.
        actor: Policy and temperature, and the copy that draws the actions of targets.
        critic: The critics.
        updates: Gradient steps taken.
    """

    needs: tuple[str, ...] = ("rewards",)

    def __init__(
        self,
        config: DSACTConfig,
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
            actor = Followed(SoftActor(config, observation, action))
            critic = DistributionalCritic(observation.dim + config.horizon * action.dim, config.hidden)
        self.actor, self.critic = actor.to(device), critic.to(device)
        self.actor_optimiser = torch.optim.Adam(self.actor.online.parameters(), lr=config.lr, fused=True)
        self.critic_optimiser = torch.optim.Adam(self.critic.ensemble.online.parameters(), lr=config.lr, fused=True)
        self.generator = torch.Generator(device).manual_seed(seed)
        self._actor_metrics: Metrics = {}

    def critic_loss(self, step: Transition) -> tuple[torch.Tensor, Metrics]:
        """Distance of the value distributions from their target, which no gradient reaches."""
        with torch.no_grad():
            next_a, log_prob = (drawn[0] for drawn in self.actor.target.sample(step.next_s, self.generator))
            noise = torch.randn(log_prob.shape, generator=self.generator, device=log_prob.device)
            mean, drawn = self.critic.smaller(step.next_s, next_a, noise)
            discount = self.config.discount**self.config.horizon * step.mask
            price = self.actor.online.temperature * log_prob
            expected = step.reward + discount * (mean - price)
            drawn = step.reward + discount * (drawn - price)
        found = self.critic(step.s, step.a)
        self.critic.track(found.std, self.config.spread_tau if self.updates else 1.0)
        losses = distributional_loss(found, expected, drawn, self.critic.spread, self.critic.variance)
        error = ((found.mean.detach() - expected).square() * step.valid).mean()
        metrics = {"loss": error, "value": found.mean.detach().mean(), "deviation": self.critic.spread.mean()}
        return (losses * step.valid).mean(), {f"critic/{name}": value for name, value in metrics.items()}

    def actor_loss(self, s: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        """``E[α log π(a|s) - min Q(s, a)]`` plus the temperature's own loss, at s (B, S)."""
        actor = self.actor.online
        a, log_prob = (drawn[0] for drawn in actor.sample(s, self.generator))
        with held_still(self.critic.ensemble.online):
            value = self.critic(s, a).mean.amin(0)
        loss = (actor.temperature * log_prob - value).mean()
        return loss + actor.temperature_loss(log_prob), {"actor/loss": loss.detach(), **actor.metrics(log_prob)}

    @fast_products()
    def update(self, batch: Mapping[str, torch.Tensor]) -> Metrics:
        """One gradient step of the critics, and when they are due of actor and temperature.

        Between the actor's steps its metrics are those of the last one.
        """
        step = transition(self.actor.online.policy, batch, self.config.discount)
        loss, critic_metrics = self.critic_loss(step)
        descend(self.critic_optimiser, loss)
        if self.updates % self.config.actor_interval == 0:
            loss, metrics = self.actor_loss(step.s)
            self._actor_metrics = dict(sorted(metrics.items()))
            descend(self.actor_optimiser, loss)
            self.actor.follow(self.config.tau)
            self.critic.ensemble.follow(self.config.tau)
        self.updates += 1
        return {**critic_metrics, **self._actor_metrics}

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Chunks (B, h, Da) at (B, To * Do) from noise (B, h, Da), in dataset units; zeros give the mode."""
        del nfe  # a Gaussian takes one evaluation
        return self.actor.online.policy.act(observation, noise)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> ExportableGaussian:
        """The mode of the policy as a plain function of tensors, a copy on the CPU."""
        return ExportableGaussian(self.actor.online.policy, len(nfe or self.config.nfe))

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        groups = pack(*self._parts(), self.generator)
        return AgentState({**groups, "metrics": self._actor_metrics}, {"updates": self.updates})

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        unpack(state.tensors, *self._parts(), self.generator)
        saved, device = state.tensors["metrics"], self.critic.spread.device
        # A file knows no order, and the log sums by position; nor a device.
        self._actor_metrics = {name: saved[name].to(device) for name in sorted(saved)}
        self.updates = state.values["updates"]

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

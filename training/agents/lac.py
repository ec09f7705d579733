"""LAC, the Lyapunov actor-critic: the policy is trained so that a learnt energy falls along the data, on average.

There is no critic of the return. ``L(s, a) = ‖f(s, a)‖²``, never negative, learns the discounted sum of costs, and the
actor minimises ``E[α log π + λ ΔL]`` with ``ΔL = L(s', π(s')) - L(s, a) + decrease · c``: entropy, as far as the
condition ``E[ΔL] <= 0`` leaves room for it. The multiplier λ climbs while the condition is broken, and falls else.

What this claims is *trained*: where the condition holds for all states of the closed loop, its mean cost is stable (the
paper's Theorem 1); here it is asked for on average over a batch, of networks, and nothing is proved of the result. The
share of transitions on which it holds is logged as ``multiplier/decreasing``.

Reference: arXiv:2004.14288. This project's own: projected dual ascent, where the paper climbs in log λ; one draw at s'
for energy and entropy, where the paper takes the entropy at s; transitions that end the task are left out of ΔL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from onestride.policies.ensemble import Ensemble
from onestride.policies.gaussian_export import ExportableGaussian
from onestride.policies.normaliser import Affine
from onestride.policies.products import fast_products
from onestride.training.agents.followed import Followed
from onestride.training.agents.multiplier import multiplier_metrics
from onestride.training.agents.packing import descend, held_still, pack, unpack
from onestride.training.agents.settings import require
from onestride.training.agents.soft_actor import SoftActor, SoftConfig
from onestride.training.agents.soft_critic import Metrics
from onestride.training.agents.state import AgentState
from onestride.training.agents.transition import Transition, discounted, transition
from onestride.training.ranks import shared_mean


@dataclass(frozen=True)
class LACConfig(SoftConfig):
    """Lyapunov actor-critic: a learnt energy that falls along the data, trained and not proved."""

    cost: Literal["reward", "cost"] = "reward"
    """What c is: minus the reward (one above 0 costs nothing), or the store's or environment's cost."""
    decrease: float = 0.1
    """Share of the cost c that the energy must fall by at each step."""
    features: int = 16
    """Values whose squares add up to the energy."""
    multiplier_lr: float = 1e-3
    """Step η of the dual ascent."""
    multiplier: float = 1.0
    """λ at the start."""
    max_multiplier: float = 10.0
    """Largest λ."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        super().__post_init__()
        require(self, "cost", self.cost in ("reward", "cost"), "reward or cost")
        require(self, "decrease", 0 < self.decrease <= 1, "in (0, 1]")
        require(self, "features", self.features >= 1, ">= 1")
        require(self, "multiplier_lr", 0 < self.multiplier_lr < math.inf, "> 0")
        require(self, "max_multiplier", 0 < self.max_multiplier < math.inf, "> 0")
        require(self, "multiplier", 0 <= self.multiplier <= self.max_multiplier, "between 0 and max_multiplier")


class LACAgent:
    """Trains a squashed Gaussian policy under a decrease condition, and acts with it.

    Attributes:
        config: The settings.
        actor: Policy and temperature.
        critic: The energy's features f(s, a) and their target copy.
        multiplier: λ, scalar.
    """

    def __init__(
        self,
        config: LACConfig,
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
            actor = SoftActor(config, observation, action)
            input_dim = observation.dim + config.horizon * action.dim
            critic = Followed(Ensemble(1, input_dim, config.hidden, config.features))
        self.actor, self.critic = actor.to(device), critic.to(device)
        self.multiplier = torch.full((), config.multiplier, device=device)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=config.lr, fused=True)
        self.critic_optimiser = torch.optim.Adam(self.critic.online.parameters(), lr=config.lr, fused=True)
        self.generator = torch.Generator(device).manual_seed(seed)

    @property
    def needs(self) -> tuple[str, ...]:
        """Costs only where they are not the rewards."""
        return ("rewards", "costs") if self.config.cost == "cost" else ("rewards",)

    def costs(self, step: Transition, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """``c = Σ γ^i c_i`` (B,) of each chunk, never negative."""
        if self.config.cost == "cost":
            return discounted(batch["costs"], self.config.discount)
        return (-step.reward).clamp_min(0)

    def critic_loss(self, step: Transition, costs: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        """Squared error of the energy to ``c + γ^h mask L̄(s', a')``, with a' drawn by the policy.

        Args:
            step: The batch.
            costs: c (B,).

        Returns:
            The scalar loss and its metrics, keyed ``critic/...``.
        """
        with torch.no_grad():
            next_a = self.actor.sample(step.next_s, self.generator)[0][0]
            following = energy(self.critic.target, step.next_s, next_a)
            target = costs + self.config.discount**self.config.horizon * step.mask * following
        found = energy(self.critic.online, step.s, step.a)
        loss = ((found - target).square() * step.valid).mean()
        return loss, {"critic/loss": loss.detach(), "critic/value": found.detach().mean()}

    def actor_loss(self, step: Transition, costs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """``E[α log π(a'|s')] + λ E[ΔL]`` plus the temperature's own loss.

        Args:
            step: The batch.
            costs: c (B,).

        Returns:
            The scalar loss, ``ΔL`` (B,) without gradient, and the metrics, keyed ``actor/...``.
        """
        a, log_prob = (drawn[0] for drawn in self.actor.sample(step.next_s, self.generator))
        with held_still(self.critic.online):
            change = energy(self.critic.online, step.next_s, a) - energy(self.critic.online, step.s, step.a)
        change = change + self.config.decrease * costs
        loss = (self.actor.temperature * log_prob).mean() + self.multiplier * mean_change(change, step)
        metrics = {"actor/loss": loss.detach(), **self.actor.metrics(log_prob)}
        return loss + self.actor.temperature_loss(log_prob), change.detach(), metrics

    def multiplier_step(self, change: torch.Tensor, step: Transition) -> Metrics:
        """Projected dual ascent on the mean of ``ΔL`` (B,)."""
        mean, decreasing = mean_change(change, step), mean_change((change <= 0).to(change.dtype), step)
        self.multiplier.add_(self.config.multiplier_lr * shared_mean(mean)).clamp_(0, self.config.max_multiplier)
        found = {"multiplier/change": mean, "multiplier/decreasing": decreasing}
        return {**multiplier_metrics(self.multiplier, self.config.max_multiplier), **found}

    @fast_products()
    def update(self, batch: Mapping[str, torch.Tensor]) -> Metrics:
        """One gradient step of energy, actor and temperature, and one of the multiplier."""
        step = transition(self.actor.policy, batch, self.config.discount)
        costs = self.costs(step, batch)
        loss, critic_metrics = self.critic_loss(step, costs)
        descend(self.critic_optimiser, loss)
        loss, change, actor_metrics = self.actor_loss(step, costs)
        descend(self.actor_optimiser, loss)
        multiplier = self.multiplier_step(change, step)
        self.critic.follow(self.config.tau)
        return {**critic_metrics, **actor_metrics, **multiplier}

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Chunks (B, h, Da) at (B, To * Do) from noise (B, h, Da), in dataset units; zeros give the mode."""
        del nfe  # a Gaussian takes one evaluation
        return self.actor.policy.act(observation, noise)

    @torch.no_grad()
    def energy(self, observations: torch.Tensor) -> torch.Tensor:
        """``L(s, π(s))`` (B,) of the mode at observations (B, To * Do) in dataset units."""
        s = self.actor.policy.condition(observations)
        return energy(self.critic.online, s, self.actor.policy.gaussian.mode(s))

    def as_exportable(self, nfe: Sequence[int] | None = None) -> ExportableGaussian:
        """The mode of the policy as a plain function of tensors, a copy on the CPU."""
        return ExportableGaussian(self.actor.policy, len(nfe or self.config.nfe))

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        groups = pack(*self._parts(), self.generator)
        return AgentState({**groups, "multiplier": {"multiplier": self.multiplier}})

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        unpack(state.tensors, *self._parts(), self.generator)
        self.multiplier.copy_(state.tensors["multiplier"]["multiplier"])

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's policy, temperature, energy and multiplier; the optimisers begin anew.

        Raises:
            RuntimeError: Its sizes are others.
        """
        for name, module in self._parts()[0].items():
            module.load_state_dict(state.tensors[name])
        self.multiplier.copy_(state.tensors["multiplier"]["multiplier"])

    def _parts(self) -> tuple[dict[str, torch.nn.Module], dict[str, torch.optim.Optimizer]]:
        return (
            {"actor": self.actor, "critic": self.critic},
            {"actor": self.actor_optimiser, "critic": self.critic_optimiser},
        )


def energy(features: Ensemble, s: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """``L(s, a) = ‖f(s, a)‖²`` (B,) of chunks a (B, h * Da) at s (B, S)."""
    found: torch.Tensor = features(torch.cat([s, a], dim=-1))
    return found[0].square().sum(-1)


def mean_change(change: torch.Tensor, step: Transition) -> torch.Tensor:
    """Mean of ``ΔL`` (B,) over the whole transitions that do not end the task: elsewhere there is no s'."""
    counted = step.mask * step.valid
    return (change * counted).sum() / counted.sum().clamp_min(1)

"""IQL: implicit Q-learning, an offline baseline that never asks the critics about an action outside the data.

A state value learns an upper expectile of the critics over the dataset's actions, the critics learn from that value,
and the policy imitates the dataset's actions weighted by how much better than the state they are.

Reference: arXiv:2110.06169.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from onestride.policies.ensemble import Ensemble
from onestride.policies.gaussian import ClippedGaussian, GaussianPolicy
from onestride.policies.gaussian_export import ExportableGaussian
from onestride.policies.networks import MLP
from onestride.policies.normaliser import Affine
from onestride.policies.products import fast_products
from onestride.training.agents.followed import Followed
from onestride.training.agents.packing import descend, pack, unpack
from onestride.training.agents.settings import require
from onestride.training.agents.soft_actor import require_gaussian
from onestride.training.agents.soft_critic import Metrics, values
from onestride.training.agents.state import AgentState
from onestride.training.agents.transition import Transition, transition

LARGEST_WEIGHT = 100.0
"""Bound of the imitation weight: one lucky action must not take over the batch."""


@dataclass(frozen=True)
class IQLConfig:
    """Implicit Q-learning: expectile values, advantage-weighted imitation."""

    horizon: int = 1
    """Steps in a predicted chunk, h."""
    n_action_steps: int = 1
    """Steps of a chunk that are executed before the next inference."""
    history: int = 1
    """Observation steps the policy sees, oldest first, To."""
    nfe: tuple[int, ...] = (1,)
    """Network evaluations per chunk that the exported file offers; a Gaussian policy takes one."""
    candidates: int = 1
    """Chunks drawn when acting; a Gaussian policy takes one."""
    normalise: Literal["standardise", "none"] = "standardise"
    """Observations to zero mean and unit deviation of the data, or as they are."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    batch_size: int = 256
    """Windows per gradient step."""
    lr: float = 3e-4
    """Adam's learning rate of every network."""
    discount: float = 0.99
    """γ per step, of rewards."""
    tau: float = 0.005
    """Share of the way that the critics' target copies move at each step, τ."""
    expectile: float = 0.7
    """Expectile of the critics that the state value learns; 0.5 = their mean."""
    inverse_temperature: float = 3.0
    """β of the imitation weight exp(β (Q - V)); 0 = plain imitation."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        require_gaussian(self)
        require(self, "expectile", 0 < self.expectile < 1, "in (0, 1)")
        require(self, "inverse_temperature", 0 <= self.inverse_temperature < math.inf, ">= 0")


def expectile_loss(difference: torch.Tensor, expectile: float) -> torch.Tensor:
    """``|τ - 1(d < 0)| d²`` per element of d (...): underestimates weigh τ, overestimates 1 - τ."""
    weight = torch.where(difference < 0, 1 - expectile, expectile)
    return weight * difference.square()


class IQLAgent:
    """Trains values and a clipped Gaussian policy on the dataset's actions alone.

    Attributes:
        config: The settings.
        policy: The policy.
        critic: Twin critics and their target copies.
        value: V(s).
    """

    needs: tuple[str, ...] = ("rewards",)

    def __init__(
        self,
        config: IQLConfig,
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
            gaussian = ClippedGaussian(observation.dim, config.horizon, action.dim, config.hidden)
            policy = GaussianPolicy(observation, action, gaussian)
            critic = Followed(Ensemble(2, observation.dim + gaussian.chunk_dim, config.hidden))
            value = MLP(observation.dim, config.hidden, 1, activation=nn.ReLU)
        self.policy, self.critic, self.value = policy.to(device), critic.to(device), value.to(device)
        learnt = [*self.critic.online.parameters(), *self.value.parameters()]
        self.critic_optimiser = torch.optim.Adam(learnt, lr=config.lr, fused=True)
        self.policy_optimiser = torch.optim.Adam(self.policy.parameters(), lr=config.lr, fused=True)

    def critic_loss(self, step: Transition) -> tuple[torch.Tensor, torch.Tensor, Metrics]:
        """Expectile regression of V toward the critics, and of the critics toward ``r + γ^h mask V(s')``.

        Returns:
            The scalar loss, the advantage ``min Q̄(s, a) - V(s)`` (B,) without gradient, and the metrics, keyed
            ``critic/...``.
        """
        with torch.no_grad():
            reachable = values(self.critic.target, step.s, step.a).amin(0)
            following = self.value(step.next_s).squeeze(-1)
            target = step.reward + self.config.discount**self.config.horizon * step.mask * following
        state = self.value(step.s).squeeze(-1)
        advantage = reachable - state
        of_value = (expectile_loss(advantage, self.config.expectile) * step.valid).mean()
        of_critics = ((values(self.critic.online, step.s, step.a) - target).square() * step.valid).mean()
        metrics = {"loss": of_critics.detach(), "value_loss": of_value.detach(), "value": state.detach().mean()}
        return of_value + of_critics, advantage.detach(), {f"critic/{name}": m for name, m in metrics.items()}

    def actor_loss(self, step: Transition, advantage: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
        """Imitation of the dataset's chunks, weighted by ``exp(β advantage)``.

        Args:
            step: The batch.
            advantage: (B,), taken as given.

        Returns:
            The scalar loss and its metrics, keyed ``actor/...``.
        """
        weight = (self.config.inverse_temperature * advantage).exp().clamp(max=LARGEST_WEIGHT) * step.valid
        log_prob = self.policy.gaussian.log_prob(step.s, step.a).sum(-1)
        loss = -(weight * log_prob).mean()
        return loss, {"actor/loss": loss.detach(), "actor/weight": weight.mean()}

    @fast_products()
    def update(self, batch: Mapping[str, torch.Tensor]) -> Metrics:
        """One gradient step of values, critics and policy; the metrics stay on the device."""
        step = transition(self.policy, batch, self.config.discount)
        loss, advantage, critic_metrics = self.critic_loss(step)
        descend(self.critic_optimiser, loss)
        loss, actor_metrics = self.actor_loss(step, advantage)
        descend(self.policy_optimiser, loss)
        self.critic.follow(self.config.tau)
        return {**critic_metrics, **actor_metrics}

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Chunks (B, h, Da) at (B, To * Do) from noise (B, h, Da), in dataset units; zeros give the mode."""
        del nfe  # a Gaussian takes one evaluation
        return self.policy.act(observation, noise)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> ExportableGaussian:
        """The mode of the policy as a plain function of tensors, a copy on the CPU."""
        return ExportableGaussian(self.policy, len(nfe or self.config.nfe))

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        return AgentState(pack(*self._parts()))

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        unpack(state.tensors, *self._parts())

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's policy and values; the optimisers begin anew.

        Raises:
            RuntimeError: Its sizes are others.
        """
        for name, module in self._parts()[0].items():
            module.load_state_dict(state.tensors[name])

    def _parts(self) -> tuple[dict[str, torch.nn.Module], dict[str, torch.optim.Optimizer]]:
        return (
            {"actor": self.policy, "critic": self.critic, "value": self.value},
            {"actor": self.policy_optimiser, "critic": self.critic_optimiser},
        )

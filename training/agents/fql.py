"""FQL and QC-FQL: a plain flow imitates, a one-step student follows it and the critic's gradient.

The student ``μ(s, e)`` is drawn to the flow's Euler solution from the same noise, with weight α, and up the critic's
slope. It acts with one network evaluation. FQL does so with single actions, QC-FQL with chunks.

The papers' settings: ``--hidden 512 512 512 512 --critic-hidden 512 512 512 512 --ema-decay 0``, α 300 on OGBench's
double cubes and 10000 on Robomimic.

References: FQL, arXiv:2502.02538; QC-FQL, arXiv:2507.07969.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from onestride.policies.exportable import Exportable
from onestride.policies.normaliser import Affine
from onestride.policies.plain_flow import OneStepMap, PlainFlow
from onestride.policies.policy import ChunkPolicy
from onestride.policies.products import fast_products
from onestride.training.agents.actor import Actor
from onestride.training.agents.critic import ChunkedCritic, flat
from onestride.training.agents.settings import require, require_chunks, require_critic
from onestride.training.agents.state import AgentState


@dataclass(frozen=True)
class FQLConfig:
    """Flow Q-learning: a one-step student of a flow, trained up the critic's slope."""

    horizon: int = 1
    """Steps in a predicted chunk, h."""
    n_action_steps: int = 1
    """Steps of a chunk that are executed before the next inference."""
    history: int = 1
    """Observation steps the policy sees, oldest first, To."""
    nfe: tuple[int, ...] = (1,)
    """Network evaluations per chunk that the exported file offers: the student takes one."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of flow and student; the paper's are 512 512 512 512."""
    batch_size: int = 256
    """Windows per gradient step."""
    lr: float = 3e-4
    """Adam's learning rate of flow and student."""
    lr_decay: Literal["cosine", "none"] = "none"
    """How that rate falls: to zero at the last step along a cosine, or not at all."""
    ema_decay: float = 0.995
    """Decay of the parameter averages that act and teach; 0 is the paper's."""
    alpha: float = 300.0
    """α, weight of following the flow against the critic's value."""
    flow_steps: int = 10
    """Euler steps of the flow that the student follows."""
    candidates: int = 1
    """Chunks drawn and ranked by the critic, N; the paper's is 1."""
    normalise: Literal["standardise", "none"] = "none"
    """Observations to zero mean and unit deviation of the data, or as they are, which is the paper's."""
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the critics' hidden layers; the paper's are 512 512 512 512."""
    critics: int = 2
    """Critics in the ensemble, whose mean counts."""
    critic_lr: float = 3e-4
    """Adam's learning rate of the critics."""
    discount: float = 0.99
    """γ per step."""
    tau: float = 0.005
    """Share of the critics that their targets take over at each update."""
    rank_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision in which candidates are ranked for the critic's target; auto = bfloat16 where it is faster."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        require_chunks(self)
        require_critic(self)
        require(self, "nfe", self.nfe == (1,), "(1,), the student takes one evaluation")
        require(self, "alpha", 0 <= self.alpha < math.inf, ">= 0")
        require(self, "flow_steps", self.flow_steps >= 1, ">= 1")


@dataclass(frozen=True)
class QCFQLConfig(FQLConfig):
    """QC-FQL: flow Q-learning on chunks."""

    horizon: int = 5
    """Steps in a predicted chunk, h."""
    n_action_steps: int = 5
    """Steps of a chunk that are executed before the next inference."""


class FQLAgent:
    """Trains a plain flow, its one-step student and a critic; acts with the student's average.

    Attributes:
        config: The settings.
        teacher: The flow being trained and its average.
        actor: The student being trained and its average.
        critic: Judges the student's chunks.
    """

    needs: tuple[str, ...] = ("rewards",)

    def __init__(
        self,
        config: FQLConfig,
        observation: Affine,
        action: Affine,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build networks, averages and optimisers; arguments as of every agent."""
        self.config = config
        sizes = observation.dim, config.horizon, action.dim, config.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = ChunkPolicy(observation, action, PlainFlow(*sizes)).to(device)
            student = ChunkPolicy(observation, action, OneStepMap(*sizes)).to(device)
            self.teacher = Actor(config, flow, steps, name="teacher_")
            self.actor = Actor(config, student, steps)
            self.critic = ChunkedCritic(config, self.actor.acting)
        self.generator = torch.Generator(device).manual_seed(seed)

    def critic_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Temporal-difference error toward the target critic's value of the student's chunk.

        Args:
            batch: ``observations`` and ``next_observations`` (B, To, Do), ``actions`` (B, h, Da), ``rewards``,
                ``masks``, ``valid`` (B, h).

        Returns:
            The scalar loss and its metrics, keyed ``critic/...``.
        """
        s, next_s = self._judged(batch), self._judged(batch, "next_observations")
        return self.critic.loss(s, self.actor.policy.action(batch["actions"]), next_s, batch, self.generator)

    def teacher_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Velocity regression toward the dataset's chunks; metrics keyed ``actor/...``."""
        policy = self.teacher.policy
        actions = policy.action(batch["actions"])
        loss, metrics = policy.flow.loss(self._condition(batch), actions, batch["valid"], generator=self.generator)
        return loss, {f"actor/{name}": value for name, value in metrics.items()}

    def actor_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """``α mean (μ(s, e) - flow(s, e))² - mean Q(s, μ(s, e))``; metrics keyed ``actor/...``."""
        s, shape = self._condition(batch), batch["actions"].shape
        noise = torch.randn(shape, generator=self.generator, device=s.device)
        with torch.no_grad():
            shown = self.teacher.acting.generate(s, noise, self.config.flow_steps)
        chunks = self.actor.policy.flow.sample(s, noise)
        distillation = (chunks - shown).square().mean()
        value = self.critic.online(self._judged(batch), flat(chunks.clamp(-1.0, 1.0))).mean()
        loss = self.config.alpha * distillation - value
        metrics = {"loss": loss.detach(), "distillation": distillation.detach(), "value": value.detach()}
        return loss, {f"actor/{name}": metric for name, metric in metrics.items()}

    def update(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One gradient step of critic, flow and student; the metrics stay on the device."""
        with fast_products():
            loss, critic_metrics = self.critic_loss(batch)
            self.critic.step(loss)
            loss, teacher_metrics = self.teacher_loss(batch)
            self.teacher.step(loss)
            loss, actor_metrics = self.actor_loss(batch)
            self.actor.step(loss)
        return critic_metrics | teacher_metrics | actor_metrics

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """The student's chunks (B, h, Da) from (B, To * Do) and noise (B * N, h, Da); all in dataset units."""
        return self.critic.ranked.act(observation, noise, nfe)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> Exportable:
        """What acts as a plain function of tensors, a copy on the CPU; ``nfe`` defaults to config's."""
        acting = self.critic.ranked if self.config.candidates > 1 else self.actor.acting
        return Exportable(acting, self.config.nfe if nfe is None else nfe)

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        tensors = self.teacher.tensors() | self.actor.tensors() | self.critic.tensors()
        random = {"random": {"generator": self.generator.get_state()}}
        return AgentState(tensors | random, self.teacher.values() | self.actor.values())

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        self.teacher.load(state.tensors, state.values)
        self.actor.load(state.tensors, state.values)
        self.critic.load(state.tensors)
        self.generator.set_state(state.tensors["random"]["generator"])

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's flow, student, normalisers and critic; optimisers begin anew."""
        self.teacher.begin_from(state.tensors)
        self.actor.begin_from(state.tensors)
        self.critic.begin_from(state.tensors)

    def _condition(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the policies' networks are conditioned on, s (B, S)."""
        return self.actor.policy.condition(batch["observations"])

    def _judged(self, batch: Mapping[str, torch.Tensor], key: str = "observations") -> torch.Tensor:
        """What the critic is conditioned on (B, S): as when acting, and its gradient reaches no encoder of pictures."""
        return self.actor.acting.condition(batch[key])

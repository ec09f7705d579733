"""FMQ: a mean flow imitates, a one-step map follows it, shifted by a fixed length up the critic's slope.

The rule known to us is that the one-step map is trained toward ``u_off + η ∇_a Q / ||∇_a Q||``, with u_off learnt from
the data. What lies around it is our reconstruction, not the paper's text:

- u_off is a mean flow trained by imitation beside the map, all along (``L_MF + λ L_IVC``), and acts from noise e as
  ``a_off = e - u_off(e, 1, 0, s)``. In this project's time a chunk is noise *minus* velocity, so up the slope is a
  step down in u; the map below predicts the chunk itself, the same regression with the paper's sign.
- The map ``μ(s, e)`` is regressed, from the same noise, on ``clip(a_off + η g / ||g||)``, with
  ``g = ∇_a mean_k Q_k`` at the map's own chunk and ``||·||`` over the whole chunk. Nothing is differentiated through
  the critic. Its fixed point ``μ = a_off + η g(μ) / ||g(μ)||`` is the condition of a maximum of Q on the ball of
  radius η around what the data shows: η is how far the policy may leave it, whatever the scale of the rewards.
- Critic, target and chunks are Q-chunking's. One chunk is drawn, or the best of N where asked.

References: FMQ, arXiv:2605.12416; MVP, arXiv:2602.13810; Q-chunking, arXiv:2507.07969.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from onestride.policies.exportable import Exportable
from onestride.policies.mean_flow import TIME_LAWS, MeanFlow
from onestride.policies.normaliser import Affine
from onestride.policies.plain_flow import OneStepMap
from onestride.policies.policy import ChunkPolicy
from onestride.policies.products import fast_products
from onestride.training.agents.actor import Actor
from onestride.training.agents.critic import ChunkedCritic
from onestride.training.agents.settings import require, require_chunks, require_critic
from onestride.training.agents.state import AgentState

FLATTEST = 1e-8
"""Slopes below this have no direction."""


@dataclass(frozen=True)
class FMQConfig:
    """A one-step map of chunks, a fixed length up the critic's slope from a mean flow that imitates."""

    horizon: int = 5
    """Steps in a predicted chunk, h."""
    n_action_steps: int = 5
    """Steps of a chunk that are executed before the next inference."""
    history: int = 1
    """Observation steps the policy sees, oldest first, To."""
    nfe: tuple[int, ...] = (1,)
    """Network evaluations per chunk that the exported file offers: the map takes one."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of mean flow and map; the paper's scale is 512 512 512 512."""
    batch_size: int = 256
    """Windows per gradient step."""
    lr: float = 3e-4
    """Adam's learning rate of mean flow and map."""
    lr_decay: Literal["cosine", "none"] = "none"
    """How that rate falls: to zero at the last step along a cosine, or not at all."""
    ema_decay: float = 0.995
    """Decay of the parameter averages that act and teach."""
    eta: float = 0.5
    """η, length of the step up the slope, over a whole normalised chunk."""
    ivc_weight: float = 1.0
    """λ, weight of the instantaneous velocity constraint."""
    one_step_share: float = 0.25
    """Share of the mean-flow half trained at (t, r) = (1, 0), the pair that the map follows."""
    time_law: Literal["logit_normal", "uniform", "to_data"] = "logit_normal"
    """How flow times are drawn; logit_normal is the papers', to_data trains what one-step acting rests on alone."""
    weight_power: float = 0.5
    """p of the adaptive error weight 1 / (e² + 1e-3)^p; 0 = plain squared error."""
    candidates: int = 1
    """Chunks drawn and ranked by the critic, N."""
    normalise: Literal["standardise", "none"] = "none"
    """Observations to zero mean and unit deviation of the data, or as they are."""
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the critics' hidden layers."""
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
        require(self, "nfe", self.nfe == (1,), "(1,), the map takes one evaluation")
        require(self, "eta", 0 <= self.eta < math.inf, ">= 0")
        require(self, "ivc_weight", 0 <= self.ivc_weight < math.inf, ">= 0")
        require(self, "one_step_share", 0 <= self.one_step_share <= 1, "in [0, 1]")
        require(self, "time_law", self.time_law in TIME_LAWS, ", ".join(TIME_LAWS))
        require(self, "weight_power", 0 <= self.weight_power <= 1, "in [0, 1]")


class FMQAgent:
    """Trains a mean flow, a one-step map and a chunked critic; acts with the map's average.

    Attributes:
        config: The settings.
        teacher: The mean flow being trained and its average.
        actor: The map being trained and its average.
        critic: Judges the map's chunks.
    """

    needs: tuple[str, ...] = ("rewards",)

    def __init__(
        self,
        config: FMQConfig,
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
            flow = ChunkPolicy(observation, action, MeanFlow(*sizes)).to(device)
            one_step = ChunkPolicy(observation, action, OneStepMap(*sizes)).to(device)
            self.teacher = Actor(config, flow, steps, name="teacher_")
            self.actor = Actor(config, one_step, steps)
            self.critic = ChunkedCritic(config, self.actor.acting)
        self.generator = torch.Generator(device).manual_seed(seed)

    def critic_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Temporal-difference error toward the target critic's value of the map's chunk.

        Args:
            batch: ``observations`` and ``next_observations`` (B, To, Do), ``actions`` (B, h, Da), ``rewards``,
                ``masks``, ``valid`` (B, h).

        Returns:
            The scalar loss and its metrics, keyed ``critic/...``.
        """
        s, next_s = self._judged(batch), self._judged(batch, "next_observations")
        return self.critic.loss(s, self.actor.policy.action(batch["actions"]), next_s, batch, self.generator)

    def teacher_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """``L_MF + λ L_IVC`` toward the dataset's chunks; metrics keyed ``actor/...``."""
        policy, config = self.teacher.policy, self.config
        loss, metrics = policy.flow.loss(
            self._condition(batch),
            policy.action(batch["actions"]),
            batch["valid"],
            ivc_weight=config.ivc_weight,
            weight_power=config.weight_power,
            one_step_share=config.one_step_share,
            time_law=config.time_law,
            generator=self.generator,
        )
        return loss, {f"actor/{name}": metrics[name] for name in ("mean_flow_mse", "instantaneous_mse")}

    def actor_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """``mean (μ(s, e) - clip(a_off + η g / ||g||))²``; metrics keyed ``actor/...``."""
        s, shape = self._condition(batch), batch["actions"].shape
        noise = torch.randn(shape, generator=self.generator, device=s.device)
        chunks = self.actor.policy.flow.sample(s, noise)
        with torch.no_grad():
            shown = self.teacher.acting.generate(s, noise)
        slope = self.critic.gradient(self._judged(batch), chunks.clamp(-1.0, 1.0))
        length = slope.flatten(1).norm(dim=1).reshape(-1, 1, 1)
        target = (shown + self.config.eta * slope / length.clamp_min(FLATTEST)).clamp(-1.0, 1.0)
        loss = (chunks - target).square().mean()
        metrics = {"loss": loss.detach(), "slope": length.mean()}
        return loss, {f"actor/{name}": metric for name, metric in metrics.items()}

    def update(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One gradient step of critic, mean flow and map; the metrics stay on the device."""
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
        """The map's chunks (B, h, Da) from (B, To * Do) and noise (B * N, h, Da); all in dataset units."""
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
        """Take over another run's mean flow, map, normalisers and critic; optimisers begin anew."""
        self.teacher.begin_from(state.tensors)
        self.actor.begin_from(state.tensors)
        self.critic.begin_from(state.tensors)

    def _condition(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the policies' networks are conditioned on, s (B, S)."""
        return self.actor.policy.condition(batch["observations"])

    def _judged(self, batch: Mapping[str, torch.Tensor], key: str = "observations") -> torch.Tensor:
        """What the critic is conditioned on (B, S): as when acting, and its gradient reaches no encoder of pictures."""
        return self.actor.acting.condition(batch[key])

"""QC and BFN: a plain flow imitates, a critic picks the best of N.

QC does so on chunks of h actions; BFN (best of N) is the same with single actions. No gradient of the critic reaches
the flow, so the policy never leaves what the data shows.

QC's settings on OGBench's cubes: ``qc --candidates 32 --hidden 512 512 512 512 --critic-hidden 512 512 512 512
--ema-decay 0``, on Robomimic 16 candidates; BFN's: ``bfn`` with the same widths. The defaults are smaller, because
drawing N candidates in 10 Euler steps each is most of the work.

Reference: Q-chunking, arXiv:2507.07969.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from onestride.policies.conditioning import Conditioning
from onestride.policies.exportable import Exportable
from onestride.policies.normaliser import Affine
from onestride.policies.plain_flow import PlainFlow
from onestride.policies.policy import ChunkPolicy
from onestride.policies.products import fast_products
from onestride.training.agents.actor import Actor
from onestride.training.agents.critic import ChunkedCritic
from onestride.training.agents.settings import require_chunks, require_critic
from onestride.training.agents.state import AgentState


@dataclass(frozen=True)
class QCConfig:
    """Q-chunking: a flow of chunks, of which a chunked critic picks the best of N."""

    horizon: int = 5
    """Steps in a predicted chunk, h."""
    n_action_steps: int = 5
    """Steps of a chunk that are executed before the next inference."""
    history: int = 1
    """Observation steps the policy sees, oldest first, To."""
    nfe: tuple[int, ...] = (10,)
    """Euler steps K that the exported file offers, an output for each; the first is trained with."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the flow's hidden layers; the paper's are 512 512 512 512."""
    batch_size: int = 256
    """Windows per gradient step."""
    lr: float = 3e-4
    """Adam's learning rate of the flow."""
    lr_decay: Literal["cosine", "none"] = "none"
    """How the flow's learning rate falls: to zero at the last step along a cosine, or not at all."""
    ema_decay: float = 0.995
    """Decay of the parameter average that acts; 0 is the paper's."""
    candidates: int = 8
    """Chunks drawn and ranked by the critic, N; the paper's are 32 (cubes) and 16 (Robomimic)."""
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


@dataclass(frozen=True)
class BFNConfig(QCConfig):
    """Best of N: a flow of single actions, of which a critic picks the best of N."""

    horizon: int = 1
    """Steps in a predicted chunk, h."""
    n_action_steps: int = 1
    """Steps of a chunk that are executed before the next inference."""
    candidates: int = 4
    """Actions drawn and ranked by the critic, N."""


class QCAgent:
    """Trains a plain flow and a chunked critic, and acts with the best of N.

    Attributes:
        config: The settings.
        actor: The flow being trained and its average.
        critic: Ranks the average's chunks.
    """

    needs: tuple[str, ...] = ("rewards",)

    def __init__(
        self,
        config: QCConfig,
        observation: Conditioning,
        action: Affine,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build networks, averages and optimisers; arguments as of every agent."""
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = PlainFlow(observation.dim, config.horizon, action.dim, config.hidden)
            self.actor = Actor(config, ChunkPolicy(observation, action, flow).to(device), steps)
            self.critic = ChunkedCritic(config, self.actor.acting)
        self.generator = torch.Generator(device).manual_seed(seed)

    def critic_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Temporal-difference error toward the target critic's value of the best candidate.

        Args:
            batch: ``observations`` and ``next_observations`` (B, To, Do), ``actions`` (B, h, Da), ``rewards``,
                ``masks``, ``valid`` (B, h).

        Returns:
            The scalar loss and its metrics, keyed ``critic/...``.
        """
        s, next_s = self._judged(batch), self._judged(batch, "next_observations")
        return self.critic.loss(s, self.actor.policy.action(batch["actions"]), next_s, batch, self.generator)

    def actor_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Velocity regression toward the dataset's chunks; metrics keyed ``actor/...``."""
        policy = self.actor.policy
        actions = policy.action(batch["actions"])
        loss, metrics = policy.flow.loss(self._condition(batch), actions, batch["valid"], generator=self.generator)
        return loss, {f"actor/{name}": value for name, value in metrics.items()}

    def update(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One gradient step of critic and flow; the metrics stay on the device."""
        with fast_products():
            loss, critic_metrics = self.critic_loss(batch)
            self.critic.step(loss)
            loss, actor_metrics = self.actor_loss(batch)
            self.actor.step(loss)
        return critic_metrics | actor_metrics

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 10) -> torch.Tensor:
        """The best of N chunks (B, h, Da) from (B, To * Do) and noise (B * N, h, Da); all in dataset units."""
        return self.critic.ranked.act(observation, noise, nfe)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> Exportable:
        """What acts as a plain function of tensors, a copy on the CPU; ``nfe`` defaults to config's."""
        return Exportable(self.critic.ranked, self.config.nfe if nfe is None else nfe)

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        random = {"random": {"generator": self.generator.get_state()}}
        return AgentState(self.actor.tensors() | self.critic.tensors() | random, self.actor.values())

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        self.actor.load(state.tensors, state.values)
        self.critic.load(state.tensors)
        self.generator.set_state(state.tensors["random"]["generator"])

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's acting policy, normalisers included, and its critic; optimisers begin anew."""
        self.actor.begin_from(state.tensors)
        self.critic.begin_from(state.tensors)

    def _condition(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the policy's network is conditioned on, s (B, S)."""
        return self.actor.policy.condition(batch["observations"])

    def _judged(self, batch: Mapping[str, torch.Tensor], key: str = "observations") -> torch.Tensor:
        """What the critic is conditioned on (B, S): as when acting, and its gradient reaches no encoder of pictures."""
        return self.actor.acting.condition(batch[key])

"""MVP, the mean velocity policy: a MeanFlow policy with instantaneous velocity constraint, and generate-and-select.

The policy imitates the dataset's action chunks with one network evaluation per chunk. With more than one candidate a
chunked critic is learnt beside it: N chunks are drawn and the one it values most is acted with, in the environment
and in the critic's own target. No gradient of the critic reaches the policy. With one candidate there is no critic,
and this is imitation.

The paper's settings on OGBench's cubes: ``--candidates 32 --hidden 512 512 512 512 --critic-hidden 512 512 512 512
--lr 3e-4 --lr-decay none --one-step-share 0 --nfe 1 --normalise none``; on Robomimic 16 candidates. The defaults are
for thousands of steps, not a million.

Reference: arXiv:2602.13810; chunked critic: arXiv:2507.07969.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from onestride.policies.conditioning import Conditioning
from onestride.policies.exportable import Exportable
from onestride.policies.mean_flow import TIME_LAWS, MeanFlow
from onestride.policies.normaliser import Affine
from onestride.policies.policy import ChunkPolicy
from onestride.policies.products import fast_products
from onestride.policies.selection import BestOfN
from onestride.training.agents.actor import Actor
from onestride.training.agents.critic import ChunkedCritic
from onestride.training.agents.settings import require, require_chunks, require_critic, require_smooth
from onestride.training.agents.state import AgentState


@dataclass(frozen=True)
class MVPConfig:
    """Mean velocity policy: one network evaluation per chunk; ranked by a critic where candidates > 1."""

    horizon: int = 5
    """Steps in a predicted chunk, h."""
    n_action_steps: int = 5
    """Steps of a chunk that are executed before the next inference."""
    history: int = 1
    """Observation steps the policy sees, oldest first, To."""
    nfe: tuple[int, ...] = (1, 2, 4)
    """Network evaluations per chunk that the exported file offers, an output for each; the first is trained with."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the policy's hidden layers."""
    batch_size: int = 256
    """Windows per gradient step."""
    lr: float = 2e-3
    """Adam's learning rate at the start; the paper's 3e-4 is for a million steps."""
    lr_decay: Literal["cosine", "none"] = "cosine"
    """How the policy's learning rate falls: to zero at the last step along a cosine, or not at all."""
    ivc_weight: float = 1.0
    """λ, weight of the instantaneous velocity constraint; 0 = plain MeanFlow."""
    one_step_share: float = 0.25
    """Share of the mean-flow half trained at (t, r) = (1, 0), the pair that acting uses; 0 is the paper's draw."""
    time_law: Literal["logit_normal", "uniform", "to_data"] = "logit_normal"
    """How flow times are drawn; logit_normal is the papers', to_data trains what one-step acting rests on alone."""
    weight_power: float = 0.5
    """p of the adaptive error weight 1 / (e² + 1e-3)^p; 0 = plain squared error."""
    ema_decay: float = 0.999
    """Decay of the parameter average that acts."""
    candidates: int = 1
    """Chunks drawn and ranked by the critic when acting, N; 1 = imitation without a critic."""
    normalise: Literal["standardise", "none"] = "standardise"
    """Observations to zero mean and unit deviation of the data, or as they are."""
    imitate: Literal["buffer", "best_of_n", "mix"] = "buffer"
    """What the policy imitates: the dataset's chunk, its own best candidate, or each on half of the batch."""
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
    jacobian_penalty: float = 0.0
    """Weight of ‖∂a/∂s‖_F², how strongly the one-step chunk follows the observation, both normalised; 0 = none."""
    lipschitz: float | None = None
    """Most that a one-step chunk may move per distance of the observation, both normalised; none = not bounded."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        require_chunks(self)
        require_critic(self)
        require_smooth(self)
        require(self, "ivc_weight", 0 <= self.ivc_weight < math.inf, ">= 0")
        require(self, "one_step_share", 0 <= self.one_step_share <= 1, "in [0, 1]")
        require(self, "time_law", self.time_law in TIME_LAWS, ", ".join(TIME_LAWS))
        require(self, "weight_power", 0 <= self.weight_power <= 1, "in [0, 1]")
        require(self, "imitate", self.imitate in ("buffer", "best_of_n", "mix"), "buffer, best_of_n or mix")
        ranked = self.imitate == "buffer" or self.candidates > 1
        require(self, "imitate", ranked, "buffer where candidates = 1, which none is the best of")


class MVPAgent:
    """Trains a mean-flow policy, and with candidates a chunked critic; acts with the policy's average.

    Attributes:
        config: The settings.
        actor: The policy being trained and its average.
        critic: None where there is one candidate.
    """

    def __init__(
        self,
        config: MVPConfig,
        observation: Conditioning,
        action: Affine,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build networks, averages and optimisers; the same seed gives the same start on every device.

        Args:
            config: The settings.
            observation: Normaliser over the flattened (To * Do) observation.
            action: Normaliser over one (Da,) action.
            steps: Gradient steps the learning rate decays over.
            seed: Seed of the initial weights, the noise and the flow times.
            device: Where to train.
        """
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = MeanFlow(observation.dim, config.horizon, action.dim, config.hidden, lipschitz=config.lipschitz)
            self.actor = Actor(config, ChunkPolicy(observation, action, flow).to(device), steps)
            self.critic = ChunkedCritic(config, self.actor.acting) if config.candidates > 1 else None
        self.generator = torch.Generator(device).manual_seed(seed)

    @property
    def needs(self) -> tuple[str, ...]:
        """Rewards where candidates are ranked."""
        return ("rewards",) if self.critic else ()

    def critic_loss(
        self, critic: ChunkedCritic, batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Temporal-difference error toward the target critic's value of the best candidate.

        Args:
            critic: The agent's.
            batch: ``observations`` and ``next_observations`` (B, To, Do), ``actions`` (B, h, Da), ``rewards``,
                ``masks``, ``valid`` (B, h).

        Returns:
            The scalar loss and its metrics, keyed ``critic/...``.
        """
        s, next_s = self._judged(batch), self._judged(batch, "next_observations")
        return critic.loss(s, self.actor.policy.action(batch["actions"]), next_s, batch, self.generator)

    def actor_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """``L_MF + λ L_IVC`` toward the chunks that are imitated, plus the penalty on the Jacobian if there is one.

        Args:
            batch: ``observations`` (B, To, Do), ``actions`` (B, h, Da), ``valid`` (B, h).

        Returns:
            The scalar loss and its metrics, keyed ``actor/...``.
        """
        s = self._condition(batch)
        chunks, valid = self._imitated(batch)
        loss, metrics = self.actor.policy.flow.loss(
            s,
            chunks,
            valid,
            ivc_weight=self.config.ivc_weight,
            weight_power=self.config.weight_power,
            one_step_share=self.config.one_step_share,
            time_law=self.config.time_law,
            generator=self.generator,
        )
        if self.config.jacobian_penalty:
            jacobian = self.actor.policy.flow.sensitivity(s, self.generator)
            loss = loss + self.config.jacobian_penalty * jacobian
            metrics["jacobian"] = jacobian.detach()
        return loss, {f"actor/{name}": value for name, value in metrics.items()}

    def update(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One gradient step of the critic, if there is one, and of the policy; the metrics stay on the device."""
        metrics: dict[str, torch.Tensor] = {}
        # Imitation stays as it always was, to the bit: its gradient steps are cheap.
        with fast_products(self.critic is not None):
            if self.critic:
                loss, metrics = self.critic_loss(self.critic, batch)
                self.critic.step(loss)
            loss, actor_metrics = self.actor_loss(batch)
            self.actor.step(loss)
        return metrics | actor_metrics

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Sample action chunks from the averaged policy, the best of N where candidates are ranked.

        Args:
            observation: (B, To * Do) in dataset units.
            noise: (B * N, h, Da) standard normal.
            nfe: Network evaluations per chunk.

        Returns:
            (B, h, Da) in dataset units, inside the action box.
        """
        return self._acting().act(observation, noise, nfe)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> Exportable:
        """What acts as a plain function of tensors, a copy on the CPU; ``nfe`` defaults to config's."""
        return Exportable(self._acting(), self.config.nfe if nfe is None else nfe)

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        critic = self.critic.tensors() if self.critic else {}
        random = {"random": {"generator": self.generator.get_state()}}
        return AgentState(self.actor.tensors() | critic | random, self.actor.values())

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        self.actor.load(state.tensors, state.values)
        if self.critic:
            self.critic.load(state.tensors)
        self.generator.set_state(state.tensors["random"]["generator"])

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's acting policy, normalisers included, and its critic if it has one.

        Raises:
            RuntimeError: Its sizes are others.
        """
        self.actor.begin_from(state.tensors)
        if self.critic and "critic" in state.tensors:
            self.critic.begin_from(state.tensors)

    def _condition(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the policy's network is conditioned on, s (B, S)."""
        return self.actor.policy.condition(batch["observations"])

    def _judged(self, batch: Mapping[str, torch.Tensor], key: str = "observations") -> torch.Tensor:
        """What the critic is conditioned on (B, S): as when acting, and its gradient reaches no encoder of pictures."""
        return self.actor.acting.condition(batch[key])

    def _acting(self) -> ChunkPolicy[MeanFlow] | BestOfN:
        return self.critic.ranked if self.critic else self.actor.acting

    def _imitated(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised chunks (B, h, Da) to imitate and where they are valid (B, h)."""
        actions, valid = self.actor.policy.action(batch["actions"]), batch["valid"]
        if self.config.imitate == "buffer" or self.critic is None:
            return actions, valid
        own = slice(0, None) if self.config.imitate == "best_of_n" else slice(1, None, 2)
        actions, valid = actions.clone(), valid.clone()
        actions[own], valid[own] = self.critic.best(self._judged(batch)[own], self.generator), 1.0
        return actions, valid

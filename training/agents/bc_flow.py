"""Behavioural cloning with a plain flow: velocity regression, K Euler steps to act.

Reference: flow matching, arXiv:2210.02747; the settings are Q-chunking's, arXiv:2507.07969.
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
from onestride.training.agents.settings import require, require_chunks, require_smooth
from onestride.training.agents.state import AgentState


@dataclass(frozen=True)
class BCFlowConfig:
    """Imitation with a plain flow: acts in K Euler steps."""

    horizon: int = 5
    """Steps in a predicted chunk, h."""
    n_action_steps: int = 5
    """Steps of a chunk that are executed before the next inference."""
    history: int = 1
    """Observation steps the policy sees, oldest first, To."""
    nfe: tuple[int, ...] = (10,)
    """Euler steps K that the exported file offers, an output for each."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the network's hidden layers; the paper's are 512 512 512 512."""
    batch_size: int = 256
    """Windows per gradient step."""
    lr: float = 2e-3
    """Adam's learning rate at the start; the paper's 3e-4 is for a million steps."""
    lr_decay: Literal["cosine", "none"] = "cosine"
    """How the learning rate falls: to zero at the last step along a cosine, or not at all."""
    ema_decay: float = 0.999
    """Decay of the parameter average that acts; 0 is the paper's."""
    candidates: int = 1
    """Chunks drawn when acting: 1, there is no critic to rank more."""
    normalise: Literal["standardise", "none"] = "standardise"
    """Observations to zero mean and unit deviation of the data, or as they are."""
    jacobian_penalty: float = 0.0
    """Weight of ‖∂v/∂s‖_F², how strongly the velocity follows the observation, both normalised; 0 = none."""
    lipschitz: float | None = None
    """Most that the velocity may move per distance of the observation, both normalised; none = not bounded."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        require_chunks(self)
        require_smooth(self)
        require(self, "candidates", self.candidates == 1, "1 without a critic")


class BCFlowAgent:
    """Trains a plain flow and acts with its average.

    Attributes:
        config: The settings.
        actor: The policy being trained and its average.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        config: BCFlowConfig,
        observation: Conditioning,
        action: Affine,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build policy, average and optimiser; arguments as of every agent."""
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = PlainFlow(observation.dim, config.horizon, action.dim, config.hidden, lipschitz=config.lipschitz)
        self.actor = Actor(config, ChunkPolicy(observation, action, flow).to(device), steps)
        self.generator = torch.Generator(device).manual_seed(seed)

    def actor_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Velocity regression toward the dataset's chunks, plus the penalty on the velocity's Jacobian if there is one.

        Args:
            batch: ``observations`` (B, To, Do), ``actions`` (B, h, Da), ``valid`` (B, h).

        Returns:
            The scalar loss and its metrics, keyed ``actor/...``.
        """
        policy, s, valid = self.actor.policy, self._condition(batch), batch["valid"]
        actions = policy.action(batch["actions"])
        loss, metrics = policy.flow.loss(s, actions, valid, generator=self.generator)
        if self.config.jacobian_penalty:
            jacobian = policy.flow.sensitivity(s, actions, valid, self.generator)
            loss = loss + self.config.jacobian_penalty * jacobian
            metrics["jacobian"] = jacobian.detach()
        return loss, {f"actor/{name}": value for name, value in metrics.items()}

    def update(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One gradient step; the metrics stay on the device."""
        with fast_products():
            loss, metrics = self.actor_loss(batch)
            self.actor.step(loss)
        return metrics

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 10) -> torch.Tensor:
        """Chunks (B, h, Da) from (B, To * Do) and noise (B, h, Da), in ``nfe`` Euler steps; all in dataset units."""
        return self.actor.acting.act(observation, noise, nfe)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> Exportable:
        """The averaged policy as a plain function of tensors, a copy on the CPU; ``nfe`` defaults to config's."""
        return Exportable(self.actor.acting, self.config.nfe if nfe is None else nfe)

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        random = {"random": {"generator": self.generator.get_state()}}
        return AgentState(self.actor.tensors() | random, self.actor.values())

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        self.actor.load(state.tensors, state.values)
        self.generator.set_state(state.tensors["random"]["generator"])

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's acting policy, normalisers included; optimiser and average begin anew."""
        self.actor.begin_from(state.tensors)

    def _condition(self, batch: Mapping[str, torch.Tensor], key: str = "observations") -> torch.Tensor:
        """What the network is conditioned on, s (B, S): the one place where it is computed from a batch."""
        return self.actor.policy.condition(batch[key])

"""MVP, the mean velocity policy, in its imitation form: MeanFlow plus instantaneous velocity constraint.

The policy imitates the dataset's action chunks with one network evaluation per chunk. There is no critic here,
so no candidate is ranked.

Reference: arXiv:2602.13810.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from onestride.hardware.errors import OneStrideError
from onestride.policies.exportable import Exportable
from onestride.policies.normaliser import Affine
from onestride.policies.policy import MeanFlowPolicy
from onestride.training.agents.ema import EMA
from onestride.training.agents.state import AgentState, load_optimiser_tensors, optimiser_tensors


@dataclass(frozen=True)
class MVPConfig:
    """Mean velocity policy: imitates action chunks, acts with one network evaluation."""

    horizon: int = 5
    """Steps in a predicted chunk, h."""
    n_action_steps: int = 5
    """Steps of a chunk that are executed before the next inference."""
    history: int = 1
    """Observation steps the policy sees, oldest first, To."""
    nfe: tuple[int, ...] = (1, 2, 4)
    """Network evaluations per chunk that the exported file offers, an output for each."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the network's hidden layers."""
    batch_size: int = 256
    """Windows per gradient step."""
    lr: float = 2e-3
    """Adam's learning rate at the start; the paper's 3e-4 is for a million steps."""
    lr_decay: Literal["cosine", "none"] = "cosine"
    """How the learning rate falls: to zero at the last step along a cosine, or not at all."""
    ivc_weight: float = 1.0
    """λ, weight of the instantaneous velocity constraint."""
    one_step_share: float = 0.25
    """Share of the mean-flow half trained at (t, r) = (1, 0), the pair that acting uses; 0 is the paper's draw."""
    weight_power: float = 0.5
    """p of the adaptive error weight 1 / (e² + 1e-3)^p; 0 = plain squared error."""
    ema_decay: float = 0.999
    """Decay of the parameter average that acts."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        self._require("horizon", self.horizon >= 1, ">= 1")
        self._require("n_action_steps", 1 <= self.n_action_steps <= self.horizon, "between 1 and horizon")
        self._require("history", self.history >= 1, ">= 1")
        self._require("nfe", _distinct_positive(self.nfe), "one or more distinct numbers >= 1")
        self._require("hidden", bool(self.hidden) and min(self.hidden) >= 1, "one or more positive widths")
        self._require("batch_size", self.batch_size >= 2, ">= 2")
        self._require("lr", 0 < self.lr < math.inf, "> 0")
        self._require("lr_decay", self.lr_decay in ("cosine", "none"), "cosine or none")
        self._require("ivc_weight", 0 <= self.ivc_weight < math.inf, ">= 0")
        self._require("one_step_share", 0 <= self.one_step_share <= 1, "in [0, 1]")
        self._require("weight_power", 0 <= self.weight_power <= 1, "in [0, 1]")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")

    def _require(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise OneStrideError(f"{field}: expected {expected}, got {getattr(self, field)}")


def _distinct_positive(numbers: Sequence[int]) -> bool:
    return bool(numbers) and min(numbers) >= 1 and len(set(numbers)) == len(numbers)


class MVPAgent:
    """Trains a :class:`MeanFlowPolicy` and acts with its parameter average.

    Attributes:
        config: The settings.
        policy: The policy being trained.
        ema: Its average, which acts and is exported.
    """

    def __init__(
        self,
        config: MVPConfig,
        observation: Affine,
        action: Affine,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build policy, average and optimiser; the same seed gives the same start on every device.

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
            policy = MeanFlowPolicy(observation, action, horizon=config.horizon, hidden=config.hidden)
        self.policy = policy.to(device)
        self.ema = EMA(self.policy, config.ema_decay)
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=config.lr, fused=True)
        self.generator = torch.Generator(device).manual_seed(seed)
        self._steps, self._updates = steps, 0

    def actor_loss(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """``L_MF + λ L_IVC`` toward the dataset's chunks.

        Args:
            batch: ``observations`` (B, To, Do), ``actions`` (B, h, Da), ``valid`` (B, h).

        Returns:
            The scalar loss and its metrics, keyed ``actor/...``.
        """
        loss, metrics = self.policy.loss(
            batch["observations"],
            batch["actions"],
            batch["valid"],
            ivc_weight=self.config.ivc_weight,
            weight_power=self.config.weight_power,
            one_step_share=self.config.one_step_share,
            generator=self.generator,
        )
        return loss, {f"actor/{name}": value for name, value in metrics.items()}

    def update(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One gradient step; the metrics stay on the device."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        loss, metrics = self.actor_loss(batch)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        self.optimiser.step()
        self.ema.update()
        self._updates += 1
        return metrics

    @torch.inference_mode()
    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Sample action chunks from the averaged policy.

        Args:
            observation: (B, To * Do) in dataset units.
            noise: (B, h, Da) standard normal.
            nfe: Network evaluations per chunk.

        Returns:
            (B, h, Da) in dataset units, inside the action box.
        """
        return self.ema.module.act(observation, noise, nfe)

    def as_exportable(self, nfe: Sequence[int] | None = None) -> Exportable:
        """The averaged policy as a plain function of tensors, a copy on the CPU; ``nfe`` defaults to config's."""
        return Exportable(self.ema.module, self.config.nfe if nfe is None else nfe)

    def state_dict(self) -> AgentState:
        """Everything needed to go on bit for bit."""
        tensors = {
            "model": self.policy.state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimiser": optimiser_tensors(self.optimiser),
            "random": {"generator": self.generator.get_state()},
        }
        return AgentState(tensors, {"updates": self._updates, "ema_updates": self.ema.updates})

    def load_state_dict(self, state: AgentState) -> None:
        """Undo :meth:`state_dict`, on any device."""
        self.policy.load_state_dict(state.tensors["model"])
        self.ema.module.load_state_dict(state.tensors["ema"])
        load_optimiser_tensors(self.optimiser, state.tensors["optimiser"])
        self.generator.set_state(state.tensors["random"]["generator"])
        self._updates, self.ema.updates = state.values["updates"], state.values["ema_updates"]

    def begin_from(self, state: AgentState) -> None:
        """Take over another run's acting policy, normalisers included; optimiser and average begin anew.

        Raises:
            RuntimeError: Its sizes are others.
        """
        self.policy.load_state_dict(state.tensors["ema"])
        self.ema.module.load_state_dict(state.tensors["ema"])

    def _learning_rate(self) -> float:
        if self.config.lr_decay == "none":
            return self.config.lr
        progress = min(self._updates / self._steps, 1.0)
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * progress))

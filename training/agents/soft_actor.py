"""The actor of every soft actor-critic here: a squashed Gaussian policy and its automatic temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from onestride.policies.gaussian import GaussianPolicy, SquashedGaussian
from onestride.policies.normaliser import Affine
from onestride.training.agents.settings import require


@dataclass(frozen=True)
class SoftConfig:
    """Settings that every soft actor-critic has."""

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
    normalise: Literal["standardise", "none"] = "none"
    """Observations to zero mean and unit deviation of the data, or as they are."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    batch_size: int = 256
    """Windows per gradient step."""
    lr: float = 3e-4
    """Adam's learning rate of actor, temperature and critics."""
    discount: float = 0.99
    """γ per step, of rewards."""
    tau: float = 0.005
    """Share of the way that target networks move at each step, τ."""
    entropy_per_element: float = -1.0
    """Entropy [nat] per action element that the temperature steers to."""
    temperature: float = 1.0
    """The temperature α at the start."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        require_gaussian(self)
        require(self, "entropy_per_element", math.isfinite(self.entropy_per_element), "a finite number")
        require(self, "temperature", 0 < self.temperature < math.inf, "> 0")


def require_gaussian(config: Any) -> None:
    """Refuse what cannot be trained with in the fields of every agent with a Gaussian policy and critics."""
    require(config, "horizon", config.horizon >= 1, ">= 1")
    require(config, "n_action_steps", 1 <= config.n_action_steps <= config.horizon, "between 1 and horizon")
    require(config, "history", config.history >= 1, ">= 1")
    require(config, "nfe", config.nfe == (1,), "1, a Gaussian policy takes one evaluation")
    require(config, "candidates", config.candidates == 1, "1, a Gaussian policy draws one chunk")
    require(config, "normalise", config.normalise in ("standardise", "none"), "standardise or none")
    require(config, "hidden", bool(config.hidden) and min(config.hidden) >= 1, "one or more positive widths")
    require(config, "batch_size", config.batch_size >= 2, ">= 2")
    require(config, "lr", 0 < config.lr < math.inf, "> 0")
    require(config, "discount", 0 <= config.discount < 1, "in [0, 1)")
    require(config, "tau", 0 < config.tau <= 1, "in (0, 1]")


class SoftActor(nn.Module):
    """Policy and temperature α, learnt together.

    Attributes:
        policy: In dataset units.
        log_temperature: log α, a parameter.
        target_entropy: Of a chunk [nat].

    Reference: SAC with automatic temperature, arXiv:1812.05905, Eq. 18.
    """

    def __init__(self, config: SoftConfig, observation: Affine, action: Affine) -> None:
        """Build the policy around its normalisers."""
        super().__init__()
        gaussian = SquashedGaussian(observation.dim, config.horizon, action.dim, config.hidden)
        self.policy: GaussianPolicy[SquashedGaussian] = GaussianPolicy(observation, action, gaussian)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.target_entropy = config.entropy_per_element * config.horizon * action.dim

    @property
    def temperature(self) -> torch.Tensor:
        """α, scalar, as a given number: the actor's own loss does not move it."""
        return self.log_temperature.detach().exp()

    def sample(self, s: torch.Tensor, generator: torch.Generator, draws: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Chunks (draws, B, h * Da) drawn at s (B, S), and their log densities (draws, B)."""
        shape = (draws, len(s), self.policy.gaussian.chunk_dim)
        return self.policy.gaussian.sample(s, torch.randn(shape, generator=generator, device=s.device))

    def temperature_loss(self, log_prob: torch.Tensor) -> torch.Tensor:
        """``-α (log π + target)``: rises where the entropy is below its target; log π (B,) is taken as given."""
        return -self.log_temperature.exp() * (log_prob.detach() + self.target_entropy).mean()

    def metrics(self, log_prob: torch.Tensor) -> dict[str, torch.Tensor]:
        """Entropy of the draws whose log densities (B,) are given, and the temperature."""
        return {"actor/entropy": -log_prob.detach().mean(), "actor/temperature": self.temperature}

"""Gaussian policies on the unit box, and the policy in dataset units that is built around one.

Two ways into the box: :class:`SquashedGaussian` sends the whole distribution through tanh, so that its density stays
exact and entropy can be maximised; :class:`ClippedGaussian` squashes only the mean, so that recorded actions on the
box's faces keep a finite likelihood. Both act as a function of noise, and noise of zeros gives the mode.

References: SAC, arXiv:1812.05905, Appendix C (the squashed density); IQL, arXiv:2110.06169 (the squashed mean).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from onestride.policies.lipschitz import slope_bound
from onestride.policies.networks import MLP
from onestride.policies.normaliser import Affine

LOG_STD = (-5.0, 2.0)
"""Bounds of the logarithm of the deviation, reached smoothly: a clamp would have no gradient outside."""

_LOG_SQRT_TAU = 0.5 * math.log(2 * math.pi)


class SquashedGaussian(nn.Module):
    """``a = tanh(mean(s) + std(s) e)`` with ``e ~ N(0, I)``: chunks in the open box (-1, 1)."""

    def __init__(self, observation_dim: int, horizon: int, action_dim: int, hidden: Sequence[int]) -> None:
        """Build the network.

        Args:
            observation_dim: S, length of the flattened observation s.
            horizon: h, steps in a chunk.
            action_dim: Da, values in one action.
            hidden: Widths of the hidden layers.
        """
        super().__init__()
        self.horizon, self.action_dim, self.chunk_dim = horizon, action_dim, horizon * action_dim
        self.network = MLP(observation_dim, hidden, 2 * horizon * action_dim, activation=nn.ReLU)

    def forward(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log deviation before squashing, each (B, h * Da), at s (B, S)."""
        return _mean_and_log_std(self.network(s))

    def act(self, s: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Chunks (B, h * Da) from noise (B, h * Da)."""
        mean, log_std = self(s)
        return torch.tanh(mean + log_std.exp() * noise)

    def mode(self, s: torch.Tensor) -> torch.Tensor:
        """The chunk (B, h * Da) that noise of zeros gives, at s (B, S)."""
        return torch.tanh(self(s)[0])

    @torch.no_grad()
    def lipschitz(self) -> float:
        """An upper bound of the mode's Lipschitz constant in s; tanh adds nothing to that of the mean."""
        return slope_bound(self.network, outputs=slice(0, self.chunk_dim)).item()

    def sample(self, s: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reparametrised draw.

        ``log π(a|s) = log N(u; mean, std) - Σ log(1 - tanh² u)`` at ``u = mean + std e``, with the last term written
        as ``2 (log 2 - u - softplus(-2 u))``, which does not underflow where tanh is flat.

        Args:
            s: (B, S) observation.
            noise: (..., B, h * Da) standard normal; leading axes are further draws at the same observations.

        Returns:
            Chunk (..., B, h * Da) and its log density (..., B).
        """
        mean, log_std = self(s)
        u = mean + log_std.exp() * noise
        gaussian = -0.5 * noise.square() - log_std - _LOG_SQRT_TAU
        squash = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))
        return torch.tanh(u), (gaussian - squash).sum(-1)


class ClippedGaussian(nn.Module):
    """``a = clip(tanh(mean(s)) + std e, -1, 1)`` with one learnt deviation per element: for imitation."""

    def __init__(self, observation_dim: int, horizon: int, action_dim: int, hidden: Sequence[int]) -> None:
        """Build the network; arguments as of :class:`SquashedGaussian`."""
        super().__init__()
        self.horizon, self.action_dim, self.chunk_dim = horizon, action_dim, horizon * action_dim
        self.network = MLP(observation_dim, hidden, horizon * action_dim, activation=nn.ReLU)
        self.raw_log_std = nn.Parameter(torch.zeros(horizon * action_dim))

    def forward(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean in the box and log deviation, each (B, h * Da), at s (B, S)."""
        mean = torch.tanh(self.network(s))
        return mean, _bounded(self.raw_log_std).expand_as(mean)

    def act(self, s: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Chunks (B, h * Da) from noise (B, h * Da)."""
        mean, log_std = self(s)
        drawn: torch.Tensor = mean + log_std.exp() * noise
        return drawn.clamp(-1, 1)

    def mode(self, s: torch.Tensor) -> torch.Tensor:
        """The chunk (B, h * Da) that noise of zeros gives, at s (B, S)."""
        return torch.tanh(self.network(s))

    @torch.no_grad()
    def lipschitz(self) -> float:
        """An upper bound of the mode's Lipschitz constant in s."""
        return slope_bound(self.network).item()

    def log_prob(self, s: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Log density (B, h * Da) of each element of given chunks (B, h * Da), clipping left aside."""
        mean, log_std = self(s)
        density: torch.Tensor = -0.5 * ((actions - mean) / log_std.exp()).square() - log_std - _LOG_SQRT_TAU
        return density


G = TypeVar("G", bound=SquashedGaussian | ClippedGaussian)


class GaussianPolicy(nn.Module, Generic[G]):
    """From an observation and noise to a chunk of actions, all in dataset units.

    Attributes:
        observation: Normaliser of the flattened (To * Do) observation.
        action: Normaliser of one (Da,) action to [-1, 1].
        gaussian: The distribution, on normalised values.
    """

    def __init__(self, observation: Affine, action: Affine, gaussian: G) -> None:
        """Put normalisers around a distribution."""
        super().__init__()
        self.observation, self.action = observation, action
        self.gaussian: G = gaussian

    def condition(self, observations: torch.Tensor) -> torch.Tensor:
        """What the networks are conditioned on, s (B, S), at (B, To, Do) or (B, To * Do) in dataset units."""
        s: torch.Tensor = self.observation(observations.flatten(1))
        return s

    def act(self, observation: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Draw chunks.

        Args:
            observation: (B, To * Do) in dataset units.
            noise: (B, h, Da) standard normal; zeros give the mode.

        Returns:
            (B, h, Da) in dataset units, inside the action box.
        """
        chunk = self.gaussian.act(self.condition(observation), noise.flatten(1))
        return self.action.inverse(chunk.reshape(noise.shape))

    def mode(self, observation: torch.Tensor) -> torch.Tensor:
        """The chunks (B, h, Da) that noise of zeros gives, in dataset units, at (B, To * Do)."""
        chunk = self.gaussian.mode(self.condition(observation))
        return self.action.inverse(chunk.reshape(-1, self.gaussian.horizon, self.gaussian.action_dim))


def _mean_and_log_std(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, raw = output.chunk(2, dim=-1)
    return mean, _bounded(raw)


def _bounded(raw: torch.Tensor) -> torch.Tensor:
    low, high = LOG_STD
    return low + 0.5 * (high - low) * (torch.tanh(raw) + 1)

"""The policy in the dataset's own units: normalise, sample, scale back, clip to the action box."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import torch
from torch import nn

from onestride.policies.conditioning import Conditioning
from onestride.policies.normaliser import Affine


class ChunkFlow(Protocol):
    """What turns noise into a chunk of actions, on normalised values: a mean flow, a plain flow, a one-step map."""

    observation_dim: int
    horizon: int
    action_dim: int

    def sample(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """From s (B, S) and noise (B, h, Da) to chunks (B, h, Da), not clipped."""
        ...

    def lipschitz(self, nfe: int = 1) -> float:
        """An upper bound of the chunk's Lipschitz constant in s, for all s and noise."""
        ...


F = TypeVar("F", bound=ChunkFlow, covariant=True)


class ChunkPolicy(nn.Module, Generic[F]):
    """From an observation and noise to a chunk of actions, all in dataset units.

    Attributes:
        observation: Normaliser of the flattened (To * Do) observation, with encoders where there are pictures.
        action: Normaliser of one (Da,) action to [-1, 1].
        flow: From noise to a chunk, on normalised values.
        low: (Da,) lower corner of the action box, in dataset units.
        high: (Da,) upper corner of the action box, in dataset units.
        candidates: Chunks that are ranked at each inference: none, so 1; see :mod:`onestride.policies.selection`.
    """

    candidates = 1
    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, observation: Conditioning, action: Affine, flow: F) -> None:
        """Put normalisers around a flow.

        Args:
            observation: Of (To * Do,); a module.
            action: Normaliser over (Da,) that takes the action box to [-1, 1].
            flow: A module.
        """
        super().__init__()
        self.observation, self.action = observation, action
        self.flow: F = flow
        one = torch.ones(action.dim)
        corners = torch.stack([action.inverse(-one), action.inverse(one)])
        self.register_buffer("low", corners.amin(0))
        self.register_buffer("high", corners.amax(0))

    def condition(self, observations: torch.Tensor) -> torch.Tensor:
        """What the networks are conditioned on, s (B, S).

        Args:
            observations: (B, To, Do) or (B, To * Do), in dataset units.
        """
        return self.observation(observations.flatten(1))

    def generate(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Sample normalised chunks.

        Args:
            s: (B, S) observation.
            noise: (B, h, Da) standard normal.
            nfe: Network evaluations per chunk.

        Returns:
            (B, h, Da) in [-1, 1].
        """
        return self.flow.sample(s, noise, nfe).clamp(-1.0, 1.0)

    def to_dataset(self, chunks: torch.Tensor) -> torch.Tensor:
        """From normalised chunks (..., h, Da) to dataset units, inside [low, high].

        Clipped while the box is [-1, 1] for every dimension, which is one step of an exported graph instead of two;
        rounding keeps the order of numbers, so that no corner is passed afterwards.
        """
        return self.action.inverse(chunks.clamp(-1.0, 1.0))

    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Sample action chunks.

        Args:
            observation: (B, To * Do) in dataset units.
            noise: (B, h, Da) standard normal.
            nfe: Network evaluations per chunk.

        Returns:
            (B, h, Da) in dataset units, inside [low, high].
        """
        return self.to_dataset(self.flow.sample(self.condition(observation), noise, nfe))

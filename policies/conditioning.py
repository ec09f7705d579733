"""What networks are conditioned on: the normalised vector of an observation and, where there are any, its pictures.

Agents know one flat observation (B, To * Do) and one module that turns it into s (B, S). Without pictures that module
is an :class:`~onestride.policies.normaliser.Affine`; with pictures it is an :class:`Observer`. A picture's values are
part of the observation, behind the vector: one step is ``[vector, picture 1, picture 2, ...]``, see :func:`join`. So
losses, critics, selection and acting need no code for pictures. In the exported file the pictures are inputs of their
own, uint8 and whole (:class:`Seeing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from onestride.policies.normaliser import Affine
from onestride.policies.vision import ImageEncoder, Picture, centre_crop


class Conditioning(Protocol):
    """From a flat observation (B, To * Do) to s (B, S): an `Affine` or an `Observer`."""

    @property
    def dim(self) -> int:
        """S."""
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """From (B, To * Do) to (B, S)."""
        ...


def join(vector: torch.Tensor, images: Sequence[torch.Tensor]) -> torch.Tensor:
    """One flat step of an observation out of its parts.

    Args:
        vector: (B, To, Dv).
        images: Cropped pictures, each (B, To, H, W, C), 0 to 255.

    Returns:
        (B, To, Do) float32, Do = Dv + the values of all pictures.
    """
    return torch.cat([vector, *(image.flatten(2).to(vector.dtype) for image in images)], dim=-1)


class Observer(nn.Module):
    """Normalises the vector and encodes the pictures, each camera with an encoder of its own.

    Attributes:
        vector: Normaliser of the flattened (To * Dv) vector.
        pictures: Name -> size of each picture as recorded, before it is cropped, in order.
        dim: S, length of what it gives.
    """

    def __init__(
        self,
        vector: Affine,
        pictures: Mapping[str, Picture],
        *,
        history: int = 1,
        features: int = 64,
        widths: Sequence[int] = (16, 32, 32),
    ) -> None:
        """Build the encoders.

        Args:
            vector: Normaliser over (To * Dv,).
            pictures: Name -> size of each picture as recorded, in order.
            history: To.
            features: Of each picture.
            widths: Channels of each stage of an encoder.
        """
        super().__init__()
        self.vector, self.history, self.pictures = vector, history, dict(pictures)
        self.encoders = nn.ModuleList(ImageEncoder(one.cropped(), features, widths) for one in pictures.values())
        self._sizes = [vector.dim // history, *(one.cropped().size for one in pictures.values())]
        self.dim = vector.dim + history * features * len(pictures)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """What networks are conditioned on.

        Args:
            observation: (B, To * Do), of :func:`join` with cropped pictures.

        Returns:
            (B, S): the normalised vector, then each camera's features.
        """
        steps = observation.reshape(-1, self.history, sum(self._sizes))
        vector, *images = torch.split(steps, self._sizes, dim=-1)
        seen = [
            encoder(image.reshape(-1, self.history, *one.cropped()))
            for encoder, image, one in zip(self.encoders, images, self.pictures.values(), strict=True)
        ]
        return torch.cat([self.vector(vector.flatten(1)), *seen], dim=-1)


class Seeing(nn.Module):
    """An exportable policy whose pictures are inputs of their own, whole: the middle of each is cut out here.

    Attributes:
        policy: Takes the flat observation; an :class:`~onestride.policies.exportable.Exportable`.
        pictures: Name -> size of each picture, in the order of the inputs.
    """

    def __init__(self, policy: Any, pictures: Mapping[str, Picture]) -> None:
        super().__init__()
        self.policy, self.pictures = policy, dict(pictures)

    def forward(self, observation: torch.Tensor, noise: torch.Tensor, *images: torch.Tensor) -> Any:
        """Action chunks.

        Args:
            observation: (1, To * Dv) float32, the vector.
            noise: (N, h, Da) float32, standard normal.
            images: Each (1, To, H, W, C) uint8.

        Returns:
            What ``policy`` gives.
        """
        return self.policy(self._joined(observation, images), noise)

    def near_best(self, observation: torch.Tensor, noise: torch.Tensor, slack: float, *images: torch.Tensor) -> Any:
        """What ``policy.near_best`` gives."""
        return self.policy.near_best(self._joined(observation, images), noise, slack)

    def _joined(self, observation: torch.Tensor, images: Sequence[torch.Tensor]) -> torch.Tensor:
        cut = [centre_crop(image, one.cropped()) for image, one in zip(images, self.pictures.values(), strict=True)]
        return join(observation.reshape(1, images[0].shape[1], -1), cut).flatten(1)

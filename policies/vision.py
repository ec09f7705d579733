"""Pictures to features: a small residual network, and the crops it is trained and evaluated with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

CHANNELS_PER_GROUP = 8
"""Of a group normalisation: it looks at one picture only, so that acting and training see the same numbers."""


class Picture(NamedTuple):
    """Size of a picture: rows, columns, colours."""

    height: int
    width: int
    channels: int = 3

    @property
    def size(self) -> int:
        """Values of one picture."""
        return self.height * self.width * self.channels

    def cropped(self) -> Picture:
        """What the network sees: nine tenths of each side, rounded up, so 76 of 84."""
        return Picture(self.height - self.height // 10, self.width - self.width // 10, self.channels)


def crop_at(images: torch.Tensor, crop: Picture, top: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """Cut a window out of each picture.

    Args:
        images: (B, To, H, W, C).
        crop: Size of the window.
        top: (B,) first row; all steps of a row of the batch are cut alike.
        left: (B,) first column.

    Returns:
        (B, To, *crop).
    """
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    rows = top[:, None, None] + torch.arange(crop.height, device=images.device)[:, None]
    columns = left[:, None, None] + torch.arange(crop.width, device=images.device)
    return images.transpose(1, 3).transpose(1, 2)[batch, rows, columns].permute(0, 3, 1, 2, 4)


def random_crop(images: torch.Tensor, crop: Picture, generator: torch.Generator | None = None) -> torch.Tensor:
    """Cut a window out of each picture at a place of its own, every place alike: :func:`crop_at`, (B, To, *crop).

    The augmentation of pixels that matters most.

    Args:
        images: (B, To, H, W, C).
        crop: Size of the window.
        generator: Source of the places, on the CPU: so they are the same on every device.

    Reference: arXiv:2004.14990.
    """
    height, width = images.shape[2:4]
    top = torch.randint(height - crop.height + 1, (len(images),), generator=generator)
    left = torch.randint(width - crop.width + 1, (len(images),), generator=generator)
    return crop_at(images, crop, top.to(images.device), left.to(images.device))


def centre_crop(images: torch.Tensor, crop: Picture) -> torch.Tensor:
    """Cut the middle out of pictures (..., H, W, C): (..., *crop)."""
    top, left = (images.shape[-3] - crop.height) // 2, (images.shape[-2] - crop.width) // 2
    return images[..., top : top + crop.height, left : left + crop.width, :]


class ImageEncoder(nn.Module):
    """From pictures to features: stages that halve the picture, each with a residual block, then one linear layer.

    Attributes:
        picture: Size of the pictures it takes, cropped already.
        features: F, length of the vector it gives for each picture.
    """

    def __init__(self, picture: Picture, features: int = 64, widths: Sequence[int] = (16, 32, 32)) -> None:
        """Build the layers.

        Args:
            picture: Size of the pictures it takes, cropped already.
            features: F.
            widths: Channels of each stage, multiples of 8.

        Raises:
            ValueError: A size is not positive, or a width no multiple of 8.
        """
        super().__init__()
        if min(*picture, features) < 1 or not widths or any(w < 1 or w % CHANNELS_PER_GROUP for w in widths):
            raise ValueError(
                f"expected positive sizes and widths that are multiples of {CHANNELS_PER_GROUP}, "
                f"got {tuple(picture)}, {features} features and widths {tuple(widths)}"
            )
        self.picture, self.features = picture, features
        stages: list[nn.Module] = []
        channels, height, width = picture.channels, picture.height, picture.width
        for wider in widths:
            stages += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), ResidualBlock(wider)]
            channels, height, width = wider, (height + 1) // 2, (width + 1) // 2
        self.stages = nn.Sequential(*stages, _norm(channels), nn.ReLU(), nn.Flatten())
        # Normalised features stand beside the normalised vector with the same spread.
        self.head = nn.Sequential(nn.Linear(channels * height * width, features), nn.LayerNorm(features))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode pictures.

        Args:
            images: (B, To, H, W, C), 0 to 255, uint8 or floating point.

        Returns:
            (B, To * F), oldest step first.
        """
        x = images.flatten(0, 1).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        found: torch.Tensor = self.head(self.stages(x))
        return found.reshape(len(images), -1)


class ResidualBlock(nn.Module):
    """``x + conv(relu(norm(conv(relu(norm(x))))))``, which begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        second = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in second.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(
            _norm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            _norm(channels),
            nn.ReLU(),
            second,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, H, W) to the same shape."""
        changed: torch.Tensor = x + self.layers(x)
        return changed


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)

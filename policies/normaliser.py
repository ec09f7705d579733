"""Normalisation as an affine map that travels inside the policy, and so inside the exported file."""

from __future__ import annotations

import torch
from torch import nn

SMALLEST_SPREAD = 1e-6
"""Below this standard deviation a dimension counts as constant: its scale stays 1. Half of a box is never narrower,
nor narrower than this share of its middle."""


class Affine(nn.Module):
    """``y = (x - offset) * scale`` per element, and its inverse.

    Attributes:
        offset: (D,) float32, in the units of x.
        scale: (D,) float32, in 1 / units of x, never zero.
    """

    offset: torch.Tensor
    scale: torch.Tensor

    def __init__(self, offset: torch.Tensor, scale: torch.Tensor) -> None:
        """Hold the map's constants as buffers.

        Raises:
            ValueError: Shapes differ, a value is not finite, or a scale is zero.
        """
        super().__init__()
        if offset.ndim != 1 or offset.shape != scale.shape:
            shapes = f"{tuple(offset.shape)} and {tuple(scale.shape)}"
            raise ValueError(f"expected offset and scale of one shape (D,), got {shapes}")
        if not (offset.isfinite().all() and scale.isfinite().all() and (scale != 0).all()):
            raise ValueError("expected a finite offset and a finite, non-zero scale")
        self.register_buffer("offset", offset.to(torch.float32))
        self.register_buffer("scale", scale.to(torch.float32))

    @classmethod
    def identity(cls, dim: int) -> Affine:
        """The map that changes nothing, on (dim,) vectors."""
        return cls(torch.zeros(dim), torch.ones(dim))

    @classmethod
    def standardise(cls, mean: torch.Tensor, std: torch.Tensor) -> Affine:
        """To zero mean and unit deviation; a constant dimension is only centred.

        Args:
            mean: (D,) mean of the data.
            std: (D,) standard deviation of the data, not negative.
        """
        return cls(mean, _reciprocal(std))

    @classmethod
    def unit_box(cls, low: torch.Tensor, high: torch.Tensor) -> Affine:
        """From the box [low, high] to [-1, 1]; of a constant dimension the box is as narrow as rounding allows.

        A policy keeps to the box, so that what the data never moved stays where it is.

        Args:
            low: (D,) smallest value of the data.
            high: (D,) largest value of the data, nowhere below ``low``.
        """
        if (high < low).any():
            raise ValueError("expected high >= low in every dimension")
        middle = (low + high) / 2
        return cls(middle, torch.maximum((high - low) / 2, SMALLEST_SPREAD * middle.abs().clamp(min=1)).reciprocal())

    def repeat(self, times: int) -> Affine:
        """The same map on ``times`` vectors laid end to end, (times * D,): for a flattened history."""
        return Affine(self.offset.repeat(times), self.scale.repeat(times))

    @property
    def dim(self) -> int:
        """Length D of the vectors this maps."""
        return self.offset.shape[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (..., D)."""
        return (x - self.offset) * self.scale

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Undo the normalisation of (..., D)."""
        return y / self.scale + self.offset


def _reciprocal(spread: torch.Tensor) -> torch.Tensor:
    """1 / spread, and 1 where the spread is too small to divide by."""
    if (spread < 0).any():
        raise ValueError("expected a spread that is nowhere negative")
    return torch.where(spread > SMALLEST_SPREAD, spread, torch.ones_like(spread)).reciprocal()

"""Networks: the plain multilayer perceptron every policy here is built from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


class MLP(nn.Module):
    """Linear layers with GELU between them; the last layer is linear.

    GELU because a mean-flow map is differentiated along its own trajectory: with a kinked activation
    du/dt would jump from batch to batch.
    """

    def __init__(self, input_dim: int, hidden: Sequence[int], output_dim: int) -> None:
        """Build the layers.

        Args:
            input_dim: Size of the last axis of the input.
            hidden: Width of each hidden layer, at least one.
            output_dim: Size of the last axis of the output.

        Raises:
            ValueError: A size is not positive, or no hidden layer is given.
        """
        super().__init__()
        if not hidden or min(input_dim, output_dim, *hidden) < 1:
            raise ValueError(f"expected positive layer sizes, got {input_dim} -> {tuple(hidden)} -> {output_dim}")
        widths = [input_dim, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], output_dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        output: torch.Tensor = self.layers(x)
        return output

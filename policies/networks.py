"""Networks: the plain multilayer perceptron every policy here is built from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from onestride.policies import products
from onestride.policies.perceptron import Views, fits, perceptrons


class Linear(nn.Linear):
    """A linear layer whose product is :func:`onestride.policies.products.linear`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        return products.linear(input, self.weight, self.bias)


class MLP(nn.Module):
    """Linear layers with an activation between them; the last layer is linear.

    GELU unless asked otherwise, because a mean-flow map is differentiated along its own trajectory: with a kinked
    activation du/dt would jump from batch to batch. ReLU is cheaper where nothing is differentiated that way.
    """

    def __init__(
        self, input_dim: int, hidden: Sequence[int], output_dim: int, *, activation: Callable[[], nn.Module] = nn.GELU
    ) -> None:
        """Build the layers.

        Args:
            input_dim: Size of the last axis of the input.
            hidden: Width of each hidden layer, at least one.
            output_dim: Size of the last axis of the output.
            activation: Makes the module between two layers.

        Raises:
            ValueError: A size is not positive, or no hidden layer is given.
        """
        super().__init__()
        if not hidden or min(input_dim, output_dim, *hidden) < 1:
            raise ValueError(f"expected positive layer sizes, got {input_dim} -> {tuple(hidden)} -> {output_dim}")
        widths = [input_dim, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [Linear(fan_in, fan_out), activation()]
        self.layers = nn.Sequential(*layers, Linear(widths[-1], output_dim))
        self._rectified, self._widths = activation is nn.ReLU, tuple(hidden)
        linear = [layer for layer in self.layers if isinstance(layer, Linear)]
        self._views = Views([*(layer.weight for layer in linear), *(layer.bias for layer in linear)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        if self._rectified and fits(x, self._widths):
            return perceptrons(x, self._views).squeeze(0)
        output: torch.Tensor = self.layers(x)
        return output

    def tangent(self, x: torch.Tensor, dx: torch.Tensor) -> torch.Tensor:
        """The derivative of the output along dx: a Jacobian-vector product, (R, input_dim) twice -> (R, output_dim).

        Value and tangent go through each layer in one product. For GELU only, and without gradient.

        Raises:
            TypeError: Another activation.
        """
        rows = len(x)
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    both = products.linear(torch.cat([x, dx]), layer.weight)
                    x, dx = both[:rows] + layer.bias, both[rows:]
                elif isinstance(layer, nn.GELU):
                    x, dx = layer(x), torch.ops.aten.gelu_backward(dx, x, approximate=layer.approximate)
                else:
                    raise TypeError(f"expected GELU between the layers, got {type(layer).__name__}")
        return dx

"""An ensemble of multilayer perceptrons as one network: stacked weights, one batched product per layer.

A CPU is faster member by member, in one operation: see :mod:`onestride.policies.perceptron`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from onestride.policies.perceptron import Views, fits, perceptrons

Activation = Callable[[torch.Tensor], torch.Tensor]


class StackedLinear(nn.Module):
    """K linear layers side by side, each begun like ``nn.Linear``: uniform within ``1 / sqrt(fan_in)``."""

    def __init__(self, members: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        bound = fan_in**-0.5
        self.weight = nn.Parameter(torch.empty(members, fan_in, fan_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, fan_out).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (K, B, fan_in) to (K, B, fan_out)."""
        return torch.baddbmm(self.bias, x, self.weight)


class StackedNorm(nn.Module):
    """K layer normalisations side by side."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(members, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (K, B, width) along the last axis."""
        return nn.functional.layer_norm(x, x.shape[-1:]) * self.gain + self.shift


class Ensemble(nn.Module):
    """K independent perceptrons of one shape: linear, [normalisation,] activation, ..., linear."""

    def __init__(
        self,
        members: int,
        input_dim: int,
        hidden: Sequence[int],
        output_dim: int = 1,
        *,
        layer_norm: bool = False,
        activation: Activation = torch.relu,
    ) -> None:
        """Build the layers.

        Args:
            members: K.
            input_dim: Size of the last axis of the input.
            hidden: Width of each hidden layer, at least one.
            output_dim: Size of the last axis of the output.
            layer_norm: Whether each hidden layer is normalised before its activation.
            activation: Between the layers.

        Raises:
            ValueError: A size is not positive, or no hidden layer is given.
        """
        super().__init__()
        if not hidden or min(members, input_dim, output_dim, *hidden) < 1:
            sizes = f"{members} x {input_dim} -> {tuple(hidden)} -> {output_dim}"
            raise ValueError(f"expected positive sizes, got {sizes}")
        self.members, self.activation = members, activation
        widths = [input_dim, *hidden]
        self.hidden = nn.ModuleList(StackedLinear(members, a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(StackedNorm(members, width) for width in hidden if layer_norm)
        self.last = StackedLinear(members, widths[-1], output_dim)
        self._rectified, self._widths = activation is torch.relu and not layer_norm, tuple(hidden)
        stacked = [layer for layer in (*self.hidden, self.last) if isinstance(layer, StackedLinear)]
        self._views = Views([*(layer.weight for layer in stacked), *(layer.bias for layer in stacked)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, input_dim), the same for every member, to (K, B, output_dim)."""
        if self._rectified and fits(x, self._widths):
            return perceptrons(x, self._views)
        x = x.expand(self.members, *x.shape)
        for index, layer in enumerate(self.hidden):
            x = layer(x)
            x = self.activation(self.norms[index](x) if self.norms else x)
        output: torch.Tensor = self.last(x)
        return output

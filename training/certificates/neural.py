"""A Lyapunov function as a small network, positive definite by construction.

`V(x) = ε xᵀPx + |R x + φ(x) - φ(0)|²` with `P = RᵀR` from the Riccati equation: zero at rest, at least `ε xᵀPx`
everywhere, and at φ = 0 about the quadratic function it starts from. One definition serves torch (to learn it), numpy
and jets (to prove it).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from onestride.hardware.state import Array
from onestride.training.certificates.jets import Column, Jet, affine, stacked
from onestride.training.certificates.quadratic import Quadratic
from onestride.training.certificates.systems import State

#: Share of the quadratic function that stays, whatever is learnt.
FLOOR = 0.1


class NeuralLyapunov(nn.Module):
    """See the module. In float64, as it is proved.

    Attributes:
        root: R (n, n).
    """

    root: torch.Tensor

    def __init__(self, start: Quadratic, hidden: Sequence[int] = (24, 24), seed: int = 0) -> None:
        """Begin as `start`, with φ small.

        Args:
            start: Quadratic function of the same system, at the scale that V is to have.
            hidden: Widths of φ's layers, with tanh behind each.
            seed: Of the initial weights.
        """
        super().__init__()
        size = len(start.matrix)
        widths = [size, *hidden, size]
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("root", torch.from_numpy(np.linalg.cholesky(start.matrix).T.copy()))
        self._linear = [nn.Linear(a, b, dtype=torch.float64) for a, b in pairwise(widths)]
        self.layers = nn.ModuleList(self._linear)
        for layer in self._linear:
            spread = (0.05 if layer is self._linear[-1] else 1.0) / layer.in_features**0.5
            with torch.no_grad():
                layer.weight.uniform_(-spread, spread, generator=generator)
                layer.bias.uniform_(-spread, spread, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """V of states (B, n) -> (B,)."""
        linear = x @ self.root.T
        bent = linear + self._phi(x) - self._phi(torch.zeros_like(x[:1]))
        return FLOOR * linear.square().sum(-1) + bent.square().sum(-1)

    def _phi(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self._linear[:-1]:
            x = torch.tanh(layer(x))
        out: torch.Tensor = self._linear[-1](x)
        return out

    def frozen(self) -> FrozenLyapunov:
        """The same function of numpy columns and jets, with the weights of now."""
        pairs = [(one.weight.detach().numpy().copy(), one.bias.detach().numpy().copy()) for one in self._linear]
        return FrozenLyapunov(self.root.numpy().copy(), pairs)


class FrozenLyapunov:
    """A `NeuralLyapunov` for numpy (n columns (B,)), for jets, and for torch as part of a larger graph.

    Attributes:
        root: R (n, n).
        layers: weights (m, d) and biases (m,) of φ.
    """

    def __init__(self, root: Array, layers: Sequence[tuple[Array, Array]], floor: float = FLOOR) -> None:
        self.root, self.layers, self._floor = root, tuple(layers), floor
        self._rest = self._array(np.zeros((len(root), 1)))[:, 0]

    def __call__(self, x: State) -> Column:
        """V of columns of any kind."""
        if isinstance(x[0], Jet):
            return self._jet(stacked(x))
        if isinstance(x[0], torch.Tensor):
            shape = np.broadcast_shapes(*(one.shape for one in x))
            return self._tensor(torch.stack([one.expand(shape) for one in x], -1))
        both = np.stack(np.broadcast_arrays(*x))
        linear = self.root @ both
        bent = linear + self._array(both) - self._rest[:, None]
        return self._floor * (linear**2).sum(axis=0) + (bent**2).sum(axis=0)

    def _array(self, x: Array) -> Array:
        for weight, bias in self.layers[:-1]:
            x = np.tanh(weight @ x + bias[:, None])
        weight, bias = self.layers[-1]
        return np.asarray(weight @ x + bias[:, None])

    def _tensor(self, x: torch.Tensor) -> torch.Tensor:
        """V of states (..., n) -> (...)."""
        linear, phi = x @ torch.from_numpy(self.root.T), x
        for weight, bias in self.layers[:-1]:
            phi = torch.tanh(phi @ torch.from_numpy(weight.T) + torch.from_numpy(bias))
        weight, bias = self.layers[-1]
        bent = linear + phi @ torch.from_numpy(weight.T) + torch.from_numpy(bias - self._rest)
        return self._floor * linear.square().sum(-1) + bent.square().sum(-1)

    def _jet(self, x: Jet) -> Column:
        nothing = np.zeros(len(self.root))
        linear, phi = affine(self.root, x, nothing), x
        for weight, bias in self.layers[:-1]:
            phi = affine(weight, phi, bias).tanh()
        weight, bias = self.layers[-1]
        bent = linear + affine(weight, phi, bias - self._rest)
        total: Column = 0.0
        for index in range(bent.rows):
            total = linear.row(index).square() * self._floor + bent.row(index).square() + total
        return total

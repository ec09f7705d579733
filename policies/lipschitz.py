"""Bounds on how far an output can move with an input, for all inputs: products of the layers' spectral norms.

A perceptron ``W_n σ(... σ(W_1 x))`` moves by at most ``‖W_n‖ g ... g ‖W_1‖`` times the distance of its inputs, g the
steepest slope of σ. The product is true everywhere, and loose: the layers seldom stretch the same direction.

Only what the *observation* does is bounded. Noise and flow time enter by other columns of the first layer, and a flow
has to be steep in them; so the observation is multiplied by ``min(1, L / bound)`` before it enters, which is the same
as scaling its columns. LipsNet (Song et al., ICML 2023) divides by the gradient's norm at the input instead: that fits
tighter, but holds at the input and not between two inputs, so it is not offered.

References: product of norms, arXiv:1312.6199, Section 4.3; Gram iteration, arXiv:2305.16173.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from onestride.policies import products
from onestride.policies.networks import MLP

GELU_SLOPE = 0.5 * (1 + math.erf(1)) + math.exp(-1) / math.sqrt(math.pi)
"""Steepest slope of GELU, 1.1289, at √2 where its second derivative vanishes."""

SLOPES: dict[type[nn.Module], float] = {nn.GELU: GELU_SLOPE, nn.ReLU: 1.0, nn.Tanh: 1.0}

SQUARINGS = 4
"""Of the Gram iteration: the bound is at most ``rank^(1/32)`` times the norm, 19 % too large at rank 256."""

Norm: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


def gram_norm(matrix: torch.Tensor) -> torch.Tensor:
    """An upper bound of a matrix' largest singular value, with gradient, by squaring ``W Wᵀ``.

    ``‖(W Wᵀ)^(2^k)‖_F^(1 / 2^(k+1))`` falls to the norm as k grows, and is never below it but for rounding. It needs no
    starting vector, so that nothing has to be kept between calls.
    """
    gram = matrix @ matrix.mT if len(matrix) <= matrix.shape[1] else matrix.mT @ matrix
    log = torch.zeros((), device=matrix.device, dtype=matrix.dtype)
    for squaring in range(SQUARINGS + 1):
        gram = products.linear(gram, gram) if squaring else gram  # it is symmetric
        size = torch.linalg.matrix_norm(gram).clamp_min(torch.finfo(matrix.dtype).tiny)
        gram, log = gram / size, 2 * log + size.log()
    bound: torch.Tensor = (log / 2 ** (SQUARINGS + 1)).exp()
    return bound


def exact_norm(matrix: torch.Tensor) -> torch.Tensor:
    """The largest singular value, in double precision."""
    largest: torch.Tensor = torch.linalg.matrix_norm(matrix.double(), 2)
    return largest


def slope_bound(
    network: MLP, inputs: slice = slice(None), outputs: slice = slice(None), norm: Norm = exact_norm
) -> torch.Tensor:
    """How far some outputs can move with some inputs, at most: scalar, in l2.

    Args:
        network: Of activations listed in :data:`SLOPES`.
        inputs: Those that move; the others are held.
        outputs: Those that are watched.
        norm: Of a layer's matrix.

    Raises:
        TypeError: Another activation.
    """
    weights = [layer.weight for layer in network.layers if isinstance(layer, nn.Linear)]
    weights[0], weights[-1] = weights[0][:, inputs], weights[-1][outputs]
    bound = torch.stack([norm(weight) for weight in weights]).prod()
    return bound * math.prod(_slope(layer) for layer in network.layers if not isinstance(layer, nn.Linear))


def _slope(activation: nn.Module) -> float:
    if type(activation) not in SLOPES:
        names = ", ".join(known.__name__ for known in SLOPES)
        raise TypeError(f"expected an activation of {names}, got {type(activation).__name__}")
    return SLOPES[type(activation)]


def walked(of_s: float, of_z: float, nfe: int) -> float:
    """Bound of a chunk reached in ``nfe`` Euler steps, from those of the velocity in s and z.

    A step ``z - v(z, s) / K`` turns a distance d into at most ``d + (of_z d + of_s) / K``; the noise is the same, so
    the first distance is 0. One step gives ``of_s`` itself.
    """
    distance = 0.0
    for _ in range(nfe):
        distance += (of_z * distance + of_s) / nfe
    return distance


class ObservationBound(nn.Module):
    """A flow whose network takes ``[s, z, ...]``, and whose slope in the observation s may be bounded.

    Attributes:
        network: The velocity.
        observation_dim: S.
        chunk_dim: h * Da, length of z.
        limit: L, the most that the velocity moves per distance in s, both normalised; None = as far as it will.
    """

    network: MLP
    observation_dim: int
    chunk_dim: int
    limit: float | None

    def admitted(self, s: torch.Tensor) -> torch.Tensor:
        """The observation (B, S) as it enters the network: itself, or shrunk so that the bound holds."""
        return s if self.limit is None else self._shrinkage(self.limit) * s

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the shrinkage into the weights, once and for all: the same function, for less work."""
        if self.limit is not None:
            first = self.network.layers[0]
            first.get_parameter("weight")[:, : self.observation_dim] *= self._shrinkage(self.limit)
            self.limit = None

    @torch.no_grad()
    def lipschitz(self, nfe: int = 1) -> float:
        """An upper bound of the chunk's Lipschitz constant in s, on normalised values, for all s and noise."""
        start, end = self.observation_dim, self.observation_dim + self.chunk_dim
        of_s, of_z = slope_bound(self.network, slice(0, start)).item(), slope_bound(self.network, slice(start, end))
        shrinkage = 1.0 if self.limit is None else self._shrinkage(self.limit).item()
        return walked(shrinkage * of_s, of_z.item(), nfe)

    def _shrinkage(self, limit: float) -> torch.Tensor:
        # In full precision: candidates are ranked by copies in less.
        bound = slope_bound(self.network, slice(0, self.observation_dim), norm=lambda weight: gram_norm(weight.float()))
        return limit / bound.clamp_min(limit)

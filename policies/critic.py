"""Critics of action chunks: a stacked ensemble that values many chunks of one observation at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from onestride.policies import products


class CriticEnsemble(nn.Module):
    """``Q_k(s, a)``, k = 1 ... K, of chunks, on normalised values.

    Each member is a perceptron of linear layers with GELU and then layer normalisation between them. The members'
    weights are stacked: a GPU evaluates all by one batched product, a CPU is faster one after the other. The
    normalisation has no gain and bias of its own: the linear layer after it has them.

    Attributes:
        of_s: The first layer's columns for the observation, (K, out, S).
        of_chunk: Those for the chunk, (K, out, h * Da).
        weights: Of the other layers, (K, out, in).
        biases: Of all layers, (K, out).
    """

    def __init__(self, observation_dim: int, chunk_dim: int, hidden: Sequence[int], members: int = 2) -> None:
        """Build the networks, Glorot-uniform, with biases of zero.

        Args:
            observation_dim: S, length of the flattened observation s.
            chunk_dim: h * Da, length of a flattened chunk.
            hidden: Widths of the hidden layers, at least one.
            members: K, networks in the ensemble.

        Raises:
            ValueError: A size is not positive, or no hidden layer is given.
        """
        super().__init__()
        sizes = (observation_dim, chunk_dim, members, *hidden)
        if not hidden or min(sizes) < 1:
            raise ValueError(f"expected positive sizes and a hidden layer, got {sizes[:3]} and {tuple(hidden)}")
        self.members = members
        widths = [observation_dim + chunk_dim, *hidden, 1]
        first, *others = (_glorot(members, fan_out, fan_in) for fan_in, fan_out in pairwise(widths))
        self.of_s = nn.Parameter(first[..., :observation_dim].contiguous())
        self.of_chunk = nn.Parameter(first[..., observation_dim:].contiguous())
        self.weights = nn.ParameterList(others)
        self.biases = nn.ParameterList(torch.zeros(members, width) for width in widths[1:])

    def forward(self, s: torch.Tensor, chunks: torch.Tensor) -> torch.Tensor:
        """Value N chunks of each observation.

        The observation's half of the first layer is computed once per observation, whatever N is.

        Args:
            s: (B, S) observation.
            chunks: (B, N, h * Da).

        Returns:
            (K, B, N).
        """
        layers = (self.of_s, self.of_chunk, list(self.weights), list(self.biases))
        if s.device.type != "cpu":
            return _values(s, chunks, *layers, _stacked_linear)
        members = zip(
            self.of_s, self.of_chunk, zip(*self.weights, strict=True), zip(*self.biases, strict=True), strict=True
        )
        return torch.stack([_values(s, chunks, *member, products.linear) for member in members])

    def keep_output_in_full_precision(self) -> None:
        """The last layer in float32, whatever the others are in."""
        for last in (self.weights[-1], self.biases[-1]):
            last.data = last.data.float()


Product: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def _values(
    s: torch.Tensor,
    chunks: torch.Tensor,
    of_s: torch.Tensor,
    of_chunk: torch.Tensor,
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    linear: Product,
) -> torch.Tensor:
    """Values (..., B, N) of chunks (B, N, h * Da), by one member or, with leading axes, by all at once."""
    batch, candidates, _ = chunks.shape
    from_s = linear(s, of_s, biases[0]).unsqueeze(-2)
    from_chunk = linear(chunks.flatten(0, 1), of_chunk, None)
    lead = from_chunk.shape[:-2]
    x = (from_chunk.reshape(*lead, batch, candidates, -1) + from_s).flatten(-3, -2)
    for weight, bias in zip(weights, biases[1:], strict=True):
        x = functional.layer_norm(functional.gelu(x), x.shape[-1:])
        x = linear(x.to(weight.dtype), weight, bias)
    return x.reshape(*lead, batch, candidates)


def _stacked_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``x Wᵀ + b`` of all members: (R, I) or (K, R, I), (K, O, I), (K, O) -> (K, R, O)."""
    result = torch.matmul(x, weight.mT)
    return result if bias is None else result + bias.unsqueeze(-2)


def _glorot(members: int, fan_out: int, fan_in: int) -> torch.Tensor:
    weights = torch.empty(members, fan_out, fan_in)
    for member in weights:
        nn.init.xavier_uniform_(member)
    return weights

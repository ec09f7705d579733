"""Rectified perceptrons as one operation: bias and activation within the product, gradients by hand.

On small layers torch spends more on the steps around the products than on the products. Here a forward pass is one
product a layer, and a backward pass computes what is asked for and nothing else: no gradient of an input that is data,
none of parameters that are held still. The figures are those of the plain layers but for the order in which oneDNN adds
them up.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from onestride.policies import products

Tensors = Sequence[torch.Tensor]


class Layers(NamedTuple):
    """One perceptron: views of its parameters, which gradients do not pass."""

    weights: Tensors
    """Of each layer (out, in)."""
    transposed: Tensors
    """The same (in, out)."""
    biases: Tensors
    """Of each layer (out,)."""


class Views:
    """The layers of K perceptrons as views of their parameters, made once: there are a dozen for each.

    Args:
        parameters: The weights of each layer, then the biases of each: of one perceptron (out, in) and (out,), or
            stacked (K, in, out) and (K, 1, out).
    """

    def __init__(self, parameters: Tensors) -> None:
        self.parameters = parameters
        self._seen_at: list[int] = []
        self._members: list[Layers] = []

    @property
    def members(self) -> list[Layers]:
        """One for each member; made anew where the parameters have moved in memory, as to another device."""
        at = [parameter.data_ptr() for parameter in self.parameters]
        if at != self._seen_at:
            self._seen_at, self._members = at, _members(self.parameters)
        return self._members

    def __deepcopy__(self, memo: dict[int, Any]) -> Views:
        """The views of the copied parameters."""
        return Views(copy.deepcopy(self.parameters, memo))


@torch.no_grad()
def _members(parameters: Tensors) -> list[Layers]:
    count = len(parameters) // 2
    if parameters[0].ndim == 2:
        weights, biases = [one.detach() for one in parameters[:count]], [one.detach() for one in parameters[count:]]
        return [Layers(weights, [one.t() for one in weights], biases)]
    stacked = zip(*(one.mT.unbind(0) for one in parameters[:count]), strict=True)
    flat = zip(*(one.squeeze(1).unbind(0) for one in parameters[count:]), strict=True)
    return [Layers(w, [one.t() for one in w], b) for w, b in zip(stacked, flat, strict=True)]


def fits(x: torch.Tensor, widths: Sequence[int]) -> bool:
    """Whether this is faster than layer by layer: for an input x (R, I) and hidden layers of these widths."""
    on_rows = x.ndim == 2 and x.dtype == torch.float32 and x.device.type == "cpu"
    return on_rows and min(widths) >= products.NARROW and products.are_fast()


def perceptrons(x: torch.Tensor, views: Views) -> torch.Tensor:
    """``relu(... relu(x W₁ᵀ + b₁) ...) W_nᵀ + b_n`` of K members with the same input, (R, I) -> (K, R, O)."""
    if torch.is_grad_enabled():
        output: torch.Tensor = _Perceptrons.apply(views.members, x, *views.parameters)  # type: ignore[no-untyped-call]
        return output
    return torch.stack([_forward(x, member)[-1] for member in views.members])


class _Perceptrons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, members: Sequence[Layers], x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        kept = [_forward(x, member) for member in members]
        output = torch.stack([seen.pop() for seen in kept])
        ctx.members, ctx.stacked = members, parameters[0].ndim == 3
        ctx.save_for_backward(*(one for seen in kept for one in seen))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _, of_x, *of_parameters = ctx.needs_input_grad
        kept, count = ctx.saved_tensors, len(of_parameters) // 2
        found = []
        for number, (g, member) in enumerate(zip(gradients[0].contiguous(), ctx.members, strict=True)):
            seen = kept[number * count : (number + 1) * count]
            found.append(_backward(g, member, seen, of_x, any(of_parameters)))
        of_inputs, of_members = zip(*found, strict=True)
        total = torch.stack(of_inputs).sum(0) if of_x else None
        if not any(of_parameters):
            return (None, total, *(None for _ in of_parameters))
        return (None, total, *(_stacked(of_members) if ctx.stacked else of_members[0]))


def _stacked(of_members: Sequence[Tensors]) -> list[torch.Tensor]:
    """Gradients of each member's weights (out, in) and biases (out,) as those of the parameters that hold them all."""
    count = len(of_members[0]) // 2
    weights = zip(*(one[:count] for one in of_members), strict=True)
    biases = zip(*(one[count:] for one in of_members), strict=True)
    of_weights = [torch.stack([one.t() for one in many]) for many in weights]
    return [*of_weights, *(torch.stack(many).unsqueeze(1) for many in biases)]


def _forward(x: torch.Tensor, layers: Layers) -> list[torch.Tensor]:
    """What each layer sees, and the output."""
    seen = [x.contiguous()]
    for weight, bias in zip(layers.weights[:-1], layers.biases, strict=False):
        seen.append(products.product(seen[-1], weight, bias, "relu"))
    seen.append(torch.addmm(layers.biases[-1], seen[-1], layers.transposed[-1]))
    return seen


def _backward(
    g: torch.Tensor, layers: Layers, seen: Tensors, of_x: bool, learning: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Gradients of the input, and of the weights (out, in) and then biases (out,), from that of the output (R, O).

    Args:
        g: Of the output.
        layers: The perceptron.
        seen: By each layer; what was rectified is 0.
        of_x: Whether that of the input is asked for.
        learning: Whether those of the parameters are.
    """
    of_weights, of_biases = [], []
    for layer in reversed(range(len(seen))):
        weight, transposed, x = layers.weights[layer], layers.transposed[layer], seen[layer]
        if learning:
            of_weights.append(_of_weight(x, g, weight))
            of_biases.append(g.sum(0))
        if layer or of_x:
            g = torch.mm(g, weight) if g.shape[1] < products.NARROW else products.product(g, transposed)
        if layer:
            g = _rectified(g, x, 0.0, grad_input=g)
    return g, [*reversed(of_weights), *reversed(of_biases)]


def _of_weight(x: torch.Tensor, g: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``gᵀ x`` (O, I), in memory the way that the weight is, so that nothing has to be copied into place."""
    narrow = g.shape[1] < products.NARROW
    if weight.is_contiguous():
        return torch.mm(g.t(), x) if narrow else products.product(g.t(), x.t())
    return (torch.mm(x.t(), g) if narrow else products.product(x.t(), g.t())).t()


_rectified = torch.ops.aten.threshold_backward.grad_input

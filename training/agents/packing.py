"""Gradient steps and checkpoints of agents that are made of several modules and optimisers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from onestride.training.agents.state import load_optimiser_tensors, optimiser_tensors

Groups = Mapping[str, Mapping[str, torch.Tensor]]


def descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One step down ``loss``, with gradients for this optimiser's parameters only.

    So an actor's loss that runs through a critic does not pay for the critic's own gradients.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimiser.step()


@contextmanager
def held_still(*modules: nn.Module) -> Iterator[None]:
    """Within, what these modules compute has gradients with respect to its inputs, and none for their parameters."""
    learning = [one for module in modules for one in module.parameters() if one.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_()


def pack(
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    generator: torch.Generator | None = None,
) -> dict[str, dict[str, torch.Tensor]]:
    """Groups of tensors for a checkpoint: a module's under its name, an optimiser's under ``<name>_optimiser``."""
    groups = {name: dict(module.state_dict()) for name, module in modules.items()}
    groups |= {f"{name}_optimiser": optimiser_tensors(optimiser) for name, optimiser in optimisers.items()}
    return {**groups, "random": {"generator": generator.get_state()}} if generator else groups


def unpack(
    groups: Groups,
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    generator: torch.Generator | None = None,
) -> None:
    """Undo :func:`pack`.

    Raises:
        KeyError: A group is missing.
        RuntimeError: A group has other tensors.
    """
    for name, module in modules.items():
        module.load_state_dict(groups[name])
    for name, optimiser in optimisers.items():
        load_optimiser_tensors(optimiser, groups[f"{name}_optimiser"])
    if generator:
        generator.set_state(groups["random"]["generator"])

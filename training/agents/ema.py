"""Exponential moving average of a module's parameters."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class EMA(Generic[M]):
    """A slowly following copy of a module, the one that acts.

    The decay warms up as ``min(decay, (1 + n) / (10 + n))`` over the updates n = 0, 1, ..., so that the copy
    does not remember the random start.

    Attributes:
        module: The averaged copy; buffers are those of the moment of copying.
        updates: How many averages were taken.
    """

    def __init__(self, module: M, decay: float) -> None:
        """Start from a copy of ``module`` on its device."""
        self.module: M = copy.deepcopy(module).requires_grad_(False)
        self.updates = 0
        self._decay = decay
        self._averages: list[torch.Tensor] = list(self.module.parameters())
        self._sources: list[torch.Tensor] = list(module.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Move the copy toward the module's present parameters."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._sources, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

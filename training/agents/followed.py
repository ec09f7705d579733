"""A module and the slowly following copy of it that targets are computed with."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class Followed(nn.Module, Generic[M]):
    """``target <- target + τ (online - target)`` at each :meth:`follow`.

    Attributes:
        online: The module that learns.
        target: Its copy, without gradient.
    """

    online: M
    target: M

    def __init__(self, online: M) -> None:
        """Start with the copy equal."""
        super().__init__()
        self.online = online
        self.target = copy.deepcopy(online).requires_grad_(False)
        self._copies: list[torch.Tensor] = list(self.target.parameters())
        self._sources: list[torch.Tensor] = list(self.online.parameters())

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        """Move the copy by the share τ = ``rate`` of the way."""
        # Not in torch's list of public names, but one call for all parameters.
        lerp = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]
        lerp(self._copies, self._sources, rate)

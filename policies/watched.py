"""A policy with a learnt Lyapunov function beside it: the file then tells at each inference how far the task is.

Monitored, not proved: the function was learnt on data, and nobody has shown that it must decrease.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from onestride.policies.gaussian_export import Monitor
from onestride.policies.networks import MLP
from onestride.policies.normaliser import Affine


class LearntLyapunov(nn.Module):
    """``V(o) >= 0`` of an observation in dataset units, as the square of a network's output.

    Attributes:
        observation: From dataset units to what the network sees.
    """

    def __init__(self, observation: Affine, hidden: Sequence[int] = (64, 64)) -> None:
        """Build the network behind a normaliser."""
        super().__init__()
        self.observation = observation
        self.network = MLP(observation.dim, hidden, 1, activation=nn.Tanh)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """V of (B, To * Do) -> (B,)."""
        root: torch.Tensor = self.network(self.observation(observation))
        return root.square().squeeze(-1)


class Watched(nn.Module):
    """An exportable policy and a function of its observation, as one graph.

    Attributes:
        policy: What acts within the exportable.
        monitors: Those of the exportable, then the function.
    """

    def __init__(self, exportable: Any, function: LearntLyapunov, monitor: Monitor) -> None:
        """Join them; the function is copied.

        Raises:
            ValueError: The exportable has a monitor of that name already.
        """
        super().__init__()
        names = [one.name for one in getattr(exportable, "monitors", ())]
        if monitor.name in names:
            raise ValueError(f"expected another name than those of the policy's monitors, got {monitor.name}")
        self.exportable, self.function = exportable, copy.deepcopy(function).cpu().requires_grad_(False)
        self.monitors = (*getattr(exportable, "monitors", ()), monitor)
        self.eval()

    @property
    def policy(self) -> Any:
        """What acts."""
        return self.exportable.policy

    def forward(self, observation: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the exportable gives for (1, To * Do) and (N, h, Da), then V (1,)."""
        return *self.exportable(observation, noise), self.function(observation)

    def near_best(self, observation: torch.Tensor, noise: torch.Tensor, slack: float) -> tuple[torch.Tensor, ...]:
        """Likewise, with all chunks between which rounding may decide."""
        return *self.exportable.near_best(observation, noise, slack), self.function(observation)

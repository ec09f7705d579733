"""A Gaussian policy as a plain function of tensors, with a critic that watches it, as written to an ONNX file."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import nn

from onestride.policies.ensemble import Ensemble
from onestride.policies.gaussian import GaussianPolicy


class Monitor(NamedTuple):
    """A number that the exported file computes beside the chunk."""

    name: str
    """Of the graph's output."""
    meaning: str
    """In words."""
    threshold: float
    """Above it the policy no longer holds what it was trained to hold."""


class ExportableGaussian(nn.Module):
    """The mode of a Gaussian policy, whatever the noise, and the risk of taking it.

    Attributes:
        policy: A copy of the policy, on the CPU.
        constraint: A copy of the constraint critics; None where nothing is watched.
        monitors: What each further output means, in order.
        outputs: How many times the chunk is given.
    """

    def __init__(
        self,
        policy: GaussianPolicy[Any],
        outputs: int = 1,
        *,
        constraint: Ensemble | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        """Copy the policy and, where given, the constraint critics with their ``monitor``.

        Raises:
            ValueError: Critics without a monitor or the other way round.
        """
        super().__init__()
        if (constraint is None) != (monitor is None):
            raise ValueError("expected constraint critics and their monitor together")
        self.policy = copy.deepcopy(policy).cpu().requires_grad_(False)
        self.constraint = copy.deepcopy(constraint).cpu().requires_grad_(False) if constraint is not None else None
        self.monitors = () if monitor is None else (monitor,)
        self.outputs = outputs
        self.eval()

    def forward(self, observation: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The mode, and where it is watched the largest constraint value among the critics.

        Args:
            observation: (1, To * Do) float32, dataset units.
            noise: (1, h, Da) float32, without effect.

        Returns:
            ``outputs`` times the chunk (1, h, Da) in dataset units, then the risk (1,) if there is a monitor.
        """
        s = self.policy.condition(observation)
        chosen = self.policy.gaussian.mode(s)
        chunk = self.policy.action.inverse(chosen.reshape(noise.shape)) + 0.0 * noise
        if self.constraint is None:
            return (chunk,) * self.outputs
        risk = self.constraint(torch.cat([s, chosen], dim=-1)).amax(0).squeeze(-1)
        return *((chunk,) * self.outputs), risk

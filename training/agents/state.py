"""What an agent hands to a checkpoint: named groups of tensors, and plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class AgentState:
    """Everything an agent needs to go on exactly where it stopped.

    Attributes:
        tensors: Group -> name -> tensor; each group becomes one safetensors file.
        values: JSON-able values.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    values: Mapping[str, Any] = field(default_factory=dict)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimiser's state as flat tensors, ``<parameter index>.<name>``; empty before its first step.

    Learning rates and the like are not part of it: they come from the agent's config.
    """
    state = optimiser.state_dict()["state"]
    return {f"{index}.{name}": value for index, slot in state.items() for name, value in slot.items()}


def load_optimiser_tensors(optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Undo :func:`optimiser_tensors` on an optimiser over the same parameters."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value.clone()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})

"""A policy that learns: its parameters, their slow average that acts, and the optimiser with its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from onestride.training.agents.ema import EMA
from onestride.training.agents.settings import LearningRateDecay, learning_rate
from onestride.training.agents.state import load_optimiser_tensors, optimiser_tensors

P = TypeVar("P", bound=nn.Module)


class ActorSettings(Protocol):
    """The fields of an agent's config that this piece reads."""

    @property
    def lr(self) -> float:
        """Adam's learning rate at the start."""
        ...

    @property
    def lr_decay(self) -> LearningRateDecay:
        """How it falls over the steps."""
        ...

    @property
    def ema_decay(self) -> float:
        """Decay of the average; 0 = the policy itself acts."""
        ...


class Actor(Generic[P]):
    """A policy, its average, and Adam.

    Attributes:
        policy: The policy being trained.
        ema: Its average, which acts and is exported.
        optimiser: Over the policy's parameters.
        updates: Gradient steps taken.
    """

    def __init__(self, config: ActorSettings, policy: P, steps: int, name: str = "") -> None:
        """Begin with an average equal to ``policy``.

        Args:
            config: Rates.
            policy: On the device to train on.
            steps: Gradient steps the learning rate decays over.
            name: Begins the names of its groups in a checkpoint, where an agent has more than one.
        """
        self.policy = policy
        self.ema = EMA(policy, config.ema_decay)
        self.optimiser = torch.optim.Adam(policy.parameters(), lr=config.lr, fused=True)
        self.updates = 0
        self._config, self._steps, self._name = config, steps, name
        self._parameters = list(policy.parameters())

    @property
    def acting(self) -> P:
        """The average."""
        return self.ema.module

    def step(self, loss: torch.Tensor) -> None:
        """One gradient step, then the average follows."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self._config.lr, self._config.lr_decay, self.updates, self._steps)
        self.optimiser.zero_grad()
        # Only its own: a loss through a critic need not compute the gradients of the critic's weights.
        torch.autograd.backward(loss, inputs=self._parameters)
        self.optimiser.step()
        self.ema.update()
        self.updates += 1

    def tensors(self) -> dict[str, Mapping[str, torch.Tensor]]:
        """Everything needed to go on, as groups of a checkpoint."""
        return {
            f"{self._name}model": self.policy.state_dict(),
            f"{self._name}ema": self.ema.module.state_dict(),
            f"{self._name}optimiser": optimiser_tensors(self.optimiser),
        }

    def values(self) -> dict[str, Any]:
        """The rest of it, as JSON values."""
        return {f"{self._name}updates": self.updates, f"{self._name}ema_updates": self.ema.updates}

    def load(self, tensors: Mapping[str, Mapping[str, torch.Tensor]], values: Mapping[str, Any]) -> None:
        """Undo :meth:`tensors` and :meth:`values`, on any device."""
        self.policy.load_state_dict(tensors[f"{self._name}model"])
        self.ema.module.load_state_dict(tensors[f"{self._name}ema"])
        load_optimiser_tensors(self.optimiser, tensors[f"{self._name}optimiser"])
        self.updates, self.ema.updates = values[f"{self._name}updates"], values[f"{self._name}ema_updates"]

    def begin_from(self, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Take over another run's acting policy, normalisers included; optimiser and average begin anew.

        Raises:
            RuntimeError: Its sizes are others.
        """
        self.policy.load_state_dict(tensors[f"{self._name}ema"])
        self.ema.module.load_state_dict(tensors[f"{self._name}ema"])

"""Candidates that keep a claim about a known model: their actions are tried on the model before they are ranked.

What is decided here holds for the model's equations. What these leave out, the decision leaves out, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from onestride.policies.normaliser import Affine

Columns: TypeAlias = list[torch.Tensor]
#: From state and input, in columns, to the next state and by how much the claim is broken, 0 or less where it is kept.
Model: TypeAlias = Callable[[Columns, Columns], tuple[Columns, torch.Tensor]]

#: What a claim has to be kept by: the state is read back from normalised observations, which float32 rounds.
MARGIN = 1e-6


class ModelCertificate(nn.Module):
    """A claim about a model, along those actions of a chunk that are executed. In float64, as it was proved.

    Attributes:
        words: What is kept, for people.
        model: What the actions are tried on.
        observation: Normaliser of the flattened observation (To * Do,), which holds the state.
        action: Normaliser of one action (Da,), which is the model's input.
        state: Where the model's state (n,) stands in the observation.
        steps: Actions that it tries.
    """

    def __init__(
        self, words: str, model: Model, observation: Affine, action: Affine, state: list[int], steps: int
    ) -> None:
        """Join them.

        Raises:
            ValueError: Fewer than 1 step, or a state that is not part of the observation.
        """
        super().__init__()
        if steps < 1:
            raise ValueError(f"expected steps >= 1, got {steps}")
        if not state or min(state) < 0 or max(state) >= observation.dim:
            raise ValueError(f"expected a state within the {observation.dim} elements of the observation, got {state}")
        self.words, self.model, self.observation, self.action = words, model, observation, action
        self.state, self.steps = state, steps

    def forward(self, s: torch.Tensor, chunks: torch.Tensor) -> torch.Tensor:
        """By how much candidates break the claim: (B, S) and (B, N, h, Da) -> (B, N), 0 or less where kept.

        What is tried is what is sent: the actions in dataset units as float32 rounds them.
        """
        seen = self.observation.inverse(s.double())
        x = [seen[:, index, None] for index in self.state]
        actions = self.action.inverse(chunks.clamp(-1.0, 1.0)).double()
        broken = []
        for step in range(self.steps):
            x, now = self.model(x, list(actions[:, :, step].unbind(-1)))
            broken.append(now)
        return (torch.stack(broken).amax(0) + MARGIN).to(chunks.dtype)

"""The mean-flow policy in the dataset's own units: normalise, sample, scale back, clip to the action box."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from onestride.policies.mean_flow import MeanFlow
from onestride.policies.normaliser import Affine


class MeanFlowPolicy(nn.Module):
    """From an observation and noise to a chunk of actions, all in dataset units.

    Attributes:
        observation: Normaliser of the flattened (To * Do) observation.
        action: Normaliser of one (Da,) action to [-1, 1].
        flow: The average velocity, on normalised values.
        low: (Da,) lower corner of the action box, in dataset units.
        high: (Da,) upper corner of the action box, in dataset units.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, observation: Affine, action: Affine, *, horizon: int, hidden: Sequence[int]) -> None:
        """Build the policy around its normalisers.

        Args:
            observation: Normaliser over (To * Do,); its length is the network's observation input.
            action: Normaliser over (Da,) that takes the action box to [-1, 1].
            horizon: h, steps in a chunk.
            hidden: Widths of the hidden layers.
        """
        super().__init__()
        self.observation, self.action = observation, action
        self.flow = MeanFlow(observation.dim, horizon, action.dim, hidden)
        one = torch.ones(action.dim)
        corners = torch.stack([action.inverse(-one), action.inverse(one)])
        self.register_buffer("low", corners.amin(0))
        self.register_buffer("high", corners.amax(0))

    def act(self, observation: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Sample action chunks.

        Args:
            observation: (B, To * Do) in dataset units.
            noise: (B, h, Da) standard normal.
            nfe: Network evaluations per chunk.

        Returns:
            (B, h, Da) in dataset units, inside [low, high].
        """
        chunk = self.flow.sample(self.observation(observation), noise, nfe)
        return self.action.inverse(chunk).clamp(self.low, self.high)

    def loss(
        self,
        observations: torch.Tensor,
        actions: torch.Tensor,
        valid: torch.Tensor,
        *,
        ivc_weight: float = 1.0,
        weight_power: float = 0.5,
        one_step_share: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Imitation loss on dataset values.

        Args:
            observations: (B, To, Do) in dataset units.
            actions: (B, h, Da) in dataset units.
            valid: (B, h) 1 where the step exists.
            ivc_weight: λ of the instantaneous velocity constraint.
            weight_power: p of the adaptive weight.
            one_step_share: share of the mean-flow half trained at (t, r) = (1, 0), where one-step acting evaluates.
            generator: Source of noise and flow times.

        Returns:
            See :func:`onestride.policies.mean_flow.mean_flow_loss`.
        """
        s = self.observation(observations.flatten(1))
        return self.flow.loss(
            s,
            self.action(actions),
            valid,
            ivc_weight=ivc_weight,
            weight_power=weight_power,
            one_step_share=one_step_share,
            generator=generator,
        )

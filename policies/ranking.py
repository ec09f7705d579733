"""Ranking many candidates fast: low precision decides which one, the chosen one is drawn anew in full precision.

So a critic's target never carries a rounded action or value; rounding can only pick a candidate that is valued about
as much as the best.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn

from onestride.policies.policy import ChunkFlow
from onestride.policies.selection import BestOfN, draw_and_value, take


class Ranker:
    """Finds the best candidates of a :class:`~onestride.policies.selection.BestOfN`, without gradient.

    Attributes:
        dtype: In which candidates are drawn and valued to be ranked.
    """

    def __init__(self, ranked: BestOfN, dtype: torch.dtype) -> None:
        """Make copies in ``dtype``, which take over the present parameters at each call."""
        self.dtype = dtype
        self._ranked = ranked
        if dtype != torch.float32:
            flow = copy.deepcopy(cast(nn.Module, ranked.flow)).to(dtype)
            self._flow = cast(ChunkFlow, flow)
            self._critic = copy.deepcopy(ranked.critic).to(dtype)
            # Values far from zero may lie closer together than low precision can tell.
            self._critic.keep_output_in_full_precision()
            sources: list[torch.Tensor] = [*cast(nn.Module, ranked.flow).parameters(), *ranked.critic.parameters()]
            copies: list[torch.Tensor] = [*flow.parameters(), *self._critic.parameters()]
            self._sources, self._copies = sources, copies

    @torch.no_grad()
    def index(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """Which candidate (B,) is best; arguments as of :meth:`best`."""
        if self.dtype == torch.float32:
            return self._ranked.values(s, noise, nfe)[1].argmax(1)
        torch._foreach_copy_(self._copies, self._sources)  # pyright: ignore[reportPrivateImportUsage]
        low = s.to(self.dtype), noise.to(self.dtype)
        return draw_and_value(self._flow, self._critic, *low, nfe)[1].argmax(1)

    @torch.no_grad()
    def best(self, s: torch.Tensor, noise: torch.Tensor, nfe: int = 1) -> torch.Tensor:
        """The best candidates.

        Args:
            s: (B, S) observation.
            noise: (B * N, h, Da) standard normal, N rows for each observation.
            nfe: Network evaluations per chunk.

        Returns:
            (B, h, Da) normalised chunks in [-1, 1], in full precision.
        """
        if self._ranked.candidates == 1 or self.dtype == torch.float32:
            return self._ranked.best(s, noise, nfe)
        index = self.index(s, noise, nfe)
        chosen = take(noise.reshape(len(s), -1, *noise.shape[1:]), index)
        return self._ranked.policy.generate(s, chosen, nfe)

"""Multipliers at fixed states: drawn once, read at every log line, so that one sees whether they settle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from onestride.training.agents.multiplier import Constrained
from onestride.training.metrics import Table, read_metrics
from onestride.training.replay import Replay

Floats = NDArray[np.float64]

COUNT = 16
"""States that are watched."""
_OBSERVATIONS = "observations"


class Probes:
    """The states, and the table of their multipliers.

    Args:
        agent: Whose multipliers.
        table: ``multipliers.csv``, a column for each state.
        resumed_from: Step that the run goes on from; later lines are dropped.
        seed: Of the draw.
        device: Where agent and replay are.
        kept: What :meth:`tensors` gave to the checkpoint; empty where there was none.
    """

    def __init__(
        self,
        agent: Constrained,
        table: Path,
        resumed_from: int,
        *,
        seed: int,
        device: torch.device,
        kept: Mapping[str, torch.Tensor],
    ) -> None:
        self._agent, self._seed, self._device = agent, seed, device
        self._table = Table(table, resumed_from)
        self._observations = kept[_OBSERVATIONS].to(device) if kept else None

    def draw(self, replay: Replay) -> None:
        """Choose the states from what is there to learn from; those that were chosen once stay.

        The draw has a generator of its own: training goes the same way with probes and without.
        """
        if self._observations is None:
            starts = torch.randint(len(replay), (COUNT,), generator=torch.Generator().manual_seed(self._seed))
            self._observations = replay.at(starts.to(self._device))["observations"].flatten(1).clone()

    def write(self, step: int) -> None:
        """A line with λ at each state; none before the draw."""
        if self._observations is None:
            return
        found = self._agent.multipliers(self._observations).tolist()
        self._table.append({"step": float(step), **{f"probe {i}": value for i, value in enumerate(found)}})

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps; nothing before the draw."""
        return {} if self._observations is None else {_OBSERVATIONS: self._observations}


class Multipliers(NamedTuple):
    """What ``multipliers.csv`` holds."""

    steps: Floats
    """(N,)."""
    values: Floats
    """λ at each state (N, P)."""

    @property
    def oscillation(self) -> float:
        """How far multipliers swing: the mean of ``|Δ log(1 + λ)|`` from line to line, over the run's second half.

        The mean goes over lines, then over states. The logarithm makes a swing of a large multiplier count by its
        share, and 1 + λ that of one near 0 by its size. A steady drift counts as well; it is the first half that is
        left to it. NaN where the second half has fewer than two lines. Lines are ``log_every`` steps apart: compare
        runs with the same.
        """
        late = self.values[self.steps > self.steps[-1] / 2]
        if len(late) < 2:
            return math.nan
        return float(np.abs(np.diff(np.log1p(late), axis=0)).mean())


def read_multipliers(table: Path) -> Multipliers | None:
    """The lines of a ``multipliers.csv``; None where there are none."""
    rows = read_metrics(table)
    if not rows:
        return None
    names = [name for name in rows[0] if name != "step"]
    values = np.array([[row[name] for name in names] for row in rows])
    return Multipliers(np.array([row["step"] for row in rows]), values)

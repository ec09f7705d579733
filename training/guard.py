"""Losses that are not finite: noticed on the device, without waiting for it in every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Failure(NamedTuple):
    """The first update with a metric that is not finite.

    Attributes:
        step: When.
        metrics: The metrics that were not finite.
        starts: Steps of the data at which the batch's windows begin.
    """

    step: int
    metrics: dict[str, float]
    starts: list[int]

    def describe(self) -> str:
        """One line for the user."""
        values = ", ".join(f"{name} {value}" for name, value in self.metrics.items())
        first = ", ".join(str(start) for start in self.starts[:8])
        return f"step {self.step}: expected finite losses, got {values}, on the windows that start at {first}, …"


class FiniteGuard:
    """Keeps what belongs to the first update that went wrong, until it is asked."""

    def __init__(self) -> None:
        self._step: torch.Tensor | None = None
        self._names: tuple[str, ...] = ()

    def add(self, step: int, names: Sequence[str], values: torch.Tensor, starts: torch.Tensor) -> None:
        """Look at an update's metrics (M,) and its windows (B,); nothing is read from the device."""
        if self._step is None or self._names != tuple(names):
            self._names = tuple(names)
            self._step = torch.full((), -1, dtype=torch.int64, device=values.device)
            self._values, self._starts = values.clone(), starts.clone()
        fresh = ~values.isfinite().all() & (self._step < 0)
        self._step = torch.where(fresh, step, self._step)
        self._values = torch.where(fresh, values, self._values)
        self._starts = torch.where(fresh, starts, self._starts)

    def failure(self) -> Failure | None:
        """What went wrong first; None while nothing did."""
        step = -1 if self._step is None else int(self._step)
        if step < 0:
            return None
        wrong = {
            name: float(value) for name, value in zip(self._names, self._values, strict=True) if not value.isfinite()
        }
        return Failure(step, wrong, self._starts.tolist())

"""Where a constrained policy is at risk: multipliers and constraint over a slice of the observations, as a picture.

A saturated multiplier says that no action the policy knows meets the constraint there: the state is infeasible, as far
as is learnt. Outside the states that training visited the map shows what the networks extrapolate.

Reference: infeasible states by their multipliers, arXiv:2105.10682 (FAC).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from onestride.hardware.errors import OneStrideError
from onestride.training.agents.multiplier import Constrained, saturated

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Slice:
    """A plane through the observation space: two elements vary, the others are held.

    Attributes:
        at: Values of all elements (To * Do,), in dataset units; those on the axes do not matter.
        axes: The two elements that vary, across and up.
        low: Lower ends of both.
        high: Upper ends of both.
        points: Points along each axis.

    Raises:
        OneStrideError: The axes are not two different elements, or an interval is empty.
    """

    at: tuple[float, ...]
    axes: tuple[int, int]
    low: tuple[float, float]
    high: tuple[float, float]
    points: int = 101

    def __post_init__(self) -> None:
        """Refuse a slice that is no plane."""
        inside = all(0 <= axis < len(self.at) for axis in self.axes)
        if len(set(self.axes)) != 2 or not inside:
            raise OneStrideError(f"axes: expected two of the elements 0 to {len(self.at) - 1}, got {self.axes}")
        if self.points < 2 or not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise OneStrideError(f"expected low < high on 2 or more points, got {self.low}, {self.high}, {self.points}")

    @property
    def ticks(self) -> tuple[Floats, Floats]:
        """Points along both axes, each (points,)."""
        across, up = (
            np.linspace(low, high, self.points, dtype=np.float32) for low, high in zip(self.low, self.high, strict=True)
        )
        return across, up

    @property
    def observations(self) -> Floats:
        """All points, rows from low to high (points * points, To * Do)."""
        across, up = np.meshgrid(*self.ticks)
        grid = np.tile(np.asarray(self.at, np.float32), (across.size, 1))
        grid[:, self.axes[0]], grid[:, self.axes[1]] = across.ravel(), up.ravel()
        return grid


class RiskMap(NamedTuple):
    """What an agent says about a slice; each array (points, points), rows up, columns across."""

    slice: Slice
    multipliers: Floats
    """λ(s)."""
    excess: Floats
    """``g(s)`` of the policy's mode: positive where the limit is broken."""
    infeasible: NDArray[np.bool_]
    """Where the multiplier is saturated."""


def risk_map(agent: Constrained, slice_: Slice, device: torch.device | str = "cpu") -> RiskMap:
    """Ask a constrained agent about every point of a slice."""
    observations = torch.from_numpy(slice_.observations).to(device)
    shape = (slice_.points, slice_.points)
    multipliers, excess = agent.multipliers(observations).cpu(), agent.excess(observations).cpu()
    mask = saturated(multipliers, agent.max_multiplier)
    found = (values.numpy().reshape(shape) for values in (multipliers, excess, mask))
    return RiskMap(slice_, *found)


def plot_risk_map(found: RiskMap, path: Path, names: tuple[str, str] = ("", "")) -> None:
    """Write a PNG: multipliers as colour, infeasible states hatched, the limit as a line.

    Args:
        found: The map.
        path: Where to.
        names: Of the elements across and up, with their units.
    """
    from matplotlib.figure import Figure

    across, up = found.slice.ticks
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    coloured = axes.pcolormesh(across, up, found.multipliers, shading="nearest", cmap="viridis")
    figure.colorbar(coloured, label="multiplier")
    if found.infeasible.any():
        levels = [0.5, 1.5]
        axes.contourf(across, up, found.infeasible, levels=levels, colors="none", hatches=["//"])
        axes.contour(across, up, found.infeasible, levels=levels[:1], colors="white", linewidths=1)
    if found.excess.min() < 0 < found.excess.max():
        axes.contour(across, up, found.excess, levels=[0.0], colors="red", linewidths=1)
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_title(_legend(found), fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _legend(found: RiskMap) -> str:
    """What is to be seen, and what is not."""
    infeasible = "hatched: infeasible" if found.infeasible.any() else "no state infeasible"
    broken = found.excess > 0
    limit = "red: the limit" if broken.any() else "limit kept everywhere"
    return f"{infeasible}, {'limit broken everywhere' if broken.all() else limit}"

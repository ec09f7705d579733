"""``onestride risk-map``: where a constrained policy is at risk, as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from onestride.training.commands import say

if TYPE_CHECKING:
    from onestride.training.agents.multiplier import Constrained
    from onestride.training.risk_map import RiskMap
    from onestride.training.risk_slices import Elements


@dataclass
class RiskPicture:
    """Multipliers, limit and infeasible states of a constrained agent over two elements of the observation.

    The others are held at their median over the run's own life. For instance
    `onestride risk-map runs/cheetah --x observation/8 --y 0 -o risk.png`.
    """

    run: tyro.conf.Positional[Path]
    """Training run of an agent with a constraint."""
    x: str | None = None
    """Element across, by name or number; default one of the two that move the constraint value most."""
    y: str | None = None
    """Element up; likewise."""
    x_range: tuple[float, float] | None = None
    """Ends of the axis across; default the 1 % and the 99 % quantile of what was lived through."""
    y_range: tuple[float, float] | None = None
    """Ends of the axis up; likewise."""
    points: int = 101
    """Points along each axis."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("risk.png")
    """PNG to write."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Draw the map and say what is on it."""
        from onestride.hardware.errors import OneStrideError
        from onestride.training.checkpoint import load_run
        from onestride.training.risk_map import plot_risk_map, risk_map
        from onestride.training.risk_slices import constrained, elements

        run = load_run(self.run)
        agent, seen = constrained(run), elements(run)
        x, y = self._axes(agent, seen)
        found = risk_map(agent, seen.plane(x, y, self.x_range, self.y_range, self.points))
        try:
            plot_risk_map(found, self.output, (seen.label(x), seen.label(y)))
        except OSError as error:
            raise OneStrideError(f"{self.output}: expected to write it, got: {error}") from error
        axes = {"x": seen.label(x), "y": seen.label(y)}
        say({"picture": str(self.output), "step": run.step, **axes, **_figures(found)}, "risk map", self.json)
        return 0

    def _axes(self, agent: Constrained, seen: Elements) -> tuple[int, int]:
        """The elements asked for, and for those that are not the most telling of the others."""
        from onestride.hardware.errors import OneStrideError
        from onestride.training.risk_slices import most_telling

        if len(seen.names) < 2:
            raise OneStrideError(f"{self.run}: expected observations of two or more elements, got {seen.names[0]}")
        asked = [None if name is None else seen.index(name) for name in (self.x, self.y)]
        others = iter([index for index in most_telling(agent, seen) if index not in asked])
        x, y = (next(others) if index is None else index for index in asked)
        return x, y


def _figures(found: RiskMap) -> dict[str, Any]:
    """The map in numbers."""
    low, high = found.slice.low, found.slice.high
    return {
        "x_range": [low[0], high[0]],
        "y_range": [low[1], high[1]],
        "least_multiplier": float(found.multipliers.min()),
        "largest_multiplier": float(found.multipliers.max()),
        "over_limit": float((found.excess > 0).mean()),
        "infeasible": float(found.infeasible.mean()),
    }

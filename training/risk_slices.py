"""Which plane of the observations a risk map shows: named elements, ranges that were lived through, the rest held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onestride.deploy.contract import Contract, parse_contract
from onestride.hardware.errors import OneStrideError
from onestride.training.agents import catalogue
from onestride.training.agents.multiplier import Constrained
from onestride.training.checkpoint import Run, RunDirectory
from onestride.training.risk_map import Slice
from onestride.training.transitions import TransitionFile

Floats = NDArray[np.float32]
Range = tuple[float, float]

NEWEST = 20_000
"""Steps of the run's own life that ranges and held values are taken from."""
QUANTILES = (0.01, 0.5, 0.99)
"""Of what was lived through: lower end, value held, upper end."""
_SCANNED = 33
"""Points along each element when the axes are chosen."""


@dataclass(frozen=True)
class Elements:
    """The elements of one observation.

    Attributes:
        names: Of each (Do,).
        units: Likewise.
        low: Lower end of what was seen (Do,), in dataset units.
        held: A typical value (Do,).
        high: Upper end (Do,).
        history: Observations To that the policy sees.
    """

    names: Sequence[str]
    units: Sequence[str]
    low: Floats
    held: Floats
    high: Floats
    history: int

    def index(self, name: str) -> int:
        """The element of a name, or of a number.

        Raises:
            OneStrideError: There is none; lists those there are.
        """
        if name in self.names:
            return self.names.index(name)
        if name.isdecimal() and int(name) < len(self.names):
            return int(name)
        listed = ", ".join(f"{number} {one}" for number, one in enumerate(self.names))
        raise OneStrideError(f"expected an element of the observation, got {name!r}, available: {listed}")

    def label(self, index: int) -> str:
        """Name and unit."""
        return f"{self.names[index]} [{self.units[index]}]" if self.units[index] else self.names[index]

    def place(self, index: int) -> int:
        """Of an element of the newest observation in the flattened (To * Do)."""
        return (self.history - 1) * len(self.names) + index

    def plane(self, x: int, y: int, x_range: Range | None, y_range: Range | None, points: int) -> Slice:
        """The slice along two elements of the newest observation; earlier observations are held."""
        low, high = zip(
            x_range or (float(self.low[x]), float(self.high[x])),
            y_range or (float(self.low[y]), float(self.high[y])),
            strict=True,
        )
        at = tuple(np.tile(self.held, self.history).tolist())
        return Slice(at, (self.place(x), self.place(y)), low, high, points)


def constrained(run: Run) -> Constrained:
    """The agent of a run.

    Raises:
        OneStrideError: It has no constraint; lists the agents that have.
    """
    if isinstance(run.agent, Constrained):
        return run.agent
    known = [name for name in catalogue.AGENTS if hasattr(catalogue.find(name).agent, "max_multiplier")]
    raise OneStrideError(
        f"{run.path}: expected an agent with a constraint, got {run.config.agent}, available: {', '.join(known)}"
    )


def elements(run: Run) -> Elements:
    """What a run's observations are made of: by what it lived through, or else by its contract.

    Raises:
        OneStrideError: The contract or the record of its life is damaged.
    """
    contract: Contract = parse_contract(run.contract, f"{run.path}: the contract's draft")
    terms, history = contract.dataset, contract.history
    dims = len(terms.observation_names), len(terms.action_names)
    lived = TransitionFile(RunDirectory(run.path).transitions, *dims).newest(NEWEST)["observation"]
    if len(lived):
        low, held, high = np.quantile(lived, QUANTILES, axis=0).astype(np.float32)
    else:
        low, high = np.array(terms.minimum, np.float32), np.array(terms.maximum, np.float32)
        held = ((low + high) / 2).astype(np.float32)
    return Elements(terms.observation_names, terms.observation_units, low, held, high, history)


def most_telling(agent: Constrained, found: Elements) -> list[int]:
    """The elements, first those that move the constraint value most from their lower to their upper end."""
    spreads = []
    for index, (low, high) in enumerate(zip(found.low, found.high, strict=True)):
        line = np.tile(np.tile(found.held, found.history), (_SCANNED, 1))
        line[:, found.place(index)] = np.linspace(low, high, _SCANNED)
        values = agent.excess(torch.from_numpy(line))
        spreads.append(float(values.max() - values.min()))
    return [int(index) for index in np.argsort(spreads)[::-1]]

"""Claim: none about the robot. Monitored: a learnt Lyapunov function of the observation does not grow for long.

The policy file computes the function beside its chunks. It was learnt on data, nothing is proved of it: that it
decreases is a sign that the task makes progress, that it grows for several inferences in a row is a sign that it does
not, and then the declared reaction follows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onestride.deploy.contract import Contract
from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.errors import unknown
from onestride.hardware.safety.certificates import DecreaseFilter
from onestride.hardware.state import Array


def growing(values: Array, above: float) -> Array:
    """How many of the newest steps of sequences (..., T) grew without a break, not counting those below `above`."""
    grew = ~(np.diff(values, axis=-1) <= 0.0) & ~(values[..., 1:] <= above)
    return np.asarray(np.cumprod(grew[..., ::-1], axis=-1).sum(axis=-1))


class Decrease:
    """Counts inferences over which the function grew; a value that is no number counts as growth."""

    name = "decrease"
    claim = "a learnt Lyapunov function does not grow for long (monitored, not proved)"

    def __init__(self, terms: DecreaseFilter, contract: Contract) -> None:
        """Find the monitor in the contract.

        Raises:
            OneStrideError: the policy computes no such function.
        """
        names = tuple(monitor.name for monitor in contract.policy.monitors)
        if terms.monitor not in names:
            raise unknown("monitor of the policy", terms.monitor, names)
        self._terms = terms
        self.reset()

    def reset(self) -> None:
        """Forget, as at an activation."""
        self._values: list[float] = []
        self._seen = self._steps = self._fell = 0

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Pass `nominal` (n,) on, with a warning or, where declared, infeasible."""
        if state.inferences > self._seen:
            self._note(state)
        grown = int(growing(np.array(self._values), self._terms.above)) if len(self._values) > 1 else 0
        if grown < self._terms.grows_for:
            return Certified(nominal, readings=self.statistics())
        if self._terms.reaction == "warn":
            return Certified(nominal, warnings=("growing",), readings=self.statistics())
        reason = f"{self._terms.monitor} grew for {grown} inferences in a row: {self._values[-1]:.4g}"
        return Certified(nominal, feasible=False, reason=reason)

    def _note(self, state: ControlState) -> None:
        self._seen = state.inferences
        value = state.monitored.get(self._terms.monitor, float("nan"))
        if self._values:
            self._steps += 1
            self._fell += value <= self._values[-1]
        self._values = [*self._values, value][-self._terms.grows_for - 1 :]

    def statistics(self) -> Mapping[str, float]:
        """The newest value, and the share of inferences at which it did not grow."""
        if not self._values:
            return {}
        rate = self._fell / self._steps if self._steps else 1.0
        return {f"{self.name}.value": self._values[-1], f"{self.name}.rate": rate}

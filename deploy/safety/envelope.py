"""Claim: the policy is asked only about observations like those it has learnt from, element by element."""

from __future__ import annotations

import numpy as np

from onestride.deploy.contract import Contract
from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.safety.guards import EnvelopeGuard
from onestride.hardware.state import Array


def beyond(observation: Array, low: Array, high: Array) -> Array:
    """How far each element of observations (..., Do) is outside its range (Do,); negative inside."""
    return np.asarray(np.maximum(low - observation, observation - high))


class Envelope:
    """Compares the newest observation step with the ranges that the contract has of its dataset.

    It looks in those ticks in which a policy step begins. A person's demonstration has learnt from nothing, and its
    contract has no ranges to leave.
    """

    name = "envelope"

    def __init__(self, terms: EnvelopeGuard, contract: Contract) -> None:
        low, high = np.array(contract.dataset.minimum), np.array(contract.dataset.maximum)
        room = np.maximum(terms.margin * (high - low), terms.least)
        self._low, self._high = low - room, high + room
        self._names, self._stops = contract.observation_names, terms.reaction == "stop"
        self._newest = contract.newest_step

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Pass `nominal` (n,) on, with a warning or, where declared, infeasible."""
        if state.observation is None:
            return Certified(nominal)
        newest = state.observation[self._newest]
        outside = beyond(newest, self._low, self._high)
        if (outside <= 0).all():
            return Certified(nominal)
        if self._stops:
            return Certified(nominal, feasible=False, reason=self._why(outside, newest))
        return Certified(nominal, warnings=("outside",))

    def _why(self, outside: Array, observation: Array) -> str:
        worst = int(np.argmax(np.nan_to_num(outside / (self._high - self._low + 1e-12), nan=np.inf)))
        return (
            f"observation {self._names[worst]} left the training data: expected {self._low[worst]:.4g} to "
            f"{self._high[worst]:.4g}, got {observation[worst]:.4g}"
        )

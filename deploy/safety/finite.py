"""Claim: no command of the wrong shape, and none that is not a number, is ever sent."""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.state import Array


class Finite:
    """Refuses actions and measurements that are not finite or not of the robot's shape."""

    name = "finite"
    claim = "every command and measurement is finite and of the robot's shape"

    def __init__(self, joints: int) -> None:
        self._joints = joints

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Pass `nominal` (n,) on, or declare it infeasible."""
        wrong = ""
        if not (state.is_sound and len(state.last_sent) == self._joints):
            measured = state.measurement
            wrong = self._wrong("measured position", measured.position) or self._wrong(
                "measured velocity", measured.velocity
            )
        wrong = wrong or self._wrong("action", nominal)
        return Certified(nominal, feasible=False, reason=wrong) if wrong else Certified(nominal)

    def _wrong(self, what: str, values: Array) -> str:
        if np.shape(values) != (self._joints,):
            return f"{what}: expected {self._joints} values, got shape {np.shape(values)}"
        finite = np.isfinite(values)
        if np.count_nonzero(finite) < self._joints:
            return f"{what}: not finite at joint {int(np.argmin(finite))}"
        return ""

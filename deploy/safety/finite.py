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
        for what, values in (
            ("measured position", state.measurement.position),
            ("measured velocity", state.measurement.velocity),
            ("action", nominal),
        ):
            if np.shape(values) != (self._joints,):
                return _refused(nominal, f"{what}: expected {self._joints} values, got shape {np.shape(values)}")
            if np.count_nonzero(np.isfinite(values)) < self._joints:
                return _refused(nominal, f"{what}: not finite at joint {int(np.argmin(np.isfinite(values)))}")
        return Certified(nominal)


def _refused(nominal: Array, reason: str) -> Certified:
    return Certified(nominal, feasible=False, reason=reason)

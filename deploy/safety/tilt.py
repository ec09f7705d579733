"""Claim: no robot on legs is driven on that leans further than its description allows; it is damped instead."""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array, Inertial

#: By how much an orientation's length may differ from 1: noise, not another unit or an empty message.
UNIT = 0.05


def tilt_of(imu: Inertial) -> float:
    """The angle between the base's z axis and up [rad]; not a number where the sensor says nothing sound."""
    q = imu.orientation
    readings = (imu.orientation, imu.angular_velocity, imu.acceleration)
    sound = np.shape(q) == (4,) and all(np.isfinite(reading).all() for reading in readings)
    if not sound or abs(float(np.linalg.norm(q)) - 1.0) > UNIT:
        return float("nan")
    _, x, y, _ = q / np.linalg.norm(q)
    return float(np.arccos(np.clip(1.0 - 2.0 * (x * x + y * y), -1.0, 1.0)))


class Tilt:
    """Refuses when the base leans too far.

    Raises:
        OneStrideError: the robot has no floating base.
    """

    name = "tilt"
    claim = "the base leans no further than declared while a policy drives it"

    def __init__(self, robot: RobotDescription) -> None:
        if robot.base is None:
            raise OneStrideError(f"safety: tilt expects a robot with a floating base, got {robot.id}")
        self._limit = robot.base.tilt

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Pass `nominal` (n,) on, or declare it infeasible."""
        imu = state.measurement.imu
        if imu is None:
            return Certified(nominal, feasible=False, reason="tilt: the inertial sensor was not heard")
        tilt = tilt_of(imu)
        if not tilt <= self._limit:
            reason = f"tilt: expected at most {self._limit:g} rad from upright, got {tilt:.2f} rad"
            return Certified(nominal, feasible=False, reason=reason)
        return Certified(nominal, margin=self._limit - tilt)

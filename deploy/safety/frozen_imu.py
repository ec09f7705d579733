"""Claim: no robot on legs is driven on an inertial sensor that says the same for ever; it is damped instead."""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.samples import Lasting, MotionGuard
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.guards import FrozenImuGuard
from onestride.hardware.state import Array, Inertial


class FrozenImu(MotionGuard):
    """Refuses when turning and specific force are the very same numbers for too long while samples and commands go on.

    A sensor trembles in its last digits even where nothing moves. One without noise, as a simulation may have it, does
    not: so it may say the same for as long as the robot is commanded to rest.

    Raises:
        OneStrideError: the robot has no floating base.
    """

    name, stream = "frozen_imu", "imu"

    def __init__(self, terms: FrozenImuGuard, robot: RobotDescription) -> None:
        if robot.base is None:
            raise OneStrideError(f"safety: frozen_imu expects a robot with a floating base, got {robot.id}")
        super().__init__(robot)
        self._window, self._moved = terms.window, terms.moved

    def _begin(self, state: ControlState, received: float) -> None:
        del received
        self._reading, self._sent = _reading(state.measurement.imu), state.last_sent
        self._far, self._lasting = 0.0, Lasting(1)

    def _judge(self, state: ControlState, received: float, elapsed: float) -> str:
        del elapsed
        if not np.array_equal(_reading(state.measurement.imu), self._reading):
            self._begin(state, received)
            return ""
        self._far = max(self._far, float(np.abs(state.last_sent - self._sent).max()))
        (lasted,) = self._lasting.add(np.array([self._far > self._moved]), received)
        if lasted <= self._window:
            return ""
        return f"the inertial sensor is frozen: commands have moved, its readings have not in {self._window} s"


def _reading(imu: Inertial | None) -> Array:
    """Turning and specific force (6,); no number, and so never the same, where there is no sensor."""
    return np.full(6, np.nan) if imu is None else np.concatenate((imu.angular_velocity, imu.acceleration))

"""Claim: no robot on legs is driven on an inertial sensor that says the same for ever; it is damped instead."""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.samples import Lasting, MotionGuard
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.guards import FrozenImuGuard
from onestride.hardware.state import Array, Inertial

#: What the sensor reports. Each is watched by itself: a driver may go on with one and have lost another.
PARTS = ("orientation", "angular velocity", "acceleration")


class FrozenImu(MotionGuard):
    """Refuses when a part of the reading is the very same number for too long while samples and commands go on.

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
        self._parts = _parts(state.measurement.imu)
        self._sent = np.tile(state.last_sent, (len(PARTS), 1))  # in force when each part last changed
        self._far, self._lasting = np.zeros(len(PARTS)), Lasting(len(PARTS))

    def _judge(self, state: ControlState, received: float, elapsed: float) -> str:
        del elapsed
        parts, sent = _parts(state.measurement.imu), state.last_sent
        same = np.array([np.array_equal(now, before) for now, before in zip(parts, self._parts, strict=True)])
        self._parts = parts
        self._sent = np.where(same[:, None], self._sent, sent)
        self._far = np.where(same, np.maximum(self._far, np.abs(sent - self._sent).max(axis=1)), 0.0)
        frozen = self._lasting.add(self._far > self._moved, received) > self._window
        if not frozen.any():
            return ""
        names = [name for name, one in zip(PARTS, frozen, strict=True) if one]
        which = "readings have" if frozen.all() else f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'}"
        return f"the inertial sensor is frozen: commands have moved, its {which} not in {self._window} s"


def _parts(imu: Inertial | None) -> tuple[Array, Array, Array]:
    """The reading by its parts; no numbers, and so never the same, where there is no sensor."""
    if imu is None:
        nothing = np.full(1, np.nan)
        return nothing, nothing, nothing
    return imu.orientation, imu.angular_velocity, imu.acceleration

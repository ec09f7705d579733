"""What every safe stop must be: seen in time, begun at once, ended as declared, and latched."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from controller_drive import Always, Drive, unspoilt

from onestride.deploy.controller import Mode
from onestride.deploy.runtime import Prediction
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError


class After(Always):
    """Answers well at first, and otherwise from a given request on."""

    def __init__(self, requests: int, then: Callable[[int], Prediction | None]) -> None:
        super().__init__()
        self.good_requests, self._then = requests, then

    def answer(self, at: int) -> Prediction | None:
        return super().answer(at) if self.requests <= self.good_requests else self._then(at)


def assert_safe_stop(
    drive: Drive, start: np.ndarray, reason: str, first: int, last: int, *, moving: bool = True
) -> None:
    """The fault is seen in time; the stop begins in that tick, ends as declared, and stays until rearmed."""
    robot, period = drive.controller.robot, drive.controller.period
    seen = [tick.mode for tick in drive.ticks].index(Mode.FAULT)
    assert first <= seen <= last
    assert re.search(reason, drive.ticks[seen].reason), drive.ticks[seen].reason
    assert drive.ticks[seen].command is not None, "the stop's first command goes out in the tick that sees the fault"
    velocity = np.diff(drive.commands, axis=0)[:, :6] / period
    assert moving == (np.abs(velocity[seen - 2]).max() > 0.1), "unless it was moving, the stop shows little"
    assert_gentle(np.diff(velocity[seen - 3 :], axis=0) / period, robot, period)
    stopping = np.flatnonzero(np.any(velocity[seen - 1 :] != 0, axis=1))
    assert (stopping.max(initial=-1) + 1) * period <= robot.safe_stop.completes_within
    lower, upper = robot.position_limits
    assert np.all((drive.commands >= lower) & (drive.commands <= upper))
    assert drive.controller.at_rest
    assert_latched(drive, start)


def assert_gentle(acceleration: np.ndarray, robot: RobotDescription, period: float) -> None:
    """A stop brakes as declared, as soon as the jerk limits let it leave the acceleration (T, 6) that it began with."""
    jerk = robot.jerk_limits[:6]
    begun, ticks = np.abs(acceleration[0]), np.arange(len(acceleration))[1:, None]
    left = np.where(np.isfinite(jerk), begun - np.nan_to_num(jerk, posinf=0.0) * period * ticks, 0.0)
    assert np.all(np.abs(acceleration[1:]) <= np.maximum(robot.safe_stop.deceleration, left) + 1e-6)
    assert np.all(np.abs(np.diff(acceleration, axis=0)) <= jerk * period + 1e-6)


def assert_latched(drive: Drive, start: np.ndarray) -> None:
    """Good measurements do not clear a fault, and nothing starts before it is rearmed."""
    reason, drive.spoil = drive.controller.reason, unspoilt
    (tick,) = drive.run(1)
    assert (tick.mode, tick.reason) == (Mode.FAULT, reason)
    np.testing.assert_array_equal(drive.commands[-1], drive.commands[-2])
    with pytest.raises(OneStrideError, match=r"a fault is latched: .*; rearm first"):
        drive.activate(start)
    drive.controller.deactivate()
    assert drive.controller.mode is Mode.FAULT
    drive.controller.rearm()
    assert drive.controller.mode is Mode.IDLE
    assert drive.run(1)[0].command is None
    drive.activate(start)
    assert drive.run(1)[0].mode is Mode.ACTIVE

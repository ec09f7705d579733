"""Claim: no joint is driven that is measured to move, or to have moved, faster than it may."""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.samples import MotionGuard, worst
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.safety.guards import OverspeedGuard, RateGuard


class Rate(MotionGuard):
    """Refuses a joint's position that its largest speed cannot have taken it to since the last sample."""

    name = "rate"

    def __init__(self, terms: RateGuard, robot: RobotDescription) -> None:
        super().__init__(robot)
        self._jitter = terms.jitter

    def _begin(self, state: ControlState, received: float) -> None:
        del received
        self._position = state.measurement.position

    def _judge(self, state: ControlState, received: float, elapsed: float) -> str:
        del received
        position, before = state.measurement.position, self._position
        self._position = position
        jump = np.abs(position - before)
        joint = worst(jump - self._fastest * (elapsed + self._jitter))
        if joint is None:
            return ""
        return f"{self._names[joint]} jumped by {jump[joint]:.3f} rad in {elapsed:.3f} s, faster than it may move"


class Overspeed(MotionGuard):
    """Refuses a joint's measured velocity above its largest speed."""

    name = "overspeed"

    def __init__(self, terms: OverspeedGuard, robot: RobotDescription) -> None:
        super().__init__(robot)
        self._bound = self._fastest * (1.0 + terms.margin)

    def _begin(self, state: ControlState, received: float) -> None:
        self._reason = self._judge(state, received, 0.0)

    def _judge(self, state: ControlState, received: float, elapsed: float) -> str:
        del received, elapsed
        speed = np.abs(state.measurement.velocity)
        joint = worst(speed - self._bound)
        if joint is None:
            return ""
        most = self._bound[joint]
        return f"{self._names[joint]} moves at {speed[joint]:.3f} rad/s, expected at most {most:.3f} rad/s"

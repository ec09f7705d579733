"""Claim: every joint is where its drive should have taken it, up to an error that lasts no longer than declared.

A drive `effort = stiffness (sent - q) - damping q'` follows its command as a first-order lag of `damping / stiffness`:
the measured position is compared with the commands so delayed, so that a slow drive is no error and a blocked,
switched off or collided one is.
"""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.samples import Lasting, MotionGuard, worst
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.safety.guards import TrackingGuard
from onestride.hardware.state import Array


def lagged(expected: Array, sent: Array, elapsed: float, lag: Array) -> Array:
    """Where a first-order lag (n,) [s] goes from `expected` (..., n) in `elapsed` [s], with `sent` held."""
    return np.asarray(sent + (expected - sent) * np.exp(-elapsed / lag))


class Tracking(MotionGuard):
    """Refuses when a joint is further away than declared for longer than declared."""

    name = "tracking"

    def __init__(self, terms: TrackingGuard, robot: RobotDescription) -> None:
        super().__init__(robot)
        self._error, self._within = self._of_watched(terms.error), terms.within
        own = np.array([joint.damping / joint.stiffness for joint in robot.joints])
        self._lag = own if terms.lag is None else np.full(len(robot.joints), terms.lag)

    def _begin(self, state: ControlState, received: float) -> None:
        del received
        self._expected = state.measurement.position
        self._lasting = Lasting(len(self._names))

    def _judge(self, state: ControlState, received: float, elapsed: float) -> str:
        self._expected = lagged(self._expected, state.last_sent, elapsed, self._lag)
        error = np.abs(state.measurement.position - self._expected)
        excess = error - self._error
        long = self._lasting.add(~(excess <= 0), received) > self._within  # not-a-number is no small error
        joint = worst(np.where(long, excess, -np.inf))
        if joint is None:
            return ""
        bound = f"expected within {self._error[joint]} rad, or for {self._within} s at most"
        return f"{self._names[joint]} is {error[joint]:.3f} rad from where its drive should have it, {bound}"

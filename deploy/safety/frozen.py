"""Claim: no joint is driven on a position that no longer changes while its command does."""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.samples import Lasting, MotionGuard, worst
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.safety.guards import FrozenGuard


class Frozen(MotionGuard):
    """Refuses when a joint's measured position is the very same number for too long while its command has moved.

    A robot that holds still is not frozen, however long its encoders say the same.
    """

    name = "frozen"

    def __init__(self, terms: FrozenGuard, robot: RobotDescription) -> None:
        super().__init__(robot)
        self._window, self._moved = terms.window, self._of_watched(terms.moved)

    def _begin(self, state: ControlState, received: float) -> None:
        del received
        self._position, self._sent = state.measurement.position, state.last_sent
        self._far = np.zeros(len(self._names))
        self._lasting = Lasting(len(self._names))

    def _judge(self, state: ControlState, received: float, elapsed: float) -> str:
        del elapsed
        position, sent = state.measurement.position, state.last_sent
        still = position == self._position
        if not still.any():
            self._begin(state, received)
            return ""
        self._position = position
        self._sent = np.where(still, self._sent, sent)  # the command in force when the position last changed
        self._far = np.where(still, np.maximum(self._far, np.abs(sent - self._sent)), 0.0)
        moved = self._far - self._moved
        long = self._lasting.add(moved > 0, received) > self._window
        pulled = np.abs(sent - position) - self._moved  # a command that has come to where the joint is moves nothing
        joint = worst(np.where(long, np.minimum(moved, pulled), -np.inf))
        if joint is None:
            return ""
        return f"{self._names[joint]} is frozen: its command has moved, its position has not in {self._window} s"

"""What the guards of measured motion share: a sample is judged once, and the verdict stands until the next.

So neither a recheck nor a tick without a new sample moves a guard's memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array


class MotionGuard(ABC):
    """Judges new samples of the joint state, or of another `stream`.

    Expects `finite` before it in the chain. Watches the joints that declare a largest speed: those whose drive limits
    its own, as grippers' do, stop at whatever they hold.
    """

    name: str
    stream = "joints"

    def __init__(self, robot: RobotDescription) -> None:
        self._names = robot.joint_names
        self._fastest = robot.velocity_limits
        self.reset()

    def reset(self) -> None:
        """Forget all samples, as at an activation."""
        self._received: float | None = None
        self._reason = ""

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Pass `nominal` (n,) on, or declare it infeasible."""
        received, before = state.measurement.received.get(self.stream, state.now), self._received
        if before is None:
            self._begin(state, received)
            self._received = received
        elif received > before:
            self._reason = self._judge(state, received, received - before)
            self._received = received
        return Certified(nominal, feasible=not self._reason, reason=self._reason)

    @abstractmethod
    def _begin(self, state: ControlState, received: float) -> None:
        """Take the first sample, received at this time [s]."""

    @abstractmethod
    def _judge(self, state: ControlState, received: float, elapsed: float) -> str:
        """Take a newer sample, `elapsed` after the last [s]; why it is refused, empty if it is not."""

    def _of_watched(self, bound: float) -> Array:
        """A bound for each joint (n,); infinite for those that are not watched."""
        return np.where(np.isfinite(self._fastest), bound, np.inf)


def worst(excess: Array) -> int | None:
    """The joint of the largest excess (n,) over its bound; None where none is above zero. Not-a-number is above."""
    at = int(excess.argmax())  # finds not-a-number first
    return None if excess[at] <= 0 else at


class Lasting:
    """How long something has held of each joint, counted from the first sample at which it did.

    So a stream that was silent does not add its silence.
    """

    def __init__(self, joints: int) -> None:
        self._held = np.zeros(joints, dtype=bool)
        self._since = np.zeros(joints)

    def add(self, holds: NDArray[np.bool_], received: float) -> Array:
        """Take a sample received at this time [s]; how long it has held (n,) [s]."""
        self._since = np.where(holds & self._held, self._since, received)
        self._held = holds
        return received - self._since


class Window:
    """Rows of the last `span` seconds, to compare what is now with what was then."""

    def __init__(self, span: float) -> None:
        self._span = span
        self._rows: deque[tuple[float, Array]] = deque()

    def push(self, time: float, row: Array) -> Array:
        """Add a row; the newest that is `span` old, or the oldest there is."""
        rows = self._rows
        rows.append((time, row))
        while len(rows) > 1 and rows[1][0] <= time - self._span:
            rows.popleft()
        return rows[0][1]

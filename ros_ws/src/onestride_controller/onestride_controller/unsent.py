"""What a dry run would have sent. There is no publisher behind it."""

from __future__ import annotations

from typing import Any

import numpy as np

from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array


class Unsent:
    """Takes commands in place of `commands.Commands`, and keeps what somebody wants to know of them.

    Attributes:
        count: commands taken.
    """

    def __init__(self, robot: RobotDescription) -> None:
        self._names, self.count = robot.joint_names, 0
        self._first: Array | None = None
        self._last: Array | None = None
        self._low, self._high = np.full(len(self._names), np.inf), np.full(len(self._names), -np.inf)
        self._step = np.zeros(len(self._names))

    def begin(self) -> None:
        """The next command follows none: an activation begins where the robot stands."""
        self._last = None

    def send(self, command: Array, *, damping: bool = False) -> None:
        """Take joint targets (n,) [rad]."""
        del damping
        self.count += 1
        if self._first is None:
            self._first = command.copy()
        if self._last is not None:
            np.maximum(self._step, np.abs(command - self._last), out=self._step)
        np.minimum(self._low, command, out=self._low)
        np.maximum(self._high, command, out=self._high)
        self._last = command.copy()

    def summary(self) -> dict[str, Any]:
        """By joint, its first target, the range of all, and the largest step between two [rad]."""
        if self._first is None:
            return {"commands": 0, "joints": {}}
        rows = zip(self._names, self._first, self._low, self._high, self._step, strict=True)
        joints = {
            name: {"first": float(first), "low": float(low), "high": float(high), "step": float(step)}
            for name, first, low, high, step in rows
        }
        return {"commands": self.count, "joints": joints}

    def close(self) -> None:
        """Nothing to take down."""

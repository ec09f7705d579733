"""The declared safe stop: what is sent once control is lost.

Claim: from the last sent command and its speed, every joint comes to rest with the declared deceleration, inside
its position limits, within the declared time, and stays there. It needs no measurement and no policy.
"""

from __future__ import annotations

import numpy as np

from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array


class DecelerateAndHold:
    """Brings the last sent command to rest."""

    def __init__(self, robot: RobotDescription, period: float) -> None:
        self._lower, self._upper = robot.position_limits
        self._deceleration, self._period = robot.safe_stop.deceleration, period
        self._fastest = np.where(np.isfinite(robot.velocity_limits), robot.velocity_limits, 0.0)

    def begin(self, last_sent: Array, sent_before: Array) -> None:
        """Start from the last command (n,) and the one a period before it (n,) [rad].

        A joint whose drive limits its own speed takes no streamed setpoints: it holds at once.
        """
        velocity = (last_sent - sent_before) / self._period
        self._velocity = np.clip(velocity, -self._fastest, self._fastest)
        self._command = np.array(last_sent)

    @property
    def at_rest(self) -> bool:
        """Whether the command has stopped moving."""
        return not self._velocity.any()

    def next(self) -> Array:
        """The next command (n,) [rad]."""
        slower = np.maximum(np.abs(self._velocity) - self._deceleration * self._period, 0.0)
        self._velocity = np.sign(self._velocity) * slower
        wanted = self._command + self._velocity * self._period
        self._command = np.clip(wanted, self._lower, self._upper)
        self._velocity = np.where(self._command == wanted, self._velocity, 0.0)
        return self._command.copy()

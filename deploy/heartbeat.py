"""A controller's sign of life: what it is doing and what it last sent, as numbers for one message.

It carries all that a stop needs, so that the watchdog can stop the robot in the controller's place without a
measurement and without having heard the commands themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

_HEAD = 2  # in charge, period


@dataclass(frozen=True)
class Heartbeat:
    """One sign of life.

    Attributes:
        in_charge: whether the controller commands the robot; otherwise it sends nothing, in good order.
        period: of its commands [s].
        command: joint targets last sent (n,) [rad].
        velocity: of the commands sent, over the last period (n,) [rad/s].
        acceleration: of the commands sent, over the last two periods (n,) [rad/s^2].
    """

    in_charge: bool
    period: float
    command: Array
    velocity: Array
    acceleration: Array


def heartbeat_size(joints: int) -> int:
    """Numbers in a heartbeat of a robot with that many joints."""
    return _HEAD + 3 * joints


def parse_heartbeat(values: Array, joints: int) -> Heartbeat:
    """A heartbeat from its numbers.

    Raises:
        OneStrideError: there are more or fewer than a robot with that many joints has, one is not finite, or the
            period is not positive.
    """
    if values.shape != (heartbeat_size(joints),) or not np.isfinite(values).all():
        raise OneStrideError(f"expected a heartbeat of {heartbeat_size(joints)} finite numbers, got {values.shape}")
    in_charge, period = values[:_HEAD].tolist()
    if period <= 0:
        raise OneStrideError(f"expected a heartbeat with a period > 0, got {period} s")
    command, velocity, acceleration = np.split(values[_HEAD:], 3)
    return Heartbeat(in_charge != 0, period, command, velocity, acceleration)


class Pulse:
    """Writes heartbeats, following the commands as they are sent.

    Args:
        into: takes the numbers (`heartbeat_size`,), such as a message's own array.
        period: of the commands [s].
    """

    def __init__(self, into: Array, period: float) -> None:
        self._into, self._period = into, period
        self._joints = (len(into) - _HEAD) // 3
        self.rest()

    def rest(self) -> None:
        """The controller sends nothing: an idle heartbeat, and the next command is the first."""
        self._sent: Array | None = None
        self._velocity = np.zeros(self._joints)
        self._into[:] = 0.0
        self._into[1] = self._period

    def sent(self, command: Array) -> None:
        """The controller has sent joint targets (n,) [rad]."""
        sent = command if self._sent is None else self._sent
        velocity = (command - sent) / self._period
        self._into[0] = 1.0
        self._into[_HEAD:] = np.concatenate([command, velocity, (velocity - self._velocity) / self._period])
        self._sent, self._velocity = command, velocity

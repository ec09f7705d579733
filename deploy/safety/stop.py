"""The declared safe stop: what is sent once control is lost.

Claim: from the last sent commands, every joint comes to rest with the declared deceleration, changed no faster than
its jerk limit, inside its position limits, within the declared time, and stays there. It needs no measurement and no
policy. Every source of rows makes its own claim for this stop as well, so that the stop from a certified command is
certified with it, to the point where the robot stands.
"""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.joints import joint_limits
from onestride.deploy.safety.reach import stopping_change
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array


class DecelerateAndHold:
    """Brings the last sent command to rest.

    Args:
        robot: the robot.
        period: of the commands [s].
        hard: brake with all that the joints' acceleration limits allow, at once where there is none, instead of with
            the declared deceleration.
    """

    def __init__(self, robot: RobotDescription, period: float, *, hard: bool = False) -> None:
        self._lower, self._upper = robot.position_limits
        limits = joint_limits(robot, period)
        self._limits = limits._replace(braking=limits.acceleration) if hard else limits
        self._period = period
        self._moves = np.isfinite(robot.velocity_limits)

    def begin(self, sent: Array, velocity: Array, acceleration: Array) -> None:
        """Start from the last command (n,) [rad], its velocity [rad/s] and its acceleration [rad/s^2].

        A joint whose drive limits its own speed takes no streamed setpoints: it holds at once.
        """
        limits, period = self._limits, self._period
        self._command = np.array(sent)
        self._step = np.where(self._moves, np.clip(velocity * period, -limits.speed, limits.speed), 0.0)
        change = np.clip(acceleration * period**2, -limits.acceleration, limits.acceleration)
        self._change = np.where(self._moves, change, 0.0)

    @property
    def at_rest(self) -> bool:
        """Whether the command has stopped moving."""
        return not (self._step.any() or self._change.any())

    def next(self) -> Array:
        """The next command (n,) [rad]."""
        self._change = stopping_change(self._step, self._change, self._limits)
        self._step = self._step + self._change
        wanted = self._command + self._step
        self._command = np.clip(wanted, self._lower, self._upper)
        inside = self._command == wanted
        self._step, self._change = np.where(inside, self._step, 0.0), np.where(inside, self._change, 0.0)
        return self._command.copy()

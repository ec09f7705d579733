"""The declared safe stop: what is sent once control is lost.

Claim of `decelerate_and_hold`: from the last sent commands, every joint comes to rest with no more than the declared
deceleration, or than it began with, inside its speed and position limits, within the declared time, and stays there.
Deceleration changes no faster than the jerk limit, unless jerk had yielded before: where that left too little room, the
joint brakes as declared, without a ramp, as soon as nothing less would do. It needs no measurement and no policy. Every
source of rows makes its own claim for this stop as well, so that the stop from a certified command is certified with
it, to the point where the robot stands.

Claim of `damping`: the drives take energy out of every joint and put none in; the robot is left alone for the declared
time in which it comes to lie still. Where it comes to lie is not claimed.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from onestride.deploy.safety.joints import joint_limits
from onestride.deploy.safety.reach import stoppable_step, stopping_change
from onestride.hardware.description import DampingStop, RobotDescription
from onestride.hardware.state import Array


class Stop(Protocol):
    """A way to bring the robot to rest, one command after the other."""

    @property
    def damping(self) -> bool:
        """Whether the robot is damped, whatever the commands say."""
        ...

    @property
    def at_rest(self) -> bool:
        """Whether the robot has been brought to rest."""
        ...

    def begin(self, sent: Array, velocity: Array, acceleration: Array) -> None:
        """Start from the last command (n,) [rad], its velocity [rad/s] and its acceleration [rad/s^2]."""
        ...

    def next(self) -> Array:
        """The next command (n,) [rad]."""
        ...


def safe_stop(robot: RobotDescription, period: float) -> Stop:
    """The robot's declared safe stop, with commands every `period` [s]."""
    if isinstance(robot.safe_stop, DampingStop):
        return Damping(robot.safe_stop, period)
    return DecelerateAndHold(robot, period)


class Damping:
    """Takes the stiffness away and damps the joints: the robot sinks to the ground.

    Args:
        terms: as the robot declares it.
        period: of the commands [s].
    """

    damping = True

    def __init__(self, terms: DampingStop, period: float) -> None:
        self._ticks, self._left = int(np.ceil(terms.completes_within / period)), 0

    def begin(self, sent: Array, velocity: Array, acceleration: Array) -> None:
        """Start; there is no way to follow, so the last command (n,) [rad] is kept for the record."""
        del velocity, acceleration
        self._command, self._left = np.array(sent), self._ticks

    @property
    def at_rest(self) -> bool:
        """Whether the declared time has passed."""
        return self._left == 0

    def next(self) -> Array:
        """The command that is kept (n,) [rad]; no drive follows it."""
        self._left = max(self._left - 1, 0)
        return self._command.copy()


class DecelerateAndHold:
    """Brings the last sent command to rest.

    Args:
        robot: the robot.
        period: of the commands [s].
        hard: brake with all that the joints' acceleration limits allow, at once where there is none, instead of with
            the declared deceleration.
    """

    damping = False

    def __init__(self, robot: RobotDescription, period: float, *, hard: bool = False) -> None:
        self._lower, self._upper = robot.position_limits
        limits = joint_limits(robot, period)
        self._limits = limits._replace(braking=limits.acceleration) if hard else limits
        self._period = period
        self._moves = np.isfinite(robot.velocity_limits)

    def begin(self, sent: Array, velocity: Array, acceleration: Array) -> None:
        """Start from the last command (n,) [rad], its velocity [rad/s] and its acceleration [rad/s^2].

        A joint whose drive limits its own speed takes no streamed setpoints: it holds at once. An acceleration that
        could not be let go within the speed limit, as it is where jerk yielded, is let go at once as far as it must be.
        """
        limits, period = self._limits, self._period
        self._command = np.array(sent)
        self._step = np.where(self._moves, np.clip(velocity * period, -limits.speed, limits.speed), 0.0)
        down, up = (stoppable_step(limits.speed + side * self._step, limits.jerk) + limits.jerk for side in (1.0, -1.0))
        change = np.clip(acceleration * period**2, -limits.acceleration, limits.acceleration)
        self._change = np.where(self._moves, np.clip(change, -down, up), 0.0)

    @property
    def at_rest(self) -> bool:
        """Whether the command has stopped moving."""
        return not (self._step.any() or self._change.any())

    def next(self) -> Array:
        """The next command (n,) [rad]."""
        change = stopping_change(self._step, self._change, self._limits)
        wanted = self._step + change
        self._step = np.clip(wanted, *self._steps_that_can_be_stopped())
        self._change = np.where(self._step == wanted, change, 0.0)
        self._command = np.clip(self._command + self._step, self._lower, self._upper)  # against rounding
        return self._command.copy()

    def _steps_that_can_be_stopped(self) -> tuple[Array, Array]:
        """From where to where the next step (n,) [rad] may go for a joint that then brakes at once."""
        below, above = np.maximum(self._command - self._lower, 0.0), np.maximum(self._upper - self._command, 0.0)
        braking = self._limits.braking
        return -stoppable_step(below, braking), stoppable_step(above, braking)

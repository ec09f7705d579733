"""Did commands keep the limits? Told from the commands alone, by their differences, and not by the filters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.contract import Contract
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array

#: What rounding may add to a command, and to each of its differences [rad].
ROUNDING = 1e-8

#: Rules of the joints, by how often a command is differenced.
RULES = ("position", "velocity", "acceleration", "jerk")


class JointBounds(NamedTuple):
    """The strictest limits that are declared anywhere (n,); infinite where there are none."""

    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array
    jerk: Array

    @property
    def moving(self) -> NDArray[np.bool_]:
        """Joints with a speed limit (n,): the others, as grippers, rest at their limits on purpose."""
        return np.isfinite(self.velocity)

    @classmethod
    def of(cls, robot: RobotDescription, contract: Contract) -> JointBounds:
        """Of the robot and of the contract that was made for it: what was promised then holds, too."""
        lower, upper = robot.position_limits
        own = cls(lower, upper, robot.velocity_limits, robot.acceleration_limits, robot.jerk_limits)
        terms = contract.robot
        if terms is None or terms.joints != robot.joint_names:
            return own
        low, high = np.array(terms.position).T
        derivatives = [_limits(values, own.lower) for values in (terms.velocity, terms.acceleration, terms.jerk)]
        stricter = (np.minimum(mine, theirs) for mine, theirs in zip(own[2:], derivatives, strict=True))
        return cls(np.maximum(lower, low), np.minimum(upper, high), *stricter)


def _limits(values: tuple[float | None, ...] | None, like: Array) -> Array:
    if values is None:
        return np.full_like(like, np.inf)
    return np.array([np.inf if value is None else value for value in values])


class Uses(NamedTuple):
    """How far commands go to the limits, each (T, ...).

    Attributes:
        margin: smallest distance of a moving joint to a position limit [rad]; negative outside.
        used: share of the limit, by rule; `position` is the share of half the range.
        beyond: whether it is over the limit by more than rounding, by rule.
    """

    margin: Array
    used: dict[str, Array]
    beyond: dict[str, NDArray[np.bool_]]


def uses(commands: Array, period: float, bounds: JointBounds) -> Uses:
    """Look at commands (T + 1, ..., n) [rad]; the robot rests before the first of them, which is not looked at."""
    now = commands[1:]
    inside, moving = np.minimum(now - bounds.lower, bounds.upper - now), bounds.moving
    middle, half = 0.5 * (bounds.lower + bounds.upper), 0.5 * (bounds.upper - bounds.lower)
    used = {"position": (np.abs(now - middle) / half)[..., moving].max(axis=-1, initial=0.0)}
    beyond = {"position": np.asarray(~(inside >= -ROUNDING).all(axis=-1))}
    differences = commands
    for order, rule in enumerate(RULES[1:], start=1):
        rest = differences[:1] if order == 1 else np.zeros_like(commands[:1])
        differences = np.diff(differences, axis=0, prepend=rest)
        step = np.abs(differences[1:])
        most = getattr(bounds, rule) * period**order
        used[rule] = (step / most).max(axis=-1)
        beyond[rule] = np.asarray(~(step <= most + ROUNDING).all(axis=-1))
    return Uses(inside[..., moving].min(axis=-1, initial=np.inf), used, beyond)

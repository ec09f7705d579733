"""Commands that try to leave what a robot's joints may do, through the shipped rows, many at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onestride.deploy.safety.joints import JointLimits
from onestride.deploy.safety.problem import LEVELS
from onestride.deploy.safety.types import Box, Motion, Rows, Yield
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array


def without(robot: RobotDescription, *limits: str) -> RobotDescription:
    """The same robot with some of its joints' limits not declared."""
    content = robot.model_dump(by_alias=True)
    content["joints"] = [{**joint, **dict.fromkeys(limits)} for joint in content["joints"]]
    return RobotDescription.model_validate(content)


@dataclass
class Motions:
    """Many robots' commands (B, n), and how they moved."""

    robot: RobotDescription
    period: float
    sent: Array
    velocity: Array
    acceleration: Array

    @classmethod
    def at_rest(cls, robot: RobotDescription, period: float, count: int, rng: np.random.Generator) -> Motions:
        """Anywhere in the position limits, half of them near one."""
        lower, upper = robot.position_limits
        share = rng.random((count, len(robot.joints)))
        share[::2] = np.where(rng.random(share[::2].shape) < 0.5, share[::2] ** 4, 1 - share[::2] ** 4)
        still = np.zeros_like(share)
        return cls(robot, period, lower + share * (upper - lower), still, still)

    @property
    def motion(self) -> Motion:
        """As rows see it."""
        return Motion(self.period, self.sent, self.velocity, self.sent, self.velocity, self.acceleration)

    def go(self, command: Array) -> None:
        """Send commands (B, n)."""
        velocity = (command - self.sent) / self.period
        self.acceleration = (velocity - self.velocity) / self.period
        self.sent, self.velocity = command, velocity


def bounds(boxes: tuple[Rows | Box, ...], level: Yield) -> tuple[Array, Array]:
    """What all boxes that are kept at a level have in common (B, n)."""
    kept = [box for box in boxes if isinstance(box, Box) and box.yields <= level]
    return np.max([box.low for box in kept], axis=0), np.min([box.high for box in kept], axis=0)


def attack(source: JointLimits, motions: Motions, ticks: int, rng: np.random.Generator) -> dict[str, float]:
    """Push each joint to an end of what it may do, or anywhere between, and change one's mind now and then.

    Returns:
        The largest violation of each limit, over its own size; and by how much boxes were empty [rad].
    """
    robot, period = motions.robot, motions.period
    lower, upper = robot.position_limits
    worst: dict[str, float] = dict.fromkeys(("empty", "position", "velocity", "acceleration", "jerk"), 0.0)
    push = rng.choice([-1.0, 0.0, 1.0], motions.sent.shape, p=[0.45, 0.1, 0.45])
    for _ in range(ticks):
        low, high = bounds(source.rows(motions.motion), LEVELS[0])
        worst["empty"] = max(worst["empty"], float((low - high).max()))
        push = np.where(rng.random(push.shape) < 0.03, rng.choice([-1.0, 0.0, 1.0], push.shape), push)
        share = np.where(push == 0.0, rng.random(push.shape), (push + 1.0) / 2.0)
        before = motions.acceleration
        motions.go(np.minimum(low + share * np.maximum(high - low, 0.0), np.maximum(high, low)))
        jerk = np.abs(motions.acceleration - before) / period / robot.jerk_limits
        outside = np.maximum(lower - motions.sent, motions.sent - upper)
        for name, over in (
            ("position", outside.max()),
            ("velocity", (np.abs(motions.velocity) / robot.velocity_limits).max() - 1),
            ("acceleration", (np.abs(motions.acceleration) / robot.acceleration_limits).max() - 1),
            ("jerk", jerk.max() - 1),
        ):
            worst[name] = max(worst[name], float(over))
    return worst

"""Nominal commands that no policy should give: what a chain must survive from any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from onestride.deploy.safety.apart import Clearing
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array

#: A nominal command (n,) [rad] for a tick, given what was sent last.
Attack = Callable[[int, Array], Array]

#: Further than any joint can be told to go [rad].
FAR = 20.0

#: How long an attack keeps its mind [s].
PATIENCE = 0.25


class Target(NamedTuple):
    """Whom an attack is made for.

    Attributes:
        robot: the robot.
        period: of its commands [s].
        near: what measures its distances, by the row's name.
    """

    robot: RobotDescription
    period: float
    near: dict[str, Clearing]

    @property
    def stride(self) -> Array:
        """Twice what a joint may move in a period (n,) [rad]; its whole range where nothing limits it."""
        lower, upper = self.robot.position_limits
        return np.minimum(2.0 * self.robot.velocity_limits * self.period, upper - lower)

    def every(self, seconds: float) -> int:
        """So many ticks."""
        return max(1, round(seconds / self.period))


def random_targets(target: Target, rng: np.random.Generator) -> Attack:
    """Postures drawn from twice the range of every joint, at once."""
    lower, upper = target.robot.position_limits
    middle, reach, every = 0.5 * (lower + upper), upper - lower, target.every(PATIENCE)
    wanted = middle

    def attack(tick: int, _: Array) -> Array:
        nonlocal wanted
        if tick % every == 0:
            wanted = middle + reach * rng.uniform(-1.0, 1.0, len(reach))
        return wanted

    return attack


def reversing(target: Target, rng: np.random.Generator) -> Attack:
    """All joints to and fro, twice as fast as they may."""
    way, every = rng.choice([-1.0, 1.0], len(target.stride)), target.every(PATIENCE)
    return lambda tick, sent: sent + way * target.stride * (1.0 if tick // every % 2 else -1.0)


def outward(target: Target, rng: np.random.Generator) -> Attack:
    """Far beyond the position limits, some joints this way and some that way."""
    ways = rng.choice([-1.0, 1.0], len(target.stride))
    return lambda _, sent: sent + FAR * ways


def bang_bang(target: Target, rng: np.random.Generator) -> Attack:
    """From one extreme to the other at random ticks, each joint by itself."""
    ways = rng.choice([-1.0, 1.0], len(target.stride))

    def attack(_: int, sent: Array) -> Array:
        nonlocal ways
        ways = np.where(rng.random(len(ways)) < 0.2, -ways, ways)
        return sent + FAR * ways

    return attack


def not_finite(target: Target, rng: np.random.Generator) -> Attack:
    """Random targets, and now and then one that is no number for one joint or all of them."""
    ordinary = random_targets(target, rng)

    def attack(tick: int, sent: Array) -> Array:
        wanted = ordinary(tick, sent)
        if rng.random() > 0.02:
            return wanted
        spoilt = rng.random(len(wanted)) < 0.5
        return np.where(spoilt | (not spoilt.any()), rng.choice([np.nan, np.inf, -np.inf]), wanted)

    return attack


def nearest(target: Target, rng: np.random.Generator) -> Attack:
    """Make one distance after another as small as possible, as fast as the joints move."""
    clearings, every = list(target.near.values()), target.every(3 * PATIENCE)
    which, row, aside = clearings[0], 0, np.zeros_like(target.stride)

    def attack(tick: int, sent: Array) -> Array:
        nonlocal which, row, aside
        if tick % every == 0:
            which = clearings[rng.integers(len(clearings))]
            row = int(rng.integers(len(which.names)))
            aside = rng.normal(size=len(sent)) * rng.choice([0.0, 0.01, 0.1])
        rate = which.at(sent[None]).rate[0, row]
        return np.asarray(sent + aside - 0.05 * rate / max(float(np.linalg.norm(rate)), 1e-9))

    return attack


#: By name; `nearest` is for robots with rows of geometry.
ATTACKS: dict[str, Callable[[Target, np.random.Generator], Attack]] = {
    "random targets": random_targets,
    "reversing": reversing,
    "outward": outward,
    "bang-bang": bang_bang,
    "not finite": not_finite,
    "nearest": nearest,
}

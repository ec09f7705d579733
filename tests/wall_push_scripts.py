"""Pushers by hand: a hurried one that knows nothing of energy, and a gentle one."""

from __future__ import annotations

from collections.abc import Callable

from onestride.training.environments.interface import Array
from onestride.training.environments.push_oracle import pushed
from onestride.training.environments.wall_push import FORCE, WallPush


def script(fastest: float) -> Callable[[Array], Array]:
    """Goes behind the block and pushes it along, at most at a speed [m/s], slower towards the target."""

    return lambda observation: pushed(observation, fastest, FORCE)


def play(environment: WallPush, act: Callable[[Array], Array], seed: int) -> tuple[bool, float, float]:
    """One episode: success, the most that was delivered [J], and the sum of costs [J]."""
    observation, cost = environment.reset(seed), 0.0
    while True:
        step = environment.step(act(observation))
        observation, cost = step.observation, cost + step.cost
        if step.terminal or step.cut:
            return step.success, environment.port.peak, cost

"""Pushers by hand: a hurried one that knows nothing of energy, and a gentle one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onestride.training.environments.interface import Array
from onestride.training.environments.wall_push import FORCE, WallPush


def script(fastest: float) -> Callable[[Array], Array]:
    """Goes behind the block and pushes it along, at most at a speed [m/s], slower towards the target."""

    def act(observation: Array) -> Array:
        _, _, speed, _, _, *ways = observation[:8]
        ahead, aside, left = 0.1 * np.array(ways)
        sideways = 300.0 * aside - 10.0 * observation[3]
        if ahead > 0.004 or abs(aside) > 0.03:
            there = abs(aside) < 0.04 or ahead > 0.05
            wanted = fastest * np.clip(6.0 * ahead, 0.05, 1.0) if there else 0.0
            forward = 80.0 * (wanted - speed) + 20.0 * speed
        else:
            wanted = min(np.sqrt(1.6 * max(left - 0.004, 0.0)), fastest)
            forward = 100.0 * (wanted - speed) + 20.0 * wanted + (12.0 if left > 0.005 else -10.0)
        return np.clip(np.array([forward, sideways]) / FORCE, -1.0, 1.0)

    return act


def play(environment: WallPush, act: Callable[[Array], Array], seed: int) -> tuple[bool, float, float]:
    """One episode: success, the most that was delivered [J], and the sum of costs [J]."""
    observation, cost = environment.reset(seed), 0.0
    while True:
        step = environment.step(act(observation))
        observation, cost = step.observation, cost + step.cost
        if step.terminal or step.cut:
            return step.success, environment.port.peak, cost

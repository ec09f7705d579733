"""A scripted pusher for the contact task: go behind the block, push it along, and slow down towards the target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onestride.training.environments.interface import Array

GENTLE = 0.6
"""Speed at which the energy bound of the task was sized [m/s]."""


def pushed(observation: Array, fastest: float, largest: float) -> Array:
    """The action (2,) in [-1, 1] of a pusher that knows nothing of energy.

    Args:
        observation: of the task (Do,); energy left is not looked at.
        fastest: speed at most [m/s].
        largest: force of the action 1 [N].
    """
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
    return np.asarray(np.clip(np.array([forward, sideways]) / largest, -1.0, 1.0))


class PushOracle:
    """The pusher in a running episode.

    Args:
        see: what the task's environment shows now.
        fastest: speed at most [m/s].
        largest: force of the action 1 [N].
    """

    def __init__(self, see: Callable[[], Array], fastest: float, largest: float) -> None:
        self._see, self._fastest, self._largest = see, fastest, largest

    def act(self) -> Array:
        """Its action (2,) in [-1, 1] for the current state."""
        return pushed(self._see(), self._fastest, self._largest)

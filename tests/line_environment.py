"""A small environment on a line, exact to the bit, for tests that run the whole loop in several processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from onestride.training.environments.interface import Array, Step

NAME = "python/line_environment:Line"
RATE = 10.0


class Line:
    """A point in the plane of position and velocity: solved when it stays near the origin, dear when it is far."""

    name = NAME
    source = "tests"
    horizon = 12
    observation_dim = 3
    action_dim = 2
    policy_rate = RATE
    interface = None

    def reset(self, seed: int) -> Array:
        self._random = np.random.default_rng(seed)
        self._place, self._speed, self._taken = self._random.uniform(-1, 1), 0.0, 0
        return self._seen()

    def step(self, action: Array) -> Step:
        if action.shape != (2,) or not (np.abs(action) <= 1).all():
            raise ValueError(f"expected an action (2,) in [-1, 1], got {action}")
        self._speed = 0.8 * self._speed + 0.1 * float(action[0]) + 0.01 * self._random.standard_normal()
        self._place, self._taken = self._place + self._speed, self._taken + 1
        solved = abs(self._place) < 0.1
        return Step(
            self._seen(),
            reward=-abs(self._place) - 0.1 * float(action[1]) ** 2,
            terminal=solved,
            cut=not solved and self._taken >= self.horizon,
            success=solved,
            cost=float(abs(self._place) > 1),
        )

    def close(self) -> None:
        pass

    def _seen(self) -> Array:
        return np.array([self._place, self._speed, self._taken / self.horizon])


class Fragile(Line):
    """Kills its own process once, in the middle of an episode; the file remembers that it did."""

    def __init__(self, path: str = "", after: int = 5, signal: int = 9) -> None:
        self._path, self._after, self._signal, self._lived = Path(path), after, signal, 0

    def step(self, action: Array) -> Step:
        self._lived += 1
        if self._lived == self._after and not self._path.exists():
            self._path.touch()
            os.kill(os.getpid(), self._signal)
        return super().step(action)


class Hanging(Fragile):
    """Does not answer once."""

    def step(self, action: Array) -> Step:
        self._lived += 1
        if self._lived == self._after and not self._path.exists():
            self._path.touch()
            time.sleep(3600)
        return Line.step(self, action)


class Doomed(Line):
    """Dies at every third step of an episode."""

    def step(self, action: Array) -> Step:
        if self._taken == 2:
            os._exit(7)
        return super().step(action)

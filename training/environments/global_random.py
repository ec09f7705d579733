"""numpy's global generator, lent to packages that draw from it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np


class GlobalRandom:
    """Inside `with`, numpy's global generator follows a seed of its own; outside, nobody's draws change.

    Entered again it goes on where it was left.
    """

    def __init__(self, seed: int) -> None:
        self._state: Any = np.random.RandomState(seed % 2**32).get_state()
        self._outside: Any = None

    def __enter__(self) -> GlobalRandom:
        self._outside = np.random.get_state()
        np.random.set_state(self._state)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = np.random.get_state()
        np.random.set_state(self._outside)

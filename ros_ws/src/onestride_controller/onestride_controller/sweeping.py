"""Garbage is collected after a tick, in the time that is left until the next."""

from __future__ import annotations

import gc
import time

#: Time between two collections, and after which one is made even where no tick leaves the time for it [s].
EVERY, OVERDUE = 0.5, 10.0

#: What the first collection is expected to take [s]; the next ones are expected to take the longest so far.
FIRST_GUESS = 2e-4

#: So much more time than a collection is expected to take must be left.
RESERVE = 1.5


class Sweeper:
    """Does the work of Python's own collector while that is disabled: it would begin in the middle of a tick.

    Nor can another thread do it: that one would keep the interpreter for all of it, and longer on a busy machine,
    whose scheduler may put it aside meanwhile.
    """

    def __init__(self) -> None:
        self._last, self._longest = time.monotonic(), FIRST_GUESS

    def sweep(self, left: float) -> None:
        """Collect what is young, if it is time for it and it can be done in the time that is `left` [s]."""
        begun = time.monotonic()
        waited = begun - self._last
        if waited < EVERY or gc.isenabled() or (left < RESERVE * self._longest and waited < OVERDUE):
            return
        gc.collect(1)
        self._last = time.monotonic()
        self._longest = max(self._longest, self._last - begun)

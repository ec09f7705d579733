"""Which commands were in force over a stretch of time, and each for how long at most: what an energy tank charges.

Positions are known only where they are sampled, and samples come between the ticks, late, or twice. So what drives
delivered from one sample to the next was delivered under all the commands that were in force meanwhile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onestride.hardware.state import Array

#: Times closer than this are the same [s]: what sums of periods may add to a clock.
SAME_TIME = 1e-9

NO_TIME = np.zeros((1, 1, 1))


class Held(NamedTuple):
    """Commands that were in force over some stretch of time, the newest last.

    Attributes:
        commands: (k, B, n), at least one.
        seconds: for how long each was, at most (k, 1, 1) [s].
    """

    commands: Array
    seconds: Array

    @property
    def total(self) -> float:
        """For how long all of them were, at most [s]."""
        return float(self.seconds.sum())

    def moments(self) -> tuple[Array, Array | float]:
        """Mean and variance of the commands, by their time (B, n)."""
        if len(self.commands) == 1:
            return self.commands[0], 0.0
        weights = self.seconds / self.total
        mean = (weights * self.commands).sum(axis=0)
        return mean, (weights * (self.commands - mean) ** 2).sum(axis=0)


class Sent:
    """The commands sent since some time.

    Args:
        command: that has been in force for ever (B, n).
        lateness: by how much later than it was sent a command may be in force, and the one before it still is [s].
    """

    def __init__(self, command: Array, lateness: float) -> None:
        self._commands, self._since, self._lateness = [command], [-np.inf], lateness

    def __len__(self) -> int:
        return len(self._commands)

    @property
    def newest(self) -> Array:
        """The command sent last (B, n)."""
        return self._commands[-1]

    def add(self, command: Array, now: float) -> None:
        """A command (B, n) went out at a time [s]."""
        if not np.array_equal(command, self.newest):
            self._commands.append(command)
            self._since.append(now)

    def between(self, start: float, end: float) -> Held:
        """Those in force from one time to another, neither later than now [s]; the newest for no time, if none was."""
        until = [*self._since[1:], end]
        seconds = [
            min(last, end) - max(first, start) + self._lateness if first < end else 0.0
            for first, last in zip(self._since, until, strict=True)
        ]
        found = [at for at, time in enumerate(seconds) if time > SAME_TIME]
        if not found:
            return Held(self.newest[None], NO_TIME)
        held = np.array([seconds[at] for at in found]).reshape(-1, 1, 1)
        return Held(np.stack([self._commands[at] for at in found]), held)

    def forget(self, before: float) -> None:
        """Drop commands that were out of force by then [s]."""
        while len(self) > 1 and self._since[1] + self._lateness <= before - SAME_TIME:
            del self._commands[0], self._since[0]

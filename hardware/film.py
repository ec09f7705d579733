"""What a film needs: the plant's configuration, twenty times a second of simulated time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onestride.hardware.state import Array

RATE = 20.0  # [Hz] of simulated time


class Film:
    """Collects configurations and writes them as `episode (N,)`, `time (N,)` and `qpos (N, nq)`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._episode: list[int] = []
        self._time: list[float] = []
        self._qpos: list[Array] = []
        self._next = 0.0

    def begin(self) -> None:
        """A new episode starts."""
        self._next = 0.0

    def see(self, episode: int, time: float, qpos: Array) -> None:
        """Keep the configuration (nq,) if the next picture is due at simulated `time` [s]."""
        if time + 1e-9 < self._next:
            return
        self._next += 1.0 / RATE
        self._episode.append(episode)
        self._time.append(time)
        self._qpos.append(np.array(qpos))

    def write(self) -> None:
        """Write what there is; a reader never sees half a file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        staging = self.path.with_suffix(".partial")
        with staging.open("wb") as file:
            np.savez(file, episode=np.array(self._episode), time=np.array(self._time), qpos=np.array(self._qpos))
        staging.replace(self.path)

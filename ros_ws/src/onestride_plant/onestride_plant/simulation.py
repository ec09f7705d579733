"""The plant in wall-clock time: physics steps against monotonic deadlines, episodes, and what came of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onestride.hardware.plant import Plant
from onestride.hardware.state import Array, Measurement
from onestride_plant.film import Film

#: Further behind than this [s], the simulation drops the time instead of catching up in a burst.
MOST_BEHIND = 0.1

TakeTargets = Callable[[Callable[[Sequence[int], Array], None]], bool]


class Simulation:
    """Runs a plant's physics in real time.

    Between a reset and the first command physics is paused: simulated time counts from the first command.

    Args:
        plant: what is simulated; from now on touched by nobody else.
        starts: seeds and full states (E, S) of the episodes; none means the model's default pose.
        film: records configurations.
    """

    def __init__(self, plant: Plant, starts: tuple[list[int], Array] | None = None, film: Film | None = None) -> None:
        self._plant, self._starts, self._film = plant, starts, film
        self._lock = threading.Lock()
        self._target = plant.read().position
        self._episode: int | None = None
        self._seed: int | None = None
        self._waiting = False
        self.dropped = 0.0

    def reset(self) -> dict[str, Any]:
        """Begin the next episode and wait for its first command; its number and seed."""
        with self._lock:
            self._episode = 0 if self._episode is None else self._episode + 1
            state = None
            if self._starts is not None:
                seeds, states = self._starts
                self._seed, state = seeds[self._episode % len(seeds)], states[self._episode % len(seeds)]
            self._target = self._plant.reset(state).position
            self._waiting = True
            if self._film is not None:
                self._film.begin()
                self._film.write()
            return {"episode": self._episode, "seed": self._seed}

    def progress(self) -> dict[str, Any]:
        """How the episode stands."""
        with self._lock:
            progress = self._plant.progress
            return {
                "episode": self._episode,
                "seed": self._seed,
                "time": progress.time,
                "success": progress.success,
                "solved_after": progress.solved_after,
                "over": progress.over,
                "waiting": self._waiting,
                "dropped_time_s": self.dropped,
            }

    def run(
        self,
        take_targets: TakeTargets,
        publish: Callable[[Measurement], None],
        publish_every: int,
        stopping: threading.Event,
    ) -> None:
        """Step until `stopping` is set.

        Args:
            take_targets: hands new joint targets over, see `Targets.take`.
            publish: sends a measurement.
            publish_every: physics steps between two measurements.
            stopping: ends the loop.
        """
        period, steps = self._plant.scene.physics_timestep, 0
        deadline = time.monotonic()
        while not stopping.is_set():
            deadline = self._next_deadline(deadline, period)
            late = _sleep_until(deadline)
            measurement = self._advance(take_targets, measure=late < period and steps % publish_every == 0)
            if measurement is not None:
                publish(measurement)
            steps += 1

    def _next_deadline(self, deadline: float, period: float) -> float:
        behind = time.monotonic() - deadline - period
        if behind <= MOST_BEHIND:
            return deadline + period
        self.dropped += behind
        return deadline + period + behind

    def _advance(self, take_targets: TakeTargets, *, measure: bool) -> Measurement | None:
        with self._lock:
            if take_targets(self._aim):
                self._plant.command(self._target)
                self._waiting = False
            if not self._waiting:
                self._record()
                self._plant.step()
            return self._plant.read() if measure else None

    def _aim(self, joints: Sequence[int], values: Array) -> None:
        self._target[np.asarray(joints)] = values

    def _record(self) -> None:
        if self._film is not None and self._episode is not None:
            self._film.see(self._episode, self._plant.progress.time, self._plant.data.qpos)


def _sleep_until(deadline: float) -> float:
    """Sleep; how late it is now [s]."""
    left = deadline - time.monotonic()
    if left > 0:
        time.sleep(left)
    return time.monotonic() - deadline

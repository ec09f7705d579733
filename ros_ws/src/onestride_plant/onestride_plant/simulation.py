"""The plant in wall-clock time: physics steps against monotonic deadlines, episodes, and what came of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onestride.hardware.film import Film
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.plant import Plant
from onestride.hardware.state import Array, Measurement
from onestride_plant.walk import Walk

#: Further behind than this [s], the simulation drops the time instead of catching up in a burst.
MOST_BEHIND = 0.1


class Simulation:
    """Runs a plant's physics in real time.

    Between a reset and the first command physics is paused: simulated time counts from the first command.

    Args:
        plant: what is simulated; from now on touched by nobody else.
        starts: seeds and full states (E, S) of the episodes; none means the model's default pose.
        film: records configurations.

    Attributes:
        walk: watches a robot on legs; None for others.
        show: takes the plant's time [s], which goes on through resets, at every step.
        dropped: simulated time that could not be caught up with [s].
    """

    def __init__(self, plant: Plant, starts: tuple[list[int], Array] | None = None, film: Film | None = None) -> None:
        self._plant, self._starts, self._film = plant, starts, film
        self._lock = threading.Lock()
        self._target = plant.read().position
        self._episode: int | None = None
        self._seed: int | None = None
        self._waiting = self._aimed = False
        self._interval = 0.0
        self.dropped = 0.0
        self.walk: Walk | None = None
        self.show: Callable[[float], None] | None = None

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
            if self.walk is not None:
                self.walk.begin()
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
                **({} if self.walk is None else {"walk": self.walk.progress()}),
            }

    def run(
        self,
        take_commands: Callable[[Simulation], bool],
        publish: Callable[[Measurement], None],
        publish_every: int,
        stopping: threading.Event,
    ) -> None:
        """Step until `stopping` is set.

        Args:
            take_commands: hands new commands over, see `Targets.take`.
            publish: sends a measurement that has arrived.
            publish_every: physics steps between two measurements.
            stopping: ends the loop.
        """
        period, steps = self._plant.scene.physics_timestep, 0
        self._interval = publish_every * period
        deadline = time.monotonic()
        while not stopping.is_set():
            deadline = self._next_deadline(deadline, period)
            late = _sleep_until(deadline)
            with self._lock:  # nothing from before a reset may be published after its answer
                self._advance(take_commands)
                if late < period and steps % publish_every == 0 and not self._nothing_new:
                    publish(self._plant.read())
            steps += 1
            if self.show is not None:
                self.show(steps * period)

    def _next_deadline(self, deadline: float, period: float) -> float:
        behind = time.monotonic() - deadline - period
        if behind <= MOST_BEHIND:
            return deadline + period
        self.dropped += behind
        return deadline + period + behind

    def _advance(self, take_commands: Callable[[Simulation], bool]) -> None:
        self._aimed = False
        if take_commands(self):
            self._waiting = False
        if self._aimed:
            self._plant.command(self._target)
        if not self._waiting:
            self._record()
            self._plant.step()
            if self.walk is not None:
                self.walk.hear()
                self.walk.see()

    @property
    def _nothing_new(self) -> bool:
        """Whether nothing has arrived since the last measurement was due; before the first command, it all counts."""
        return not self._waiting and self._plant.age > self._interval - 1e-9

    def aim(self, joints: Sequence[int], values: Array) -> None:
        """New targets (k,) [rad] for some joints; the others keep theirs."""
        self._target[np.asarray(joints)] = values
        self._aimed = True

    def impede(self, command: ImpedanceCommand) -> None:
        """A new impedance command for all joints.

        Raises:
            OneStrideError: the robot's drives do not take it.
        """
        self._plant.impede(command)

    def _record(self) -> None:
        if self._film is not None and self._episode is not None:
            self._film.see(self._episode, self._plant.progress.time, self._plant.data.qpos)


def _sleep_until(deadline: float) -> float:
    """Sleep; how late it is now [s]."""
    left = deadline - time.monotonic()
    if left > 0:
        time.sleep(left)
    return time.monotonic() - deadline

"""A plant behind real messages: they take time, get lost and carry noise, and the robot is not quite its description.

Everything random comes from one seed, in an order that depends on steps and commands only, so that an episode can be
played again.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from functools import cached_property
from typing import Generic, TypeVar

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from onestride.hardware.description import RobotDescription
from onestride.hardware.impedance import ImpedanceCommand
from onestride.hardware.plant import Plant
from onestride.hardware.readings import identify
from onestride.hardware.realism import Parameters, Realism
from onestride.hardware.scene import Scene
from onestride.hardware.state import Measurement

#: Rounding of times [s].
ROUNDING = 1e-9

Message = TypeVar("Message")


class Line(Generic[Message]):
    """Messages on their way; they arrive in the order in which they were sent."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, Message]] = deque()

    def send(self, message: Message, arrives: float) -> None:
        """Send a message that arrives at a time [s], or with the one before it if that is later."""
        earliest = self._sent[-1][0] if self._sent else arrives
        self._sent.append((max(arrives, earliest), message))

    def newest(self, now: float) -> Message | None:
        """The last message that has arrived since the last time this was asked, if any."""
        message = None
        while self._sent and self._sent[0][0] <= now + ROUNDING:
            message = self._sent.popleft()[1]
        return message


class RealisticPlant(Plant):
    """A plant whose messages take time, and whose parts differ a little from their description.

    Args:
        scene: the scene.
        robot: the robot in it.
        realism: what is wrong with it.
        seed: of everything random.
        odometry: as `Plant` has it; noise falls on it as well.
    """

    def __init__(
        self, scene: Scene, robot: RobotDescription, realism: Realism, seed: int = 0, *, odometry: bool = False
    ) -> None:
        self.realism = realism
        self.reseed(seed)
        super().__init__(scene, robot, odometry=odometry)

    def reseed(self, seed: int) -> None:
        """Begin the random sequence anew; the next reset draws from it."""
        self._rng = np.random.default_rng(seed)

    @cached_property
    def _parameters(self) -> Parameters:
        feet = () if self.robot.base is None else self.robot.base.feet
        geoms = [identify(self.model, mujoco.mjtObj.mjOBJ_GEOM, foot.geom) for foot in feet]
        return Parameters(self.model, self.data, geoms)

    @property
    def _now(self) -> float:
        return self._steps * self.scene.physics_timestep

    @property
    def age(self) -> float:
        """How long ago what `read` gives arrived, in simulated time [s]."""
        return self._now - self._arrived

    def reset(self, state: ArrayLike | None = None) -> Measurement:
        """As any plant, with parameters and latencies drawn anew; the first measurement is there at once."""
        realism, rng = self.realism, self._rng
        self._parameters.draw(realism, rng)
        self._drives.randomise(rng.uniform(*realism.gains, size=len(self.robot.joints)))
        self._measuring, self._commanding = (
            float(rng.uniform(*span)) for span in (realism.measurement_latency, realism.command_latency)
        )
        self._measurements, self._commands = Line[Measurement](), Line[ImpedanceCommand]()
        self._arrived, self._sampled = 0.0, 0
        self._newest = realism.noise.on(super().reset(state), rng)
        return self._newest

    def read(self) -> Measurement:
        """The newest measurement that has arrived."""
        return replace(self._newest, received=dict.fromkeys(self._newest.received, time.monotonic() - self.age))

    def step(self, count: int = 1) -> None:
        """As any plant; messages arrive in between."""
        for _ in range(count):
            command = self._commands.newest(self._now)
            if command is not None:
                super()._take(command)
            super().step(1)
            self._sample()
            measurement = self._measurements.newest(self._now)
            if measurement is not None:
                self._newest, self._arrived = measurement, self._now

    def _take(self, command: ImpedanceCommand) -> None:
        self._send(self._commands, command, self._commanding)

    def _sample(self) -> None:
        due = int((self._now + ROUNDING) * self.realism.rate)
        if due > self._sampled:
            self._sampled = due
            self._send(self._measurements, self.realism.noise.on(super().read(), self._rng), self._measuring)

    def _send(self, line: Line[Message], message: Message, delay: float) -> None:
        lost, late = self._rng.random() < self.realism.dropped, self._rng.uniform(0.0, self.realism.jitter)
        if not lost:
            line.send(message, self._now + delay + late)

"""A controller on a plant, tick by tick in simulated time, with policies and measurements that can be spoilt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from onestride.deploy.controller import Controller, Tick
from onestride.deploy.runtime import Prediction
from onestride.hardware.plant import Plant
from onestride.hardware.state import Array, Measurement

FORWARD = np.array([1.0, 0.5, -0.2, 0.3, 1.0])  # an action that keeps the arm moving


class Always:
    """Inference that answers at once, with the same action for ever."""

    def __init__(self, chunk: np.ndarray | None = None) -> None:
        self.chunk = np.tile(FORWARD, (5, 1)) if chunk is None else chunk
        self.requests = 0
        self._prediction: Prediction | None = None

    def request(self, observation: Array, at: int) -> None:
        del observation
        self.requests += 1
        self._prediction = self.answer(at)

    def answer(self, at: int) -> Prediction | None:
        return Prediction(self.chunk.astype(np.float32), at)

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        del timeout
        prediction, self._prediction = self._prediction, None
        return prediction

    def reset(self, seed: int | None = None) -> None:
        del seed
        self._prediction = None


def unspoilt(index: int, measurement: Measurement) -> Measurement:
    del index
    return measurement


@dataclass
class Drive:
    """A controller on a plant, tick by tick, with measurements that can be spoilt on their way."""

    controller: Controller
    plant: Plant
    ticks: list[Tick] = field(default_factory=list)
    spoil: Callable[[int, Measurement], Measurement] = unspoilt

    def activate(self, start: np.ndarray, seed: int = 0) -> None:
        self.controller.activate(self.now, self.measured(self.plant.reset(start)), seed)

    @property
    def now(self) -> float:
        return len(self.ticks) * self.controller.period

    def measured(self, measurement: Measurement) -> Measurement:
        """As received now, or as `spoil` has it."""
        return self.spoil(len(self.ticks), replace(measurement, received=dict.fromkeys(measurement.received, self.now)))

    def run(self, count: int) -> list[Tick]:
        """The next ticks."""
        for _ in range(count):
            tick = self.controller.tick(self.now, self.measured(self.plant.read()))
            self.ticks.append(tick)
            if tick.command is not None:
                self.plant.command(tick.command)
            self.plant.step(2 + len(self.ticks) % 2)  # 2.5 physics steps in a control period
        return self.ticks[-count:]

    @property
    def commands(self) -> np.ndarray:
        """Every command sent (T, n)."""
        return np.array([tick.command for tick in self.ticks if tick.command is not None])


def with_nan(values: np.ndarray, index: int) -> np.ndarray:
    values = values.copy()
    values[index] = np.nan
    return values

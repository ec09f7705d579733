"""Run a controller on a plant in simulated time, in one process: no ROS, no waiting, the same control law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from numpy.typing import ArrayLike

from onestride.deploy.controller import Controller, Mode, Tick
from onestride.hardware.plant import Plant, Progress
from onestride.hardware.state import Measurement


def simulate_episode(
    controller: Controller,
    plant: Plant,
    start: ArrayLike,
    seed: int,
    watch: Callable[[Tick, Measurement], None] | None = None,
) -> Progress:
    """One episode from a full state (S,), until it is solved, its horizon has passed, or a fault stops it.

    Args:
        controller: idle or holding; deactivated at the end.
        plant: the simulated robot.
        start: as `Plant.reset` takes it.
        seed: of the policy's noise.
        watch: called with every tick and the measurement it saw.

    Raises:
        OneStrideError: the controller refuses to activate.
    """
    measurement, ticks, steps = _at(plant.reset(start), 0.0), 0, 0
    controller.activate(0.0, measurement, seed)
    while not plant.progress.over and controller.mode is Mode.ACTIVE:
        tick = controller.tick(ticks * controller.period, measurement)
        if watch:
            watch(tick, measurement)
        if tick.command is not None:
            plant.command(tick.command)
        ticks += 1
        due = round(ticks * controller.period / plant.scene.physics_timestep)
        plant.step(due - steps)
        steps = due
        measurement = _at(plant.read(), ticks * controller.period)
    controller.deactivate()
    return plant.progress


def _at(measurement: Measurement, now: float) -> Measurement:
    """The measurement, received at simulated time `now` [s]."""
    return replace(measurement, received=dict.fromkeys(measurement.received, now))

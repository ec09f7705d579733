"""Run a controller on a plant in simulated time, in one process: no ROS, no waiting, the same control law."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from onestride.deploy.controller import Controller, Mode, Tick
from onestride.deploy.sources import COMMAND
from onestride.hardware.plant import Plant, Progress, Robot
from onestride.hardware.state import Measurement

#: What somebody asks of a base at a simulated time [s]: vx, vy [m/s], wz [rad/s].
VelocityCommand = Callable[[float], ArrayLike]

#: Sees every tick with the measurement that it saw.
Watch = Callable[[Tick, Measurement], None]


def simulate_episode(
    controller: Controller,
    plant: Plant,
    start: ArrayLike | None,
    seed: int,
    watch: Watch | None = None,
    *,
    velocity: VelocityCommand | None = None,
    duration: float = math.inf,
) -> Progress:
    """One episode from a full state (S,), until it is solved, its horizon has passed, or a fault ends it.

    The stop after a fault runs to its end, unwatched: the controller can be rearmed then.

    On legs, a scene of the robot alone asks for nothing that could be solved; `velocity` says where to walk.

    Args:
        controller: idle or holding; deactivated at the end.
        plant: the simulated robot.
        start: as `Plant.reset` takes it; None is the model's default pose.
        seed: of the policy's noise.
        watch: called with every tick and the measurement it saw.
        velocity: the velocity command at every time, for robots on legs.
        duration: the longest simulated time [s], where the scene's horizon allows it.

    Raises:
        OneStrideError: the controller refuses to activate.
    """

    def received(measurement: Measurement, now: float) -> Measurement:
        """The measurement as of simulated time `now` [s], and what is asked then."""
        times = dict.fromkeys(measurement.received, now - plant.age)
        if velocity is None:
            return replace(measurement, received=times)
        vectors = {**measurement.vectors, COMMAND.name: np.asarray(velocity(now), dtype=np.float64)}
        return replace(measurement, received={**times, COMMAND.name: now}, vectors=vectors)

    measurement, ticks, steps = received(plant.reset(start), 0.0), 0, 0
    controller.activate(0.0, measurement, seed)

    def turn(watch: Watch | None) -> None:
        """One control period."""
        nonlocal measurement, ticks, steps
        tick = controller.tick(ticks * controller.period, measurement)
        if watch:
            watch(tick, measurement)
        send(plant, tick)
        ticks += 1
        due = round(ticks * controller.period / plant.scene.physics_timestep)
        plant.step(due - steps)
        steps = due
        measurement = received(plant.read(), ticks * controller.period)

    while not plant.progress.over and plant.progress.time < duration and controller.mode is Mode.ACTIVE:
        turn(watch)
    progress = plant.progress
    controller.deactivate()
    while not controller.at_rest:
        turn(None)
    return progress


def send(robot: Robot, tick: Tick) -> None:
    """Send what a tick decided."""
    if tick.damping:
        robot.damp()
    elif tick.command is not None:
        robot.command(tick.command)

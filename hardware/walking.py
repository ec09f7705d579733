"""How a robot on legs walks, by its true motion on the plant, which no robot knows of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant
from onestride.hardware.readings import BaseReadings, identify
from onestride.hardware.state import Array

#: How often the motion is looked at [s] of simulated time, and how long a change of the command takes to be followed.
PERIOD, SETTLING = 0.02, 2.0

#: Share of its first height below which the base counts as fallen.
SUNK = 0.5


Velocity = tuple[float, float, float]
"""Forward, to the left [m/s], turning to the left [rad/s], in the base's frame."""


def command_at(commands: Sequence[Velocity], seconds: float, time: float) -> Velocity:
    """What is asked at simulated `time` [s] of a walk of `seconds`: one command after the other, for equal shares."""
    return commands[min(int(time / seconds * len(commands)), len(commands) - 1)]


@dataclass
class Stretch:
    """Some time under one command.

    Attributes:
        command: what is asked (3,): vx, vy [m/s], wz [rad/s].
        since: when it began, in simulated time [s].
        velocities: the true ones (3,), once the robot has had time to follow.
    """

    command: Array
    since: float
    velocities: list[Array] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The mean velocity, and how far it is from what was asked, in the plane [m/s] and in turning [rad/s]."""
        mean = np.mean(self.velocities, axis=0)
        wrong = mean - self.command
        return {
            "command": self.command.tolist(),
            "velocity": np.round(mean, 4).tolist(),
            "error": round(float(np.hypot(*wrong[:2])), 4),
            "turn_error": round(float(abs(wrong[2])), 4),
            "seconds": round(len(self.velocities) * PERIOD, 2),
        }


class WalkMeter:
    """Watches the base on a plant, and what is asked of it.

    Args:
        plant: with a robot on legs.

    Raises:
        OneStrideError: the robot has no floating base.
    """

    def __init__(self, plant: Plant) -> None:
        if plant.robot.base is None:
            raise OneStrideError(f"robot {plant.robot.id}: expected a floating base, got none")
        self._plant, self._limit = plant, plant.robot.base.tilt
        self._base = BaseReadings(plant.model, plant.data, plant.robot.base)
        self._body = identify(plant.model, mujoco.mjtObj.mjOBJ_BODY, plant.robot.base.body)
        self.begin()

    def begin(self) -> None:
        """A new episode: the robot stands, and nothing is asked yet."""
        self._height, self._next, self._most_tilt = float(self._plant.data.xpos[self._body][2]), 0.0, 0.0
        self._upright, self._stretches = True, [Stretch(np.zeros(3), 0.0)]

    def ask(self, command: ArrayLike) -> None:
        """From now on, vx, vy [m/s] and wz [rad/s] are asked for (3,); the same as before changes nothing."""
        wanted = np.asarray(command, dtype=np.float64)
        if not np.array_equal(wanted, self._stretches[-1].command):
            self._stretches.append(Stretch(wanted, self._plant.progress.time))

    def see(self) -> None:
        """Look at the robot, if it is time."""
        time = self._plant.progress.time
        if time + 1e-9 < self._next:
            return
        self._next += PERIOD
        tilt = float(np.arccos(np.clip(self._plant.data.xmat[self._body][8], -1.0, 1.0)))
        sunk = bool(self._plant.data.xpos[self._body][2] < SUNK * self._height)
        self._most_tilt = max(self._most_tilt, tilt)
        self._upright = self._upright and tilt <= self._limit and not sunk
        if time >= self._stretches[-1].since + SETTLING:
            velocity, turning = self._base.velocity(), self._base.inertial().angular_velocity
            self._stretches[-1].velocities.append(np.array([velocity[0], velocity[1], turning[2]]))

    def progress(self) -> dict[str, Any]:
        """Whether it stayed upright, how far it leant [rad], and how it followed each command."""
        known = [stretch.summary() for stretch in self._stretches if stretch.velocities]
        return {"upright": self._upright, "most_tilt": round(self._most_tilt, 4), "stretches": known}

"""How a robot differs from its description: messages that are late, lost and noisy, and parts that vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import mujoco
import numpy as np
from pydantic import Field, ValidationError

from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import Model, Positive, explain
from onestride.hardware.state import Array, Inertial, Measurement, Pose

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Span = tuple[NotNegative, NotNegative]


class Noise(Model):
    """Standard deviations of what is added to every reading; 0 adds nothing.

    Attributes:
        position: of joints [rad].
        velocity: of joints [rad/s].
        effort: of joints [Nm].
        orientation: of the inertial sensor, about a random axis [rad].
        angular_velocity: of it [rad/s].
        acceleration: of it [m/s^2].
        objects: of positions of objects [m].
        vectors: of the elements of each vector, by its name.
    """

    position: NotNegative = 0.0
    velocity: NotNegative = 0.0
    effort: NotNegative = 0.0
    orientation: NotNegative = 0.0
    angular_velocity: NotNegative = 0.0
    acceleration: NotNegative = 0.0
    objects: NotNegative = 0.0
    vectors: Mapping[str, NotNegative] = {}

    def on(self, measurement: Measurement, rng: np.random.Generator) -> Measurement:
        """The measurement with noise drawn from `rng`."""

        def noisy(values: Array, deviation: float) -> Array:
            return values + deviation * rng.standard_normal(np.shape(values))

        effort, imu = measurement.effort, measurement.imu
        return replace(
            measurement,
            position=noisy(measurement.position, self.position),
            velocity=noisy(measurement.velocity, self.velocity),
            effort=None if effort is None else noisy(effort, self.effort),
            objects={
                name: Pose(noisy(pose.position, self.objects), pose.quaternion)
                for name, pose in measurement.objects.items()
            },
            imu=None if imu is None else self._on_imu(imu, rng),
            vectors={name: noisy(values, self.vectors.get(name, 0.0)) for name, values in measurement.vectors.items()},
        )

    def _on_imu(self, imu: Inertial, rng: np.random.Generator) -> Inertial:
        orientation = imu.orientation.copy()
        mujoco.mju_quatIntegrate(orientation, self.orientation * rng.standard_normal(3), 1.0)
        return Inertial(
            orientation,
            imu.angular_velocity + self.angular_velocity * rng.standard_normal(3),
            imu.acceleration + self.acceleration * rng.standard_normal(3),
        )


class Realism(Model):
    """What is wrong with the robot. Spans are drawn from evenly, once for every reset.

    Attributes:
        measurement_latency: from the state to its arrival [s].
        command_latency: from sending to taking effect [s].
        jitter: largest further delay of a message, drawn for each [s]; messages stay in order.
        dropped: share of messages that never arrive, in both directions [1].
        rate: of measurements [Hz].
        noise: on the measurements.
        friction: sliding friction of the ground and the feet [1]; None leaves the model's.
        mass: factor on the mass and inertia of every body, drawn for each [1].
        gains: factor on the gains of every joint's drive, drawn for each [1].
    """

    measurement_latency: Span = (0.0, 0.0)
    command_latency: Span = (0.0, 0.0)
    jitter: NotNegative = 0.0
    dropped: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rate: Positive = 500.0
    noise: Noise = Noise()
    friction: Span | None = None
    mass: Span = (1.0, 1.0)
    gains: Span = (1.0, 1.0)


#: Standard deviations of sensors that are not new.
USUAL_NOISE = Noise(
    position=0.001,
    velocity=0.02,
    effort=0.2,
    orientation=0.01,
    angular_velocity=0.05,
    acceleration=0.2,
    objects=0.001,
    vectors={"foot_forces": 3.0, "base_velocity": 0.02},
)


def usual_realism(latency: Span, *, noise: float, **wrong: Any) -> Realism:
    """What is wrong with a robot, in few numbers.

    Args:
        latency: from a state to the answer to it [s], one half of it on the way out and one on the way back.
        noise: factor on `USUAL_NOISE`.
        wrong: further fields of `Realism`.

    Raises:
        OneStrideError: that cannot be.
    """
    each_way = (0.5 * latency[0], 0.5 * latency[1])
    deviations = USUAL_NOISE.model_dump()
    vectors = {name: noise * deviation for name, deviation in deviations.pop("vectors").items()}
    try:
        scaled = Noise(**{name: noise * deviation for name, deviation in deviations.items()}, vectors=vectors)
        return Realism(measurement_latency=each_way, command_latency=each_way, noise=scaled, **wrong)
    except ValidationError as error:
        raise OneStrideError(f"cannot simulate that: {explain(error)}") from None


class Parameters:
    """A model's parameters as they were loaded, and as they are drawn.

    Args:
        model: freshly loaded.
        data: scratch for what follows from the parameters.
        feet: geoms whose friction is drawn with the ground's.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, feet: list[int]) -> None:
        self._model, self._data = model, data
        self._mass, self._inertia = model.body_mass.copy(), model.body_inertia.copy()
        self._ground = [*np.flatnonzero(model.body_weldid[model.geom_bodyid] == 0), *feet]

    def draw(self, realism: Realism, rng: np.random.Generator) -> None:
        """Change the model's friction and masses; resets the state."""
        if realism.friction is not None:
            self._model.geom_friction[self._ground, 0] = rng.uniform(*realism.friction)
        if realism.mass != (1.0, 1.0):
            factors = rng.uniform(*realism.mass, size=len(self._mass))
            self._model.body_mass[:] = self._mass * factors
            self._model.body_inertia[:] = self._inertia * factors[:, None]
            mujoco.mj_setConst(self._model, self._data)

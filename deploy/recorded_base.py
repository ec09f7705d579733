"""What is recorded of a floating base: its inertial sensor, its feet, its velocity and what is asked of it.

Each is a stream of its own, named as the stream of the measurement and stamped when it was measured. What the estimator
makes of them is one more: it follows from the others, but is what the policy was told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from onestride.datasets.schema import Feature
from onestride.deploy.contract import Contract
from onestride.deploy.sources import COMMAND, IMU, ODOMETRY, TWIST, WXYZ, XYZ
from onestride.deploy.ticks import TickLayout
from onestride.hardware.state import Array, Inertial, Measurement

#: Streams that not every robot has: forces on the feet [N], and the velocity that the estimator makes of the others.
FEET, ESTIMATE = "foot_forces", "estimated_velocity"

_INERTIAL = {
    "imu_orientation": (WXYZ, ("1",) * 4),
    "imu_angular_velocity": (XYZ, ("rad/s",) * 3),
    "imu_acceleration": (XYZ, ("m/s^2",) * 3),
}
_VECTORS = {ODOMETRY.name: (XYZ, ("m/s",) * 3), COMMAND.name: (TWIST, ("m/s", "m/s", "rad/s"))}


class BaseStreams(NamedTuple):
    """What there is to hear of a base.

    Attributes:
        required: streams that the controller cannot do without.
        optional: streams that may stay silent: not every robot has sensors in its feet, nor always a commander.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Both."""
        return (*self.required, *self.optional)

    @property
    def vectors(self) -> tuple[str, ...]:
        """All but the inertial sensor."""
        return tuple(name for name in self.all if name != IMU.name)


def base_streams(contract: Contract, *, legged: bool) -> BaseStreams:
    """What there is to hear of a robot's base; nothing where it has none."""
    if not legged:
        return BaseStreams((), ())
    vectors = [stream for stream in contract.streams if stream.kind == "vector"]
    required = (IMU.name, *(stream.name for stream in vectors if stream.required))
    return BaseStreams(required, (FEET, *(stream.name for stream in vectors if not stream.required)))


def base_features(layout: TickLayout) -> list[Feature]:
    """The features of these streams, and of the estimate where there is one."""
    known = {**_VECTORS, FEET: (layout.feet, ("N",) * len(layout.feet))}
    features = [
        _state(name, stream, *parts)
        for stream in base_streams(layout.contract, legged=bool(layout.feet)).all
        for name, parts in (_INERTIAL if stream == IMU.name else {stream: known[stream]}).items()
    ]
    return [*features, _state(ESTIMATE, ESTIMATE, XYZ, ("m/s",) * 3)] if layout.contract.needs_estimator else features


def _state(name: str, stream: str, names: tuple[str, ...], units: tuple[str, ...]) -> Feature:
    shape = (len(names),)
    return Feature(name=name, role="state", shape=shape, dtype="float64", names=names, units=units, stream=stream)


def inertial_row(imu: Inertial) -> dict[str, Any]:
    """A row of the stream `imu`."""
    return dict(zip(_INERTIAL, (imu.orientation, imu.angular_velocity, imu.acceleration), strict=True))


def base_rows(layout: TickLayout, measurement: Measurement) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream and row of all that a measurement holds of the base."""
    for stream in base_streams(layout.contract, legged=bool(layout.feet)).all:
        if stream == IMU.name:
            if measurement.imu is not None:
                yield stream, inertial_row(measurement.imu)
        elif stream in measurement.vectors:
            yield stream, {stream: measurement.vectors[stream]}


def read_inertial(data: Mapping[str, Array], row: int) -> Inertial:
    """The inertial sensor's reading of one row of a recording."""
    orientation, angular_velocity, acceleration = (np.array(data[name][row]) for name in _INERTIAL)
    return Inertial(orientation, angular_velocity, acceleration)

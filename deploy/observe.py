"""Build a policy's observation from measurements, by the contract's terms and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.contract import Contract
from onestride.deploy.kinematics import ForwardKinematics, yaw_of_matrix, yaw_of_quaternion
from onestride.deploy.sources import COMMAND, JOINTS, ODOMETRY
from onestride.deploy.terms import (
    BaseVelocitySource,
    DatasetSource,
    FrameSource,
    ImuSource,
    JointSource,
    LastActionSource,
    ObjectSource,
    ObservationTerm,
    ScalarSource,
    VelocityCommandSource,
)
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Array, Inertial, Measurement

Reading = Callable[[Measurement], Array]


class BaseVelocity(Protocol):
    """Whatever knows the velocity of the base in its own frame; see `estimator.BaseVelocityEstimator`."""

    def velocity(self, measurement: Measurement) -> Array:
        """The base's linear velocity (3,) [m/s] in its own frame."""
        ...


class Observer:
    """Turns measurements into observations and remembers the history and the action that the policy wants.

    Args:
        contract: the terms.
        forward: the robot's kinematics.
        estimator: of the base's velocity; needed where a term asks for it.

    Raises:
        OneStrideError: a term has no live source, or names a joint or frame that the robot lacks.
    """

    def __init__(self, contract: Contract, forward: ForwardKinematics, estimator: BaseVelocity | None = None) -> None:
        self.contract, self._forward, self._estimator = contract, forward, estimator
        self._parts: list[tuple[slice, Reading]] = []
        self._offset, self._scale = np.zeros(contract.observation_size), np.ones(contract.observation_size)
        self._low, self._high = np.full((2, contract.observation_size), [[-np.inf], [np.inf]])
        start = 0
        for term in contract.observations:
            self._add(slice(start, start + term.size), term)
            start += term.size
        self._history = np.zeros((contract.history, contract.observation_size))
        self._order = np.array(contract.flat_order)
        self.reset()

    def _add(self, place: slice, term: ObservationTerm) -> None:
        reading = self._reading(term)
        self._parts.append((place, partial(_cos_sin, reading) if term.encoding == "cos_sin" else reading))
        self._offset[place], self._scale[place] = term.offset or 0.0, term.scale
        if term.clip is not None:
            self._low[place], self._high[place] = term.clip

    def reset(self) -> None:
        """Forget the history, which the next observation fills, and the last action, which becomes zero."""
        self._empty = True
        self._last_action = np.zeros(self.contract.action_size)

    def acted(self, action: Array) -> None:
        """Remember the action (Da,) that the policy, or whoever stands in for it, has just given."""
        self._last_action = np.array(action, dtype=np.float64)

    def build(self, measurement: Measurement) -> Array:
        """One more step.

        Returns:
            The observation with its history (To * Do,), oldest step first, in the contract's order.
        """
        step = self.step(measurement)
        self._history[:-1] = self._history[1:]
        self._history[-1] = step
        if self._empty:
            self._history[:], self._empty = step, False
        flat: Array = self._history.ravel()[self._order]
        return flat

    def step(self, measurement: Measurement) -> Array:
        """The observation (Do,) of one measurement, without history."""
        read = np.empty(self._scale.shape)
        for place, reading in self._parts:
            read[place] = reading(measurement)
        scaled = (read - self._offset) * self._scale
        return np.asarray(np.minimum(np.maximum(scaled, self._low), self._high))

    def missing_sources(self, measurement: Measurement) -> list[str]:
        """Streams that terms cannot do without and the measurement lacks, by name."""
        present = {JOINTS.name, *measurement.objects, *measurement.scalars, *measurement.vectors}
        if measurement.imu is not None:
            present.add("imu")
        return sorted(stream.name for stream in self.contract.streams if stream.required and stream.name not in present)

    def _reading(self, term: ObservationTerm) -> Reading:
        source = term.source
        if isinstance(source, JointSource):
            return partial(_joints, source.field, np.array(self._forward.robot.indices(source.joints)))
        if isinstance(source, FrameSource):
            self._forward.site(source.frame)
            return partial(self._frame, source)
        if isinstance(source, ObjectSource):
            return partial(_object, source)
        if isinstance(source, ScalarSource):
            return partial(_scalar, source)
        return self._base_reading(term)

    def _base_reading(self, term: ObservationTerm) -> Reading:
        """What only a robot with a floating base has, or a policy on it."""
        source = term.source
        if isinstance(source, ImuSource):
            return partial(_inertial, source)
        if isinstance(source, VelocityCommandSource):
            return partial(_velocity_command, source)
        if isinstance(source, LastActionSource):
            return lambda _: self._last_action
        if isinstance(source, BaseVelocitySource):
            return partial(_vector, ODOMETRY.name) if source.origin == "odometry" else self._estimated(term)
        assert isinstance(source, DatasetSource)
        raise OneStrideError(f"observation {term.name} has no live source: it is known only as in its dataset")

    def _estimated(self, term: ObservationTerm) -> Reading:
        if self._estimator is None:
            raise OneStrideError(
                f"observation {term.name}: expected an estimator of the base's velocity, got none: "
                "the robot has no floating base, or nobody handed one in"
            )
        return self._estimator.velocity

    def _frame(self, source: FrameSource, measurement: Measurement) -> Array:
        self._forward.place(measurement.position, measurement.velocity, source.delay)
        if source.field == "position":
            return self._forward.position(source.frame)
        rotation = self._forward.rotation(source.frame)
        return np.array([yaw_of_matrix(rotation)]) if source.field == "yaw" else _quaternion(rotation)


def _joints(field: str, indices: NDArray[np.intp], measurement: Measurement) -> Array:
    values = measurement.position if field == "position" else measurement.velocity
    return values[indices]


def _object(source: ObjectSource, measurement: Measurement) -> Array:
    if source.object not in measurement.objects:
        raise unknown("object pose", source.object, measurement.objects)
    pose = measurement.objects[source.object]
    if source.field == "position":
        return pose.position
    return pose.quaternion if source.field == "quaternion" else np.array([yaw_of_quaternion(pose.quaternion)])


def _scalar(source: ScalarSource, measurement: Measurement) -> Array:
    if source.scalar not in measurement.scalars:
        raise unknown("scalar reading", source.scalar, measurement.scalars)
    return np.array([measurement.scalars[source.scalar]])


def _vector(name: str, measurement: Measurement) -> Array:
    if name not in measurement.vectors:
        raise unknown("vector reading", name, measurement.vectors)
    return measurement.vectors[name]


def _inertial(source: ImuSource, measurement: Measurement) -> Array:
    imu = measurement.imu
    if imu is None:
        raise OneStrideError(f"expected an inertial sensor for {source.field}, the robot reports none")
    if source.field == "gravity":
        return gravity(imu)
    return {
        "angular_velocity": imu.angular_velocity,
        "acceleration": imu.acceleration,
        "quaternion": imu.orientation,
    }[source.field]


def gravity(imu: Inertial) -> Array:
    """The direction in which things fall, in the base's frame: `-R_WBᵀ e_z` (3,), unit length."""
    w, x, y, z = imu.orientation
    return np.array([2 * (w * y - x * z), -2 * (y * z + w * x), 2 * (x * x + y * y) - 1])


def _velocity_command(source: VelocityCommandSource, measurement: Measurement) -> Array:
    """The command (3,) within its limits; zeros where none has come, or none for longer than its timeout."""
    asked, heard = measurement.vectors.get(COMMAND.name), measurement.received.get(COMMAND.name)
    if asked is None or heard is None or measurement.received.get(JOINTS.name, heard) - heard > source.timeout:
        return np.zeros(3)
    return np.clip(asked, source.low, source.high)


def _quaternion(rotation: Array) -> Array:
    import mujoco

    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion


def _cos_sin(reading: Reading, measurement: Measurement) -> Array:
    angles = reading(measurement)
    return np.concatenate([np.cos(angles), np.sin(angles)])

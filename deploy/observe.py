"""Build a policy's observation from measurements, by the contract's terms and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from onestride.deploy.contract import Contract
from onestride.deploy.kinematics import ForwardKinematics, yaw_of_matrix, yaw_of_quaternion
from onestride.deploy.terms import (
    DatasetSource,
    FrameSource,
    JointSource,
    ObjectSource,
    ObservationTerm,
    ScalarSource,
)
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Array, Measurement

Reading = Callable[[Measurement], Array]


class Observer:
    """Turns measurements into observations and remembers the history the policy wants.

    Raises:
        OneStrideError: a term has no live source, or names a joint or frame that the robot lacks.
    """

    def __init__(self, contract: Contract, forward: ForwardKinematics) -> None:
        self.contract, self._forward = contract, forward
        self._parts: list[tuple[slice, Reading, ObservationTerm]] = []
        start = 0
        for term in contract.observations:
            self._parts.append((slice(start, start + term.size), self._reading(term), term))
            start += term.size
        self._history = np.zeros((contract.history, contract.observation_size))
        self._empty = True

    def reset(self) -> None:
        """Forget the history; the next observation fills all of it."""
        self._empty = True

    def build(self, measurement: Measurement) -> Array:
        """One more step.

        Returns:
            The observation with its history (To * Do,), oldest step first.
        """
        step = self.step(measurement)
        self._history[:-1] = self._history[1:]
        self._history[-1] = step
        if self._empty:
            self._history[:], self._empty = step, False
        return self._history.ravel().copy()

    def step(self, measurement: Measurement) -> Array:
        """The observation (Do,) of one measurement, without history."""
        observation = np.empty(self.contract.observation_size)
        for place, reading, term in self._parts:
            observation[place] = _scaled(term, reading(measurement))
        return observation

    def missing_sources(self, measurement: Measurement) -> list[str]:
        """Objects and scalars that terms name and the measurement lacks."""
        sources = [term.source for term in self.contract.observations]
        objects = {source.object for source in sources if isinstance(source, ObjectSource)}
        scalars = {source.scalar for source in sources if isinstance(source, ScalarSource)}
        return sorted((objects - set(measurement.objects)) | (scalars - set(measurement.scalars)))

    def _reading(self, term: ObservationTerm) -> Reading:
        source = term.source
        if isinstance(source, JointSource):
            return partial(_joints, source.field, self._forward.robot.indices(source.joints))
        if isinstance(source, FrameSource):
            self._forward.site(source.frame)
            return partial(self._frame, source)
        if isinstance(source, ObjectSource):
            return partial(_object, source)
        if isinstance(source, ScalarSource):
            return partial(_scalar, source)
        assert isinstance(source, DatasetSource)
        raise OneStrideError(f"observation {term.name} has no live source: it is known only as in its dataset")

    def _frame(self, source: FrameSource, measurement: Measurement) -> Array:
        self._forward.place(measurement.position, measurement.velocity, source.delay)
        if source.field == "position":
            return self._forward.position(source.frame)
        rotation = self._forward.rotation(source.frame)
        return np.array([yaw_of_matrix(rotation)]) if source.field == "yaw" else _quaternion(rotation)


def _joints(field: str, indices: list[int], measurement: Measurement) -> Array:
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


def _quaternion(rotation: Array) -> Array:
    import mujoco

    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion


def _scaled(term: ObservationTerm, reading: Array) -> Array:
    value = np.concatenate([np.cos(reading), np.sin(reading)]) if term.encoding == "cos_sin" else reading
    value = (value - np.array(term.offset or (0.0,))) * term.scale
    return np.array(value if term.clip is None else np.clip(value, *term.clip))

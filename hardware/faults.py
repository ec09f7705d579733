"""What goes wrong with a robot's sensors while it runs, put on what they measure, one fault at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Array, Measurement

#: How far a position jumps [rad], how fast a joint seems to race [rad/s], how far a base seems to lean [rad].
JUMP, RACE, LEAN = 0.3, 50.0, 1.2


@dataclass(frozen=True)
class Fault:
    """What is wrong, and where.

    Attributes:
        kind: its name.
        where: joint, or a further reading.
        value: that the reading shows.
    """

    kind: str
    where: str = ""
    value: float = math.nan

    @classmethod
    def parse(cls, text: str) -> Fault:
        """A fault from `KIND`, `KIND WHERE` or `KIND WHERE VALUE`.

        Raises:
            OneStrideError: it is none of them.
        """
        words = text.split()
        value = words.pop() if len(words) == 3 else "nan"
        try:
            kind, where = words if len(words) == 2 else (*words, "")
            return cls(kind, where, float(value))
        except ValueError:
            raise OneStrideError(f"fault: expected KIND [WHERE [VALUE]], got {text!r}") from None


Change = Callable[[Measurement, Measurement, int], Measurement]
"""What becomes of a measurement, from the one at which the fault began, the true one, and the joint's index."""


def _with(values: Array, index: int, value: float) -> Array:
    changed = values.copy()
    changed[index] = value
    return changed


def _not_finite(first: Measurement, true: Measurement, joint: int) -> Measurement:
    del first
    return replace(true, position=_with(true.position, joint, math.nan))


def _infinite(first: Measurement, true: Measurement, joint: int) -> Measurement:
    del first
    return replace(true, velocity=_with(true.velocity, joint, math.inf))


def _frozen(first: Measurement, true: Measurement, joint: int) -> Measurement:
    del joint
    return replace(true, position=first.position, velocity=first.velocity)


def _frozen_imu(first: Measurement, true: Measurement, joint: int) -> Measurement:
    del joint
    return replace(true, imu=first.imu)


def _mirrored(first: Measurement, true: Measurement, joint: int) -> Measurement:
    position = _with(true.position, joint, 2 * first.position[joint] - true.position[joint])
    return replace(true, position=position, velocity=_with(true.velocity, joint, -true.velocity[joint]))


def _backwards(first: Measurement, true: Measurement, joint: int) -> Measurement:
    del first, joint
    return replace(true, velocity=-true.velocity)


def _jumped(first: Measurement, true: Measurement, joint: int) -> Measurement:
    del first
    return replace(true, position=_with(true.position, joint, true.position[joint] + JUMP))


def _racing(first: Measurement, true: Measurement, joint: int) -> Measurement:
    del first
    return replace(true, velocity=_with(true.velocity, joint, RACE))


def _unseen(first: Measurement, true: Measurement, joint: int) -> Measurement:
    del first, joint
    return replace(true, objects={})


def _no_imu(first: Measurement, true: Measurement, joint: int) -> Measurement:
    del first, joint
    return replace(true, imu=None)


def _leaning(first: Measurement, true: Measurement, joint: int) -> Measurement:
    del first, joint
    if true.imu is None:
        return true
    orientation = true.imu.orientation.copy()
    mujoco.mju_quatIntegrate(orientation, np.array([LEAN, 0.0, 0.0]), 1.0)
    return replace(true, imu=replace(true.imu, orientation=orientation))


ANY: dict[str, Change] = {
    "not_finite": _not_finite,
    "infinite": _infinite,
    "frozen": _frozen,
    "mirrored": _mirrored,
    "backwards": _backwards,
    "jumped": _jumped,
    "racing": _racing,
    "unseen": _unseen,
}
BASE: dict[str, Change] = {"frozen_imu": _frozen_imu, "no_imu": _no_imu, "leaning": _leaning}


class SensorFault:
    """A fault of the sensors, from its first measurement on.

    Args:
        fault: one of `kinds`; `stuck` needs a scalar and the value that it shows for ever.
        robot: that is measured; without a joint, its first is meant.
        scalars: names of the further readings.

    Raises:
        OneStrideError: there is no such fault, joint or scalar.
    """

    def __init__(self, fault: Fault, robot: RobotDescription, scalars: Collection[str] = ()) -> None:
        if fault.kind not in self.kinds(robot):
            raise unknown("fault", fault.kind, self.kinds(robot))
        if fault.kind == "stuck" and fault.where not in scalars:
            raise unknown("scalar", fault.where, scalars)
        self._fault, self._first = fault, None
        self._change = {**ANY, **BASE}.get(fault.kind)
        self._joint = 0
        if self._change is not None and fault.where:
            (self._joint,) = robot.indices((fault.where,))

    _first: Measurement | None

    @staticmethod
    def kinds(robot: RobotDescription) -> tuple[str, ...]:
        """What can go wrong with this robot's sensors."""
        return ("stuck", *ANY, *(() if robot.base is None else BASE))

    def __call__(self, true: Measurement) -> Measurement:
        """What is reported in place of the truth."""
        self._first = self._first or true
        if self._change is None:
            return replace(true, scalars={**true.scalars, self._fault.where: self._fault.value})
        return self._change(self._first, true, self._joint)

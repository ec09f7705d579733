"""What drives with joint impedance are told: where to be, how fast, with which force, how stiff and how damped."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from onestride.hardware.description import DampingStop, RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array


@dataclass(frozen=True)
class ImpedanceCommand:
    """One message to all drives: `torque = stiffness (position - q) + damping (velocity - dq) + effort`.

    Attributes:
        position: wanted (n,) [rad], in the order of the robot description.
        velocity: wanted (n,) [rad/s].
        effort: fed forward (n,) [Nm].
        stiffness: (n,) [Nm/rad], not negative.
        damping: (n,) [Nm s/rad], not negative.

    Raises:
        OneStrideError: the arrays differ in length, a value is not finite, or a gain is negative.
    """

    position: Array
    velocity: Array
    effort: Array
    stiffness: Array
    damping: Array

    def __post_init__(self) -> None:
        row = self.row()
        if len({np.shape(part) for part in self._parts()}) > 1 or not np.isfinite(row).all():
            raise OneStrideError(f"expected an impedance command of finite numbers, got {row.tolist()}")
        if self.stiffness.min() < 0.0 or self.damping.min() < 0.0:
            raise OneStrideError("expected gains that are not negative, because the others feed energy to the robot")

    def _parts(self) -> tuple[Array, ...]:
        return tuple(getattr(self, part.name) for part in fields(self))

    @classmethod
    def towards(cls, robot: RobotDescription, target: ArrayLike) -> ImpedanceCommand:
        """Be at `target` (n,) [rad], with the robot's own gains."""
        position = np.asarray(target, dtype=np.float64)
        if position.shape != (len(robot.joints),) or not np.isfinite(position).all():
            raise OneStrideError(f"expected {len(robot.joints)} finite joint targets, got {position.tolist()}")
        nothing = np.zeros_like(position)
        stiffness, damping = np.array([[joint.stiffness, joint.damping] for joint in robot.joints]).T
        return cls(position, nothing, nothing, stiffness, damping)

    @classmethod
    def damped(cls, robot: RobotDescription) -> ImpedanceCommand:
        """The safe stop: no stiffness, only the declared damping.

        Raises:
            OneStrideError: the robot's safe stop is another.
        """
        if not isinstance(robot.safe_stop, DampingStop):
            raise OneStrideError(f"robot {robot.id}: expected damping as its safe stop, got {robot.safe_stop.kind}")
        nothing = np.zeros(len(robot.joints))
        return cls(nothing, nothing, nothing, nothing, np.full_like(nothing, robot.safe_stop.damping))

    def row(self) -> Array:
        """As one array (5n,): position, velocity, effort, stiffness, damping, as the command topic carries them."""
        return np.concatenate(self._parts())

    @classmethod
    def from_row(cls, row: ArrayLike) -> ImpedanceCommand:
        """What `row` (5n,) says.

        Raises:
            OneStrideError: its length is not that of five arrays, or they are refused.
        """
        values = np.asarray(row, dtype=np.float64)
        if values.ndim != 1 or len(values) == 0 or len(values) % 5:
            raise OneStrideError(f"expected five numbers for every joint in one row, got shape {values.shape}")
        return cls(*values.reshape(5, -1))

    def torque(self, position: Array, velocity: Array) -> Array:
        """What the drives try to give (n,) [Nm] at the measured `position` (n,) [rad] and `velocity` (n,) [rad/s]."""
        spring = self.stiffness * (self.position - position)
        return spring + self.damping * (self.velocity - velocity) + self.effort

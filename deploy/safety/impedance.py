"""Claim: every target sent is inside the position limits, and asks no drive for more than its effort.

For drives that compute `stiffness (target - q) - damping dq` themselves. The effort is that at the measured state,
which is as old as the measurement is; the drives clip what they compute in between. A soft drive stays behind its
target, so targets may jump: their speed is not limited here, the effort is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onestride.deploy.safety.types import Box, Motion, Rows
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array


class ImpedanceLimits:
    """States position and effort limits as boxes of targets."""

    name = "impedance"
    claim = "targets inside the position limits, whose effort at the measured state the drives have"

    def __init__(self, robot: RobotDescription) -> None:
        self._lower, self._upper = robot.position_limits
        stiffness = np.array([joint.stiffness for joint in robot.joints])
        effort = np.array([np.inf if joint.effort is None else joint.effort for joint in robot.joints])
        self._reach = effort / stiffness
        self._lag = np.array([joint.damping for joint in robot.joints]) / stiffness

    def reset(self, motion: Motion) -> None:
        """Nothing is remembered."""

    def observe(self, motion: Motion) -> None:
        """Nothing is remembered."""

    def sent(self, motion: Motion, command: Array) -> None:
        """Nothing is remembered."""

    def readings(self) -> Mapping[str, float]:
        """Nothing to watch."""
        return {}

    def rows(self, motion: Motion) -> tuple[Rows | Box, ...]:
        """Position limits, and how far a target may be from where the damping alone would hold it."""
        free = motion.position + self._lag * motion.velocity
        shape = np.shape(free)
        return (
            Box("position", np.broadcast_to(self._lower, shape), np.broadcast_to(self._upper, shape), lasting=True),
            Box("effort", free - self._reach, free + self._reach),
        )

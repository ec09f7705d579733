"""Claim: control begins, and goes on, only where the certificate of what follows holds.

A certificate says nothing about states above its level. Activation asks the chain, so that a mode whose certificate
does not hold at the present state is refused before anything moves.
"""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.lyapunov import JointCertificate
from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.safety.certificates import RegionFilter
from onestride.hardware.state import Array


class Region:
    """Refuses states outside the certified region."""

    name = "region"
    claim = "the state is where the certificate holds"

    def __init__(self, terms: RegionFilter, robot: RobotDescription, period: float) -> None:
        self._joints, self._names = JointCertificate(terms, robot, period), robot.joint_names

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Pass `nominal` (n,) on, or declare it infeasible and name the joint."""
        velocity = np.zeros_like(state.last_sent) if state.sent_velocity is None else state.sent_velocity
        value = self._joints.value(state.last_sent - self._joints.goal, velocity)
        worst = int(np.argmax(value))
        level, found = self._joints.level, float(value[worst])
        if not found < level:
            reason = f"{self._names[worst]} is outside the certified region: expected V < {level:.4g}, got {found:.4g}"
            return Certified(nominal, feasible=False, reason=reason)
        return Certified(nominal, margin=level - found)

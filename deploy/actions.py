"""Turn a policy's action into joint targets, by the contract's terms."""

from __future__ import annotations

import numpy as np

from onestride.deploy.contract import Contract
from onestride.deploy.kinematics import ForwardKinematics, IncrementSolver
from onestride.deploy.terms import ActionTerm
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array, Measurement


class ActionMapper:
    """Joint targets of an action: positions, or relative to what was measured when it begins.

    Raises:
        OneStrideError: an action is known only as in its dataset, or the robot lacks a joint or frame.
    """

    def __init__(self, contract: Contract, forward: ForwardKinematics) -> None:
        self._robot = forward.robot
        self._slices: dict[str, tuple[slice, ActionTerm]] = {}
        self._joint_terms: list[tuple[slice, ActionTerm, list[int]]] = []
        start = 0
        for term in contract.actions:
            place = slice(start, start + term.size)
            start += term.size
            self._add(place, term)
        self._solver = None
        if contract.kinematics is not None:
            self._solver = IncrementSolver(contract.kinematics, forward)
            self._solved = self._robot.indices(contract.kinematics.joints)

    def _add(self, place: slice, term: ActionTerm) -> None:
        if term.mode == "dataset":
            raise OneStrideError(f"action {term.name} cannot be run: it is known only as in its dataset")
        if term.joints:
            self._joint_terms.append((place, term, self._robot.indices(term.joints)))
        else:
            self._slices[term.mode] = (place, term)

    def target(self, measurement: Measurement, action: Array, last_sent: Array) -> Array:
        """Joint targets (n,) [rad] of `action` (Da,); joints that no term moves keep `last_sent` (n,)."""
        target = np.array(last_sent)
        if self._solver is not None:
            translation = self._scaled("effector_position_increment", action, np.zeros(3))
            yaw = self._scaled("effector_yaw_increment", action, np.zeros(1))
            target[self._solved] = self._solver.target(
                measurement.position, measurement.velocity, translation, float(yaw[0])
            )
        lower, upper = self._robot.position_limits
        for place, term, joints in self._joint_terms:
            start = np.array(term.offset)
            if term.mode == "joint_increment":
                start = np.clip(measurement.position[joints], lower[joints], upper[joints])
            target[joints] = np.clip(start + _physical(term, action[place]), lower[joints], upper[joints])
        return target

    def _scaled(self, mode: str, action: Array, default: Array) -> Array:
        if mode not in self._slices:
            return default
        place, term = self._slices[mode]
        return _physical(term, action[place])


def _physical(term: ActionTerm, values: Array) -> Array:
    held = values if term.clip is None else np.clip(values, *term.clip)
    return np.asarray(held * np.asarray(term.scale))

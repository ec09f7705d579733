"""Turn a policy's action into joint targets, by the contract's terms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
        self._lower, self._upper = self._robot.position_limits
        self._scale = np.ones(contract.action_size)
        self._low, self._high = np.full((2, contract.action_size), [[-np.inf], [np.inf]])
        self._slices: dict[str, slice] = {}
        self._joint_terms: list[tuple[slice, ActionTerm, NDArray[np.intp]]] = []
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
        self._scale[place] = term.scale
        if term.clip is not None:
            self._low[place], self._high[place] = term.clip
        if term.joints:
            self._joint_terms.append((place, term, np.array(self._robot.indices(term.joints))))
        else:
            self._slices[term.mode] = place

    def target(self, measurement: Measurement, action: Array, last_sent: Array) -> Array:
        """Joint targets (n,) [rad] of `action` (Da,); joints that no term moves keep `last_sent` (n,)."""
        target, physical = np.array(last_sent), self._physical(action)
        if self._solver is not None:
            translation = self._part("effector_position_increment", physical, np.zeros(3))
            yaw = self._part("effector_yaw_increment", physical, np.zeros(1))
            target[self._solved] = self._solver.target(
                measurement.position, measurement.velocity, translation, float(yaw[0])
            )
        for place, term, joints in self._joint_terms:
            lower, upper = self._lower[joints], self._upper[joints]
            start = np.array(term.offset)
            if term.mode == "joint_increment":
                start = np.minimum(np.maximum(measurement.position[joints], lower), upper)
            target[joints] = np.minimum(np.maximum(start + physical[place], lower), upper)
        return target

    def _physical(self, action: Array) -> Array:
        """An action (Da,) in the units of its terms."""
        return np.asarray(np.minimum(np.maximum(action, self._low), self._high) * self._scale)

    def _part(self, mode: str, physical: Array, default: Array) -> Array:
        return physical[self._slices[mode]] if mode in self._slices else default

"""What a person asks of the arm, in the contract's action units: by a joystick's axes, a twist or a leader arm.

Each kind writes the elements of the action that it moves; the others are left as they are: at what keeps the robot
where it was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from onestride.deploy.contract import Contract
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.teleop.mapping import Mapping
from onestride.deploy.teleop.staying import Increments, placed
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array, Measurement

Numbers = Sequence[float] | Array

#: Share of the leader's grip's travel beyond which the person has moved it.
GRIP_MOVES = 0.05


class Motion(Protocol):
    """One kind of device."""

    def begin(self, message: Array, measurement: Measurement, last_sent: Array) -> None:
        """The person takes the robot, which was last sent to `last_sent` (n,) [rad]."""
        ...

    def write(self, action: Array, message: Array, measurement: Measurement) -> None:
        """Write what `message` asks for into `action` (Da,), which is clipped to its box afterwards."""
        ...


class AxesMotion:
    """A joystick's axes: full deflection asks for the whole box of an element, the dead zone for no motion."""

    def __init__(self, contract: Contract, mapping: Mapping) -> None:
        names = contract.action_names
        self._axes = np.array([axis.axis for axis in mapping.axes.values()], dtype=int)
        self._gains = np.array([axis.gain for axis in mapping.axes.values()])
        self._elements = np.array([names.index(name) for name in mapping.axes], dtype=int)
        low, high = action_box(contract)
        self._low, self._high = low[self._elements], high[self._elements]
        self._dead, self._from_sent = mapping.dead_zone, mapping.reference == "sent"
        if not mapping.axes:
            raise OneStrideError(f"mapping: expected an axis for some of {', '.join(names)}, got none")

    @property
    def size(self) -> int:
        """How many axes the joystick must have."""
        return int(self._axes.max()) + 1

    def begin(self, message: Array, measurement: Measurement, last_sent: Array) -> None:
        """An axis has no memory."""

    def write(self, action: Array, message: Array, measurement: Measurement) -> None:
        """Write the elements that have an axis."""
        del measurement
        share = self._gains * deflection(message[self._axes], self._dead)
        asked = np.where(share >= 0, share * self._high, -share * self._low)
        action[self._elements] = asked + action[self._elements] if self._from_sent else asked


class TwistMotion:
    """A velocity of the moved frame in the world, held for one policy step; angular x and y are not the contract's."""

    def __init__(self, contract: Contract, mapping: Mapping) -> None:
        self._parts: list[tuple[slice, slice, float]] = []
        seconds, self._from_sent = 1.0 / contract.execution.policy_rate, mapping.reference == "sent"
        for place, term in placed(contract):
            twist = _TWIST.get(term.mode)
            if twist is not None:
                self._parts.append((place, twist, 1.0 if mapping.twist == "unitless" else seconds / term.uniform_scale))
        if not self._parts:
            raise OneStrideError(
                "a twist moves an effector: expected effector increments among the actions, "
                f"got {', '.join(term.mode for term in contract.actions)}; use a joystick or a leader arm"
            )

    def begin(self, message: Array, measurement: Measurement, last_sent: Array) -> None:
        """A twist has no memory."""

    def write(self, action: Array, message: Array, measurement: Measurement) -> None:
        """Write the effector's increments for `message` (6,): linear, then angular."""
        del measurement
        for place, twist, scale in self._parts:
            asked = message[twist] * scale
            action[place] = asked + action[place] if self._from_sent else asked


_TWIST = {"effector_position_increment": slice(0, 3), "effector_yaw_increment": slice(5, 6)}


class LeaderMotion:
    """A leader arm of the robot's own kinematics: the increment that takes the robot where the leader is.

    Reference: leader-follower teleoperation as in ALOHA (arXiv:2304.13705), here through the contract's increments.

    Args:
        contract: its actions and kinematics.
        mapping: which joint is which.
        forward: the robot's kinematics, which are also the leader's.
    """

    def __init__(self, contract: Contract, mapping: Mapping, forward: ForwardKinematics) -> None:
        leader = mapping.leader
        self._relative = leader.follow == "relative"
        self.names = tuple(joint.name for joint in leader.joints.values())
        self._joints = forward.robot.indices(tuple(leader.joints))
        self._signs = np.array([joint.sign for joint in leader.joints.values()], dtype=float)
        self._offsets = np.array([joint.offset for joint in leader.joints.values()])
        self._increments = Increments(contract, forward)
        self._ahead, self._frame_ahead = np.zeros(len(self._joints)), np.zeros(4)
        _complete(contract, mapping)
        self._grip = None if leader.gripper is None else _Grip(contract, mapping, forward)
        if leader.gripper is not None:
            self.names = (*self.names, leader.gripper.name)

    def begin(self, message: Array, measurement: Measurement, last_sent: Array) -> None:
        """Keep how far the robot is ahead of the leader, so that taking it does not move it."""
        if self._relative:
            pose = self._pose(message, measurement)
            self._ahead = last_sent[self._joints] - pose[self._joints]
            self._frame_ahead = self._increments.frame(last_sent) - self._increments.frame(pose)
            if self._grip is not None:
                self._grip.keep(float(message[-1]))

    def write(self, action: Array, message: Array, measurement: Measurement) -> None:
        """Write the increments from the measured pose to the leader's."""
        pose = self._pose(message, measurement)
        self._increments.write_frame(action, self._increments.frame(pose) + self._frame_ahead, measurement)
        targets = np.full(len(pose), np.nan)
        targets[self._joints] = pose[self._joints] + self._ahead
        self._increments.write_joints(action, targets, measurement)
        if self._grip is not None:
            self._grip.write(action, float(message[-1]), measurement)

    def _pose(self, message: Array, measurement: Measurement) -> Array:
        """The robot's joints (n,) [rad] with the leader's in their places."""
        pose = np.array(measurement.position)
        pose[self._joints] = self._signs * message[: len(self._joints)] + self._offsets
        return pose


def _complete(contract: Contract, mapping: Mapping) -> None:
    needed = contract.kinematics.joints if contract.kinematics is not None else ()
    lacking = [joint for joint in needed if joint not in mapping.leader.joints]
    if lacking:
        raise OneStrideError(f"mapping: expected leader joints for {', '.join(needed)}, got none for {lacking[0]}")


class _Grip:
    """The leader's grip as the gripper's element of the action."""

    def __init__(self, contract: Contract, mapping: Mapping, forward: ForwardKinematics) -> None:
        leader, buttons = mapping.leader.gripper, mapping.gripper
        if leader is None or buttons is None or leader.open == leader.closed:
            raise OneStrideError(
                "mapping: leader.gripper: expected the element `gripper.element` and readings open != closed"
            )
        self._element = contract.action_names.index(buttons.element)
        owners = [(term, self._element - place.start) for place, term in placed(contract) if self._element < place.stop]
        term, index = owners[0]
        if not term.joints:
            raise OneStrideError(f"mapping: leader.gripper: expected an element that moves a joint, got {term.mode}")
        (self._joint,) = forward.robot.indices((term.joints[index],))
        self._open, self._closed, self._scale = leader.open, leader.closed, term.uniform_scale
        limits = [float(limit[self._joint]) for limit in forward.robot.position_limits]
        self._from, self._to = limits if buttons.closing > 0 else limits[::-1]
        self._low, self._high = min(limits), max(limits)
        self._kept: float | None = None

    def keep(self, reading: float) -> None:
        """Leave the gripper as it is until the leader's grip has moved away from `reading`."""
        self._kept = reading

    def write(self, action: Array, reading: float, measurement: Measurement) -> None:
        """Write the increment that closes the gripper as far as the leader's is."""
        if self._kept is not None and abs(reading - self._kept) < GRIP_MOVES * abs(self._closed - self._open):
            return
        self._kept = None
        share = float(np.clip((reading - self._open) / (self._closed - self._open), 0.0, 1.0))
        target = self._from + share * (self._to - self._from)
        start = float(np.clip(measurement.position[self._joint], self._low, self._high))
        action[self._element] = (target - start) / self._scale


def action_box(contract: Contract) -> tuple[Array, Array]:
    """Lowest and highest action (Da,)."""
    box = np.array([term.clip or (-np.inf, np.inf) for term in contract.actions for _ in term.names], dtype=float)
    return box[:, 0], box[:, 1]


def deflection(values: Array, dead_zone: float) -> Array:
    """Deflection in [-1, 1] of axes, zero inside the dead zone and continuous at its edge."""
    within = np.clip(values, -1.0, 1.0)
    return np.asarray(np.sign(within) * np.maximum(np.abs(within) - dead_zone, 0.0) / (1.0 - dead_zone))


def finite(what: str, values: Numbers, size: int, *, more: bool = False) -> Array:
    """A message's numbers as an array.

    Args:
        what: in words.
        values: of the message.
        size: how many are expected.
        more: further ones are allowed.

    Raises:
        ValueError: there are too few or too many, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    if len(array) < size or (len(array) > size and not more):
        raise ValueError(f"expected {'at least ' if more else ''}{size} {what}, got {len(array)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} not finite")
    return array


def by_name(wanted: Sequence[str], names: Sequence[str], positions: Numbers) -> Array:
    """Positions of the joints `wanted`, from a message's names and positions in any order.

    Raises:
        ValueError: a joint is missing or named twice, there is not one position per name, or one is not finite.
    """
    lacking = [name for name in wanted if list(names).count(name) != 1]
    if lacking:
        raise ValueError(f"expected once each: {', '.join(lacking)}; got {', '.join(names) or 'no names'}")
    array = np.asarray(positions, dtype=np.float64).ravel()
    if len(array) != len(names):
        raise ValueError(f"expected one position per name, got {len(array)} for {len(names)} names")
    return finite("joint positions", array[[list(names).index(name) for name in wanted]], len(wanted))

"""A person at the controls: who acts now, and with which action.

Fail closed: without a fresh, finite, complete message from every device, and without the deadman held, nobody moves
the robot. After a break the deadman must be let go before it counts again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from onestride.deploy.contract import Contract
from onestride.deploy.controller import Actor
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.teleop.mapping import Mapping
from onestride.deploy.teleop.motions import (
    AxesMotion,
    LeaderMotion,
    Motion,
    Numbers,
    TwistMotion,
    action_box,
    by_name,
    finite,
)
from onestride.deploy.teleop.staying import Increments
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.state import Array, Measurement

Device = Literal["joy", "twist", "leader"]
DEVICES: tuple[Device, ...] = ("joy", "twist", "leader")


class Operator:
    """Turns a person's messages into nominal actions. Not thread-safe: it belongs to the control thread.

    Args:
        contract: whose actions it gives.
        mapping: what the devices mean.
        forward: the robot's kinematics.
        device: what moves the robot; buttons come from the joystick in any case.
        supervises: a policy acts while the deadman is not held; without one, nobody does.

    Attributes:
        counts: messages `taken`, and not taken by reason, of the joystick and the device.

    Raises:
        OneStrideError: the mapping gives the device nothing to move.
    """

    def __init__(
        self, contract: Contract, mapping: Mapping, forward: ForwardKinematics, device: Device, *, supervises: bool
    ) -> None:
        if device not in DEVICES:
            raise unknown("device of teleoperation", device, DEVICES)
        self.contract, self.mapping, self.device = contract, mapping, device
        self._supervises = supervises
        self._low, self._high = action_box(contract)
        self._increments = Increments(contract, forward)
        self._axes = AxesMotion(contract, mapping) if device == "joy" else None
        self._leader = LeaderMotion(contract, mapping, forward) if device == "leader" else None
        self._motion: Motion = self._axes or self._leader or TwistMotion(contract, mapping)
        self._gripper = None if mapping.gripper is None else contract.action_names.index(mapping.gripper.element)
        grips = self._leader is not None and mapping.leader.gripper is not None
        self._grip_buttons = None if grips else mapping.gripper
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in dict.fromkeys(("joy", device))}
        self._buttons = _Newest()
        self._message = self._buttons if device == "joy" else _Newest()
        self._pressed = np.zeros(mapping.buttons, dtype=bool)
        self.reset()

    def reset(self) -> None:
        """The controller is activated: the deadman counts once it has been seen let go."""
        self._armed = self._taking = False
        self._actor = Actor.NOBODY
        self._frame = np.zeros(4)
        self._grip = 0

    # Messages

    def hear_joy(self, axes: Numbers, buttons: Sequence[int], received: float) -> None:
        """A joystick's message, received at `received` on the monotonic clock [s]."""
        try:
            pressed = finite("buttons", buttons, self.mapping.buttons, more=True) > 0
            values = finite("axes", axes, self._axes.size if self._axes is not None else 0, more=True)
        except ValueError as error:
            self._buttons.refuse(str(error))
            self.counts["joy"][str(error)] += 1
            return
        self._pressed = pressed
        self._buttons.take(values, received)
        self.counts["joy"]["taken"] += 1

    def hear_twist(self, linear: Numbers, angular: Numbers, received: float) -> None:
        """A twist: linear (3,) [m/s] and angular (3,) [rad/s], or shares of the box."""
        try:
            values = np.concatenate([finite("linear", linear, 3), finite("angular", angular, 3)])
        except ValueError as error:
            self._refuse(str(error))
            return
        self._take(values, received)

    def hear_leader(self, names: Sequence[str], positions: Numbers, received: float) -> None:
        """A leader arm's joints, in any order [rad]."""
        try:
            values = by_name(self._leader.names if self._leader is not None else (), names, positions)
        except ValueError as error:
            self._refuse(str(error))
            return
        self._take(values, received)

    def _take(self, values: Array, received: float) -> None:
        self._message.take(values, received)
        self.counts[self.device]["taken"] += 1

    def _refuse(self, reason: str) -> None:
        self._message.refuse(reason)
        self.counts[self.device][reason] += 1

    @property
    def misunderstood(self) -> str:
        """Why the newest message of a device is of no use; empty if none is bad."""
        devices = {"joy": self._buttons, self.device: self._message}
        return next((f"{name}: {newest.reason}" for name, newest in devices.items() if newest.reason), "")

    def problem(self, now: float) -> str:
        """Why the person is not heard at `now` [s]; empty if both device and buttons are fresh and sound."""
        if self.misunderstood:
            return self.misunderstood
        for name, newest in {"joy": self._buttons, self.device: self._message}.items():
            age = now - newest.received
            if not age <= self.mapping.stale:
                since = "yet" if age == float("inf") else f"for {age:.2f} s"
                return f"{name}: no message {since}, expected one every {self.mapping.stale} s"
        return ""

    # Acting

    def look(self, now: float) -> Actor:
        """Who may act at `now` [s]; to be asked at every tick."""
        before, self._actor = self._actor, self._who(now)
        if self._actor is Actor.OPERATOR:
            self._taking = self._taking or before is not Actor.OPERATOR
            self._look_at_gripper(begin=before is not Actor.OPERATOR)
        return self._actor

    def _who(self, now: float) -> Actor:
        if self.problem(now):
            self._armed = False
            return Actor.NOBODY
        if not self._pressed[self.mapping.deadman]:
            self._armed = True
            return Actor.POLICY if self._supervises else Actor.NOBODY
        return Actor.OPERATOR if self._armed else Actor.NOBODY

    def _look_at_gripper(self, *, begin: bool) -> None:
        """What was asked of the gripper last, since the person took the robot."""
        self._grip = 0 if begin else self._grip
        gripper = self._grip_buttons
        if gripper is None:
            return
        opening, closing = self._pressed[gripper.open], self._pressed[gripper.close]
        if opening != closing:
            self._grip = gripper.closing if closing else -gripper.closing

    def action(self, measurement: Measurement, last_sent: Array) -> Array:
        """What the person asks for now (Da,), inside the action's box.

        Args:
            measurement: the newest.
            last_sent: the last command (n,) [rad].

        Raises:
            OneStrideError: there is no message to act by; ask `look` first.
        """
        message = self._message.value
        if message is None:
            raise OneStrideError("expected a message of the operator, got none")
        if self._taking:
            self._motion.begin(message, measurement, last_sent)
            self._frame = self._increments.frame(last_sent)
            self._taking = False
        action = self._increments.staying(measurement, last_sent, self._frame)
        self._motion.write(action, message, measurement)
        if self._grip and self._gripper is not None:
            action[self._gripper] = self._high[self._gripper] if self._grip > 0 else self._low[self._gripper]
        action = np.clip(action, self._low, self._high)
        self._frame = self._increments.sent(action, measurement)
        return action

    def rest(self, measurement: Measurement, last_sent: Array) -> Array:
        """The action (Da,) of a robot that holds where it was sent."""
        return np.clip(self._increments.staying(measurement, last_sent), self._low, self._high)


class _Newest:
    """The newest message of a device: a bad one replaces a good one."""

    def __init__(self) -> None:
        self.value: Array | None = None
        self.received, self.reason = float("-inf"), ""

    def take(self, value: Array, received: float) -> None:
        self.value, self.received, self.reason = value, received, ""

    def refuse(self, reason: str) -> None:
        self.value, self.reason = None, reason

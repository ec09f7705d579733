"""Claim: every command sent keeps the joints' position limits, and their speed limits from the last one *sent*.

Speed is the change from the last sent command over one period. It is bounded by the joint's limit, and near a
position limit so that the declared safe stop, begun at any time, still ends before that limit. Assumes that commands
are sent once a period and that the drives follow them. The measured joint may lag; what is bounded is the command.
"""

from __future__ import annotations

import numpy as np

from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array

#: Commands are float64; differences of this size [rad] are rounding, not intervention.
ROUNDING = 1e-9

#: Deceleration [rad/s^2] of joints whose drives limit their own speed: the safe stop holds them at once.
AT_ONCE = 1e12


def stoppable_step(distance: Array, slowing: Array) -> Array:
    """The largest change in one period after which the safe stop still covers no more than `distance` in all.

    A step of `u` times `slowing` is followed by `u - 1`, `u - 2`, ... times it. With `k` whole steps after the first,
    they add up to `(k + 1) u - k (k + 1) / 2`, which is solved for `u`.

    Args:
        distance: to the limit, before the step (..., n) [rad].
        slowing: how much shorter the stop makes each step, deceleration times period squared (n,) [rad].

    Returns:
        The step (..., n) [rad].
    """
    room = np.maximum(distance, 0.0) / slowing
    k = np.floor((np.sqrt(1.0 + 8.0 * room) - 1.0) / 2.0)
    return np.asarray(np.maximum(distance, 0.0) / (k + 1.0) + k / 2.0 * slowing)


def command_box(last_sent: Array, reach: Array, slowing: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The commands that keep the limits.

    Args:
        last_sent: (..., n) [rad].
        reach: largest change in one period (..., n) [rad].
        slowing: see `stoppable_step` (n,) [rad].
        lower: position limits (n,) [rad].
        upper: position limits (n,) [rad].

    Returns:
        Lowest and highest command (..., n); lowest > highest where no command keeps them.
    """
    down = np.minimum(reach, stoppable_step(last_sent - lower, slowing))
    up = np.minimum(reach, stoppable_step(upper - last_sent, slowing))
    return np.maximum(lower, last_sent - down), np.minimum(upper, last_sent + up)


class JointLimits:
    """Clamps a command to the position limits and to the speeds, from the last sent command, that may be stopped."""

    name = "joint_limits"

    def __init__(self, robot: RobotDescription) -> None:
        self._names = robot.joint_names
        self._lower, self._upper = robot.position_limits
        self._speed = robot.velocity_limits
        self._deceleration = np.where(np.isfinite(self._speed), robot.safe_stop.deceleration, AT_ONCE)

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """The closest command to `nominal` (n,) that keeps the limits."""
        reach = self._speed * (state.speed_scale * state.period)
        slowing = self._deceleration * state.period**2
        low, high = command_box(state.last_sent, reach, slowing, self._lower, self._upper)
        if np.any(low > high):
            joint = int(np.argmax(low - high))
            return Certified(nominal, feasible=False, reason=f"{self._names[joint]} was commanded outside its limits")
        action = np.clip(nominal, low, high)
        margin = float(np.minimum(action - self._lower, self._upper - action).min())
        return Certified(action, active=self._active(state, nominal, reach, action), margin=margin)

    def _active(self, state: ControlState, nominal: Array, reach: Array, action: Array) -> tuple[str, ...]:
        changed = np.abs(action - nominal) > ROUNDING
        outside = (nominal < self._lower - ROUNDING) | (nominal > self._upper + ROUNDING)
        too_fast = np.abs(nominal - state.last_sent) > reach + ROUNDING
        rules = {"position": outside, "velocity": too_fast, "stopping": changed & ~outside & ~too_fast}
        return tuple(rule for rule, joints in rules.items() if np.any(joints))

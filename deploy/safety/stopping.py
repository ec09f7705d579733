"""What the safe stop would do from a state and from a command: computed once, and used by every row of geometry."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onestride.deploy.safety.braking import Path, Worst
from onestride.deploy.safety.joints import joint_limits
from onestride.deploy.safety.reach import Limits, stopping_change
from onestride.deploy.safety.types import Motion
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array

#: The widest box of steps changes a joint's speed by this fraction of its limit in one tick.
WIDEST = 0.25


class Ahead(NamedTuple):
    """What lies ahead of a state, each (B, n) [rad] unless said otherwise.

    Attributes:
        limits: of the joints per period; joints whose drives limit their own speed have the speed 0.
        last: the last step.
        stop: the stop's next step.
        path: of the stop from here.
        spread: how far the steps that are looked at may be from `stop` (n,) [rad].
        reach: where any of these steps, and the stop after it, may lead.
        chord: half way between where the first and the last of these steps lead.
    """

    limits: Limits
    last: Array
    stop: Array
    path: Path
    spread: Array
    reach: Path
    chord: Path


class Stopping:
    """The stop of one robot. Not thread-safe: one instance per thread."""

    def __init__(self, robot: RobotDescription) -> None:
        self.limited = np.isfinite(robot.velocity_limits)
        self._robot, self._period = robot, 0.0
        self._motion: Motion | None = None
        self._after: tuple[Motion, bytes, Path] | None = None
        self._around: tuple[Motion, bytes, Path] | None = None

    def ahead(self, motion: Motion) -> Ahead:
        """The stop from a state, and the steps around it."""
        if motion is not self._motion:
            self._ahead, self._motion = self._look(motion), motion
        return self._ahead

    def after(self, motion: Motion, command: Array) -> Path:
        """Where a command (B, n) [rad] and the stop after it lead, from the last sent command on."""
        key = command.tobytes()
        if self._after is None or self._after[0] is not motion or self._after[1] != key:
            last, limits = motion.sent_velocity * motion.period, self._limits_of(motion.period)
            self._after = motion, key, Path.stopped(command - motion.sent, last, limits)
        return self._after[2]

    def towards(self, motion: Motion, command: Array) -> Path:
        """The same as positions."""
        return self.after(motion, command).seen_from(-motion.sent)

    def around(self, motion: Motion, command: Array) -> Path:
        """Positions around a command (B, n) [rad] that the stop may lead to, wider than `towards`, and cheap."""
        key = command.tobytes()
        if self._around is None or self._around[0] is not motion or self._around[1] != key:
            self._limits_of(motion.period)
            step, last = command - motion.sent, motion.sent_velocity * motion.period
            self._around = motion, key, Path.around(command, self._worst.overshoot(step, step - last))
        return self._around[2]

    def _look(self, motion: Motion) -> Ahead:
        limits = self._limits_of(motion.period)
        last = motion.sent_velocity * motion.period
        stop = last + stopping_change(last, motion.sent_acceleration * motion.period**2, limits)
        slowest, fastest = stop - self._spread, stop + self._spread
        # How far a step leads is convex on either side of full deceleration: it leads furthest at an end, or there.
        full = (np.clip(last + change, slowest, fastest) for change in (-limits.braking, limits.braking))
        steps = np.concatenate([stop, slowest, fastest, *full])
        stopped = Path.stopped(steps, np.concatenate([last] * 5), limits)
        paths = Path(*(part.reshape(5, *last.shape) for part in stopped))
        own, slow, fast = (Path(*(part[which] for part in paths)) for which in range(3))
        reach = Path.between((paths.middle - paths.half).min(axis=0), (paths.middle + paths.half).max(axis=0))
        chord = Path(*(0.5 * (first + second) for first, second in zip(slow, fast, strict=True)))
        return Ahead(limits, last, stop, own, self._spread, reach, chord)

    def _limits_of(self, period: float) -> Limits:
        if period != self._period:
            limits = joint_limits(self._robot, period)
            self._period, self._limits = period, limits._replace(speed=np.where(self.limited, limits.speed, 0.0))
            changes = 2.0 * np.minimum(limits.acceleration, limits.jerk)
            self._spread = np.minimum(WIDEST * self._limits.speed, changes)
            self._worst = Worst.of(self._limits)
        return self._limits

"""Claim: every joint's Lyapunov function decreases, step by step, as its certificate says.

The state of a joint is that of its *command*: how far it is from the goal, and its speed over the last period. The next
command decides the next state, so that V after it is a parabola of the command, and the claim is exactly an interval:
no linearisation, nothing to round off. Inside the certified level that interval holds a command within the
certificate's acceleration. The row has slack: it yields to position, velocity and collision, and where no command keeps
the claim the one that comes closest is asked for.

Assumes that commands are sent once a period, the certificate's. What the measured joint does is the drives' matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from onestride.deploy.safety.types import Box, Motion, Yield
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.certificates import BarrierRow, LyapunovRow, QuadraticTerms, RegionFilter
from onestride.hardware.state import Array

#: Shares of a period by which the control period may differ from the certificate's.
SAME_PERIOD = 1e-3

#: What rounding may take from a decay, and add to a share of the domain.
ROUNDED = 1e-9


class Parabola(NamedTuple):
    """V after a step d of the command, from an offset e of it: `bend ((d + turn e)² + least e²)`."""

    bend: float
    turn: float
    least: float

    @classmethod
    def of(cls, matrix: Array, period: float) -> Parabola:
        """Of `V = xᵀ P x` with P (2, 2): after the step the state is `(e + d, d / period)`."""
        stiff, mixed, slow = matrix[0, 0], matrix[0, 1] / period, matrix[1, 1] / period**2
        bend = stiff + 2.0 * mixed + slow
        turn = (stiff + mixed) / bend
        return cls(float(bend), float(turn), float(stiff / bend - turn**2))


def joint_value(matrix: Array, offset: Array, velocity: Array) -> Array:
    """`V` of each joint: offsets from the goal (B, n) [rad] and speeds (B, n) [rad/s] -> (B, n)."""
    pulled = float(matrix[0, 0]) * offset + 2.0 * float(matrix[0, 1]) * velocity
    return np.asarray(offset * pulled + float(matrix[1, 1]) * velocity * velocity)


def commands_below(parabola: Parabola, offset: Array, sent: Array, bound: Array) -> tuple[Array, Array]:
    """The commands after which each joint's V is at most `bound`.

    Args:
        parabola: of V.
        offset: last sent command minus goal (B, n) [rad].
        sent: last sent command (B, n) [rad].
        bound: of V after the step (B, n); infinite where nothing is asked.

    Returns:
        Lowest and highest command (B, n) [rad]; both the command with the least V where none keeps the bound.
    """
    room = np.sqrt(np.maximum(bound / parabola.bend - parabola.least * offset * offset, 0.0))
    middle = sent - parabola.turn * offset
    return middle - room, middle + room


def proved_decay(matrix: Array, period: float, level: float, limit: float) -> float:
    """By which share V falls in one period, at least, from any state with `V < level`; not positive if it may grow.

    Proved for the acceleration that takes the command some of the way from coasting to where V is least, the same share
    of it everywhere, and as much as keeps within `limit` [rad/s^2] up to the level. It is linear in the state, so that
    V after it is quadratic, too. Feedback from the Riccati equation that the matrix solves is of this kind.
    """
    parabola = Parabola.of(matrix, period)
    away = np.array([parabola.turn, period])  # of a coasting command from where V is least
    furthest = float(np.sqrt(level * (away @ np.linalg.solve(matrix, away))))
    left = max(0.0, 1.0 - limit * period**2 / furthest)
    ahead = parabola.bend * (left**2 * np.outer(away, away) + np.diag([parabola.least, 0.0]))
    root = np.linalg.inv(np.linalg.cholesky(matrix))
    return 1.0 - float(np.linalg.eigvalsh(root @ ahead @ root.T)[-1])


class JointCertificate:
    """What rows and filters of one joint certificate share: goal, matrix, and which joints it speaks about."""

    def __init__(self, terms: LyapunovRow | BarrierRow | RegionFilter, robot: RobotDescription, period: float) -> None:
        """Bind a certificate to a robot.

        Raises:
            OneStrideError: the goal has not one value per joint, its region leaves the joints' limits, the certificate
                asks for more acceleration or speed than a joint has, its period is another, or its claim is not true.
        """
        self.terms = terms.certificate
        function = self.terms.function
        assert isinstance(function, QuadraticTerms)
        self.matrix, self.level = np.array(function.matrix), self.terms.level
        self.parabola = Parabola.of(self.matrix, period)
        self.goal = np.array([joint.default for joint in robot.joints] if terms.goal is None else terms.goal)
        self.spoken_of = np.isfinite(robot.velocity_limits)
        self.unasked = np.where(self.spoken_of, 0.0, np.inf)
        if self.goal.shape != (len(robot.joints),):
            raise OneStrideError(f"certificate: expected a goal of {len(robot.joints)} joints, got {len(self.goal)}")
        if abs(period / self.terms.period - 1.0) > SAME_PERIOD:
            raise OneStrideError(f"certificate: expected period {period:g} s, got one for {self.terms.period:g} s")
        self._fits(robot)
        self._holds(period)

    @property
    def reach(self) -> Array:
        """How far a joint gets from its goal within the level [rad], and how fast [rad/s] (2,)."""
        return np.asarray(np.sqrt(self.level * np.diag(np.linalg.inv(self.matrix))))

    def value(self, offset: Array, velocity: Array) -> Array:
        """V of each joint (B, n) at offsets from the goal (B, n); zero for joints it does not speak about."""
        return np.asarray(joint_value(self.matrix, offset, velocity) * self.spoken_of)

    def _fits(self, robot: RobotDescription) -> None:
        far, fast = self.reach
        low, high = robot.position_limits
        for index, joint in enumerate(robot.joints):
            if not self.spoken_of[index]:
                continue
            if self.goal[index] - far < low[index] or self.goal[index] + far > high[index]:
                raise OneStrideError(f"certificate: {joint.name} would leave its limits: {far:.3f} rad about its goal")
            if fast > robot.velocity_limits[index]:
                raise OneStrideError(f"certificate: {joint.name} would reach {fast:.3f} rad/s within the level")
            wanted = self.terms.limit[0]
            if joint.acceleration is not None and joint.acceleration < wanted:
                most = joint.acceleration
                raise OneStrideError(f"certificate: {joint.name}: expected at most {most} rad/s^2, got {wanted}")

    def _holds(self, period: float) -> None:
        """Prove the claim again: what a file says about its proof is only its word."""
        terms = self.terms
        if not (self.reach <= np.array(terms.domain) * (1.0 + ROUNDED)).all():
            raise OneStrideError(
                f"certificate: expected V < {self.level:g} inside the domain {terms.domain}, it reaches to {self.reach}"
            )
        proved = proved_decay(self.matrix, period, self.level, terms.limit[0])
        if not terms.decay <= proved + ROUNDED:
            found = f"at most {proved:.4g} can be proved" if proved > 0.0 else "V may grow"
            within = f"within {terms.limit[0]:g} rad/s^2"
            raise OneStrideError(f"certificate: decay: got {terms.decay:g}, but {within} {found}")


class LyapunovRows:
    """Asks every joint within its certified level for the decrease."""

    name = "lyapunov"
    claim = "every joint's Lyapunov function decreases as its certificate says (proved for the commands)"

    def __init__(self, terms: LyapunovRow, robot: RobotDescription, period: float) -> None:
        self._joints = JointCertificate(terms, robot, period)
        self._keep, self._allowance = 1.0 - terms.certificate.decay, terms.certificate.allowance
        self._last = np.zeros((1, len(robot.joints)))

    def reset(self, motion: Motion) -> None:
        """Nothing to begin."""

    def observe(self, motion: Motion) -> None:
        """Nothing to remember: the commands are in every motion."""

    def rows(self, motion: Motion) -> tuple[Box, ...]:
        """The commands that keep the decrease."""
        joints, offset = self._joints, motion.sent - self._joints.goal
        value = self._last = joints.value(offset, motion.sent_velocity)
        bound = np.where(value < joints.level, self._keep * value + self._allowance, np.inf) + joints.unasked
        low, high = commands_below(joints.parabola, offset, motion.sent, bound)
        return (Box("decrease", low, high, Yield.TASK),)

    def sent(self, motion: Motion, command: Array) -> None:
        """Nothing to remember."""

    def readings(self) -> Mapping[str, float]:
        """The largest V of any joint, where rows were asked for last."""
        return {"lyapunov.value": float(self._last[0].max())}

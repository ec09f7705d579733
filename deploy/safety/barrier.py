"""Claim: what a barrier keeps in, stays in: `h(f(x, u) + w) >= (1 - rate) h(x) + reserve` at every step.

For a joint's command the next h is a parabola of the command, and the row is exactly an interval (`BarrierRows`). For
any other model that is affine in its input, `barrier_rows` gives half-spaces that are sufficient: linear in the input,
with the declared curvature of h taken off.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onestride.deploy.safety.lyapunov import JointCertificate, commands_below
from onestride.deploy.safety.types import Box, Motion, Rows
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.certificates import BarrierRow
from onestride.hardware.state import Array


def barrier_rows(
    here: Array, ahead: Array, slope: Array, gain: Array, rate: float, reserve: float, curvature: float, reach: Array
) -> Rows:
    """Half-spaces of inputs that keep a barrier, for a model `x+ = drift(x) + gain(x) u + w`.

    `h(x+) >= ahead + slope . gain u - curvature |gain u|² / 2` where h bends no more than `curvature` (its Hessian is
    at least `-curvature` times the identity), and `|gain u| <= sum |gain_j| reach_j`.

    Args:
        here: h(x) (B,).
        ahead: h at the drift (B,), the next state under no input.
        slope: of h there (B, n).
        gain: (B, n, m).
        rate: share of h that one step may use up.
        reserve: `L_h · |w|`, kept for the disturbance.
        curvature: see above; 0 for an h that is linear or convex.
        reach: largest input of either sign (m,).

    Returns:
        One row per state: `matrix @ u <= bound`.
    """
    lever = np.einsum("bi,bij->bj", slope, gain)
    furthest = np.linalg.norm(gain, axis=1) @ reach
    bound = ahead - (1.0 - rate) * here - reserve - 0.5 * curvature * furthest**2
    return Rows(("barrier",), -lever[:, None, :], bound[:, None])


class BarrierRows:
    """Keeps every joint's command in the certified region about its goal."""

    name = "barrier"
    claim = "every joint's command stays in its certified region (proved for the commands)"

    def __init__(self, terms: BarrierRow, robot: RobotDescription, period: float) -> None:
        """Bind the row to a robot.

        Raises:
            OneStrideError: see `JointCertificate`, or the reserve is more than the certificate's decrease, or the
                row's own rate, makes up.
        """
        self._joints = JointCertificate(terms, robot, period)
        self._rate, self._reserve = terms.rate, terms.reserve
        least = min(terms.certificate.decay, terms.rate) * terms.certificate.level
        if self._reserve > least:
            raise OneStrideError(
                f"barrier: reserve: expected at most decay times level, and rate times level, {least:.4g}, "
                f"got {self._reserve}"
            )
        self._last = np.zeros((1, len(robot.joints)))

    def reset(self, motion: Motion) -> None:
        """Nothing to begin."""

    def observe(self, motion: Motion) -> None:
        """Nothing to remember: the commands are in every motion."""

    def rows(self, motion: Motion) -> tuple[Box, ...]:
        """The commands that keep `h = level - V`; from outside the region, those that return by `rate`."""
        joints, offset = self._joints, motion.sent - self._joints.goal
        here = self._last = joints.level - joints.value(offset, motion.sent_velocity)
        bound = joints.level - self._reserve - (1.0 - self._rate) * here + joints.unasked
        return (Box("barrier", *commands_below(joints.parabola, offset, motion.sent, bound)),)

    def sent(self, motion: Motion, command: Array) -> None:
        """Nothing to remember."""

    def readings(self) -> Mapping[str, float]:
        """The smallest h of any joint, where rows were asked for last."""
        return {"barrier.value": float(self._last[0].min())}

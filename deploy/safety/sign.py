"""Claim: no joint is driven on a position or a velocity that is measured with the wrong sign.

The pull of a drive, `sent - measured`, and the motion that follows agree in sign, whatever the lag: the correlation of
the two motions, commanded and measured, does not, since a lagging joint still goes the old way after a reversal (down
to -0.6 in sound runs of the simulated UR5e, where that of pull and motion never fell below 0.7). A joint that is
measured with the wrong sign runs away from where it is pulled.

What happened between two samples far apart nobody knows: a joint may have turned round in between, several times. So
the window begins anew after a gap, and the claim is one about streams without gaps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.safety.samples import MotionGuard, Window, worst
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import RobotDescription
from onestride.hardware.safety.guards import SignGuard
from onestride.hardware.state import Array

#: Correlation below which two series over a window are called opposed.
OPPOSED = -0.7


def opposed(products: Array, first: Array, second: Array) -> NDArray[np.bool_]:
    """Whether two series are opposed, from the sums of their products and of their squares (..., n)."""
    return np.asarray(products < OPPOSED * np.sqrt(np.maximum(first * second, 0.0)))


class Sign(MotionGuard):
    """Refuses when a joint moves against the pull of its drive while commands move, or against its velocity."""

    name = "sign"

    def __init__(self, terms: SignGuard, robot: RobotDescription) -> None:
        super().__init__(robot)
        self._span, self._gap, self._moved = terms.window, terms.gap, self._of_watched(terms.moved)

    def _begin(self, state: ControlState, received: float) -> None:
        self._sums = np.zeros((7, len(self._names)))
        self._sums[5:] = state.measurement.position, state.last_sent
        self._window = Window(self._span)
        self._window.push(received, self._sums)

    def _judge(self, state: ControlState, received: float, elapsed: float) -> str:
        if elapsed > self._gap:
            self._begin(state, received)
            return ""
        self._sums = self._add(state, self._sums)
        change = self._sums - self._window.push(received, self._sums)
        motion, asked = change[5], change[6]
        far = np.abs(motion) - self._moved
        if worst(far) is None:
            return ""
        pulled, agreed, steps = change[0], change[1], change[4]
        against = (np.abs(asked) > self._moved) & opposed(pulled, change[2], steps)
        if (joint := worst(np.where(against, far, -np.inf))) is not None:
            return f"{self._names[joint]} is measured to move away from its command: is its sign flipped?"
        if (joint := worst(np.where(opposed(agreed, change[3], steps), far, -np.inf))) is not None:
            return f"{self._names[joint]} is measured to move against its velocity: is the sign of one flipped?"
        return ""

    @staticmethod
    def _add(state: ControlState, sums: Array) -> Array:
        """Sums since the first sample (7, n).

        Of pull times step, velocity times step, and the squares of pull, velocity and step; then position and command.
        """
        measured, before = state.measurement, sums[5]
        factors = np.array((state.last_sent - before, measured.velocity, measured.position - before))
        more = np.empty_like(sums)
        np.multiply(factors[:2], factors[2], out=more[:2])
        np.multiply(factors, factors, out=more[2:5])
        more[:5] += sums[:5]
        more[5], more[6] = measured.position, state.last_sent
        return more

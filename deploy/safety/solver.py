"""The one quadratic program of a tick: the command closest to a nominal one that keeps every row.

Solved by DAQP, a dual active-set solver: exact up to rounding, no tuning, microseconds at these sizes. Nothing that
it says is taken on trust: its flag is looked at, and an answer of "infeasible" is asked for again from scratch.

Reference: arXiv:2106.02419 (DAQP).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import daqp
import numpy as np
from numpy.typing import NDArray

from onestride.hardware.state import Array

#: The solver's flags, and our own for what it is not asked at all: bounds that contradict themselves or are no numbers.
OPTIMAL, SOFT_OPTIMAL, INFEASIBLE, INCONSISTENT = 1, 2, -1, -100

#: How the solver is told that a row may be broken, and how much less the square of a change counts than that of a
#: violation: a row that must be broken is, within a millionth, broken as little as can be.
SOFT, SOFTNESS = 8, 1e-6

#: Violation of a row that the solver leaves, and that of its own bounds, before rounding [the rows' unit].
PRIMAL_TOLERANCE = 1e-11

#: More iterations than a problem of a robot's size ever needs; no tick may wait for more.
MOST_ITERATIONS = 1000


class Solution(NamedTuple):
    """What the solver answers.

    Attributes:
        change: of the nominal command (n,) [rad]; None where there is none.
        flag: the solver's, for people.
    """

    change: Array | None
    flag: int


class Solver:
    """Finds the smallest change of a nominal command, as often as asked, in memory that is kept.

    Args:
        joints: how many numbers a command has.
    """

    def __init__(self, joints: int) -> None:
        self._hessian, self._nothing = np.eye(joints), np.zeros(joints)
        self._model: Any = None
        self._rows = -1

    def smallest_change(
        self, low: Array, high: Array, matrix: Array, bound: Array, soft: NDArray[np.bool_] | None = None
    ) -> Solution:
        """The change `d` with the smallest norm such that `low <= d <= high` and `matrix @ d <= bound`.

        Args:
            low: (n,) [rad].
            high: (n,) [rad].
            matrix: rows of length 1, or of zeros (m, n).
            bound: (m,); infinite where a row asks for nothing.
            soft: which rows may be broken where it must be, as little as possible (m,); none by default.
        """
        upper = np.concatenate([high, bound])
        lower = np.concatenate([low, np.full(len(bound), -np.inf)])
        if not (np.isfinite(matrix).all() and (upper >= lower).all() and (upper > -np.inf).all()):
            return Solution(None, INCONSISTENT)
        matrix = np.ascontiguousarray(matrix)
        sense = np.zeros(len(upper), np.int32)
        if soft is not None and soft.any():
            sense[len(low) :][soft] = SOFT
        elif len(bound) == self._rows:
            solution = self._again(matrix, upper, lower)
            if solution.flag == OPTIMAL:
                return solution
        return self._anew(matrix, upper, lower, sense)

    def _anew(self, matrix: Array, upper: Array, lower: Array, sense: NDArray[np.int32]) -> Solution:
        model = daqp.Model()
        model.settings = {"primal_tol": PRIMAL_TOLERANCE, "iter_limit": MOST_ITERATIONS, "rho_soft": SOFTNESS}
        flag, _ = model.setup(self._hessian, self._nothing, matrix, upper, lower, sense)
        self._model, self._rows = model, -1 if flag < 0 or sense.any() else len(matrix)
        return Solution(None, int(flag)) if flag < 0 else self._solve()

    def _again(self, matrix: Array, upper: Array, lower: Array) -> Solution:
        flag = self._model.update(A=matrix, bupper=upper, blower=lower)
        return Solution(None, int(flag)) if flag < 0 else self._solve()

    def _solve(self) -> Solution:
        change, _, flag, _ = self._model.solve()
        return Solution(np.array(change) if flag in (OPTIMAL, SOFT_OPTIMAL) else None, int(flag))

"""Quadratic Lyapunov functions of a linearised or feedback-linearised system, from the Riccati equation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigvalsh, solve_discrete_are

from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array
from onestride.training.certificates.jets import Column, clip, square
from onestride.training.certificates.systems import State, System


@dataclass(frozen=True, eq=False)
class Quadratic:
    """`V(x) = xᵀ P x`.

    Attributes:
        matrix: P, symmetric and positive definite (n, n).

    Raises:
        OneStrideError: it is not.
    """

    matrix: Array

    def __post_init__(self) -> None:
        """Refuse a matrix that is not positive definite: its V would not be a Lyapunov function."""
        smallest = float(np.linalg.eigvalsh(self.matrix).min())
        if not (np.allclose(self.matrix, self.matrix.T) and smallest > 0.0):
            raise OneStrideError(f"expected a symmetric positive definite matrix, smallest eigenvalue {smallest:.3g}")

    def __call__(self, x: State) -> Column:
        """The value at `x` (n columns), as a sum of squares, which intervals bound better than products."""
        root = np.linalg.cholesky(self.matrix).T
        total: Column = 0.0
        for index, row in enumerate(root):
            total = square(_combined(row[index:], x[index:])) + total
        return total

    def scaled(self, factor: float) -> Quadratic:
        """`factor` times this function."""
        return Quadratic(self.matrix * factor)


@dataclass(frozen=True, eq=False)
class LinearFeedback:
    """`u = clip(-K x)`: the controller a certificate is proved with.

    Attributes:
        gain: K (m, n).
        limit: largest input of either sign (m,).
    """

    gain: Array
    limit: tuple[float, ...]

    def __call__(self, x: State) -> list[Column]:
        """The input (m columns) at `x` (n columns)."""
        return [clip(-_combined(row, x), -top, top) for row, top in zip(self.gain, self.limit, strict=True)]


def _combined(weights: Array, x: State) -> Column:
    """The weighted sum of columns."""
    total: Column = 0.0
    for weight, column in zip(weights, x, strict=True):
        if weight != 0.0:
            total = column * float(weight) + total
    return total


def riccati(system: System, state_cost: Array, input_cost: Array) -> tuple[Quadratic, LinearFeedback]:
    """The linear quadratic regulator of the system at rest, and its cost to go as a Lyapunov function.

    Args:
        system: Linearised at the state zero.
        state_cost: Diagonal of Q (n,).
        input_cost: Diagonal of R (m,).

    Raises:
        OneStrideError: The linearisation cannot be stabilised.
    """
    a, b = system.linearised()
    try:
        p = np.asarray(solve_discrete_are(a, b, np.diag(state_cost), np.diag(input_cost)))
    except np.linalg.LinAlgError as error:
        raise OneStrideError(f"{system.name}: no stabilising solution of the Riccati equation: {error}") from None
    gain = np.asarray(np.linalg.solve(np.diag(input_cost) + b.T @ p @ b, b.T @ p @ a), dtype=np.float64)
    return Quadratic((p + p.T) / 2.0), LinearFeedback(gain, system.limit)


def linear_decay(function: Quadratic, feedback: LinearFeedback, system: System) -> float:
    """The largest c with `V(A x - B K x) <= (1 - c) V(x)` for every x of the linearised system.

    For a linear system this is the proof, up to where an input saturates.
    """
    a, b = system.linearised()
    closed = a - b @ feedback.gain
    return 1.0 - float(eigvalsh(closed.T @ function.matrix @ closed, function.matrix)[-1])


def unsaturated_level(function: Quadratic, feedback: LinearFeedback) -> float:
    """The largest level on which no input saturates: `K x` is largest, over the ellipsoid, at sqrt(level K P⁻¹ Kᵀ)."""
    reach = np.sqrt(np.diag(feedback.gain @ np.linalg.solve(function.matrix, feedback.gain.T)))
    return float(((np.array(feedback.limit) / reach) ** 2).min())


def enclosed(function: Quadratic, domain: Sequence[float]) -> float:
    """The largest level whose ellipsoid lies within a box: it reaches sqrt(level (P⁻¹)_ii) along each axis."""
    return float((np.array(domain) ** 2 / np.diag(np.linalg.inv(function.matrix))).min())


def whitening(function: Quadratic) -> Array:
    """The frame in which `V = |z|²`: cells cut there are round where the ellipsoid is thin."""
    return np.asarray(np.linalg.inv(np.linalg.cholesky(function.matrix).T), dtype=np.float64)

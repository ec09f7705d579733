"""Interval arithmetic with first derivatives: what a function can be, and how fast it can change, on a whole cell.

A `Jet` is a batch of cells at once. Its value is bounded from below and above, and so is its derivative after each of
the cell's variables; of a function with kinks, the generalised derivative, for which the mean value theorem holds too.
Systems, controllers and certificates are written once, with the functions below, for numpy, torch and jets.

Rounding is not directed outwards: a proof demands a margin far above it instead (see `verifier`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onestride.hardware.state import Array

#: One state variable or input of a batch: numpy (B,), torch (B,), a `Jet` of B cells, or a number for all of them.
Column: TypeAlias = Any


@dataclass(frozen=True, slots=True, eq=False)
class Jet:
    """Bounds of a function on B cells of v variables; a trailing shape `(..., B)` holds several functions.

    Attributes:
        low: lower bounds of the value (..., B).
        high: upper bounds of the value (..., B).
        slope_low: lower bounds of the derivatives (v, ..., B).
        slope_high: upper bounds of the derivatives (v, ..., B).
    """

    low: Array
    high: Array
    slope_low: Array
    slope_high: Array

    __array_ufunc__ = None  # so that `array * jet` asks the jet

    def __neg__(self) -> Jet:
        return Jet(-self.high, -self.low, -self.slope_high, -self.slope_low)

    def __add__(self, other: Column) -> Jet:
        if not isinstance(other, Jet):
            return Jet(self.low + other, self.high + other, self.slope_low, self.slope_high)
        slopes = self.slope_low + other.slope_low, self.slope_high + other.slope_high
        return Jet(self.low + other.low, self.high + other.high, *slopes)

    __radd__ = __add__

    def __sub__(self, other: Column) -> Jet:
        return self.__add__(-other)

    def __rsub__(self, other: Column) -> Jet:
        return self.__neg__().__add__(other)

    def __mul__(self, other: Column) -> Jet:
        if not isinstance(other, Jet):
            value = product(self.low, self.high, other, other)
            return Jet(*value, *product(self.slope_low, self.slope_high, other, other))
        value = product(self.low, self.high, other.low, other.high)
        left = product(self.slope_low, self.slope_high, other.low, other.high)
        right = product(other.slope_low, other.slope_high, self.low, self.high)
        return Jet(*value, left[0] + right[0], left[1] + right[1])

    __rmul__ = __mul__

    def __truediv__(self, other: Column) -> Jet:
        return self * (other.reciprocal() if isinstance(other, Jet) else 1.0 / other)

    def __rtruediv__(self, other: float) -> Jet:
        return self.reciprocal() * other

    def reciprocal(self) -> Jet:
        """1 / x; unbounded where x may be zero."""
        with np.errstate(divide="ignore"):
            crosses = (self.low <= 0.0) & (self.high >= 0.0)
            low, high = np.where(crosses, -np.inf, 1.0 / self.high), np.where(crosses, np.inf, 1.0 / self.low)
        inner, outer = squared(low, high)
        return Jet(low, high, *product(self.slope_low, self.slope_high, -outer, -inner))

    def square(self) -> Jet:
        """The square."""
        low, high = squared(self.low, self.high)
        return Jet(low, high, *product(self.slope_low, self.slope_high, 2.0 * self.low, 2.0 * self.high))

    def sin(self) -> Jet:
        """The sine [rad]."""
        return Jet(
            *sines(self.low, self.high),
            *product(self.slope_low, self.slope_high, *sines(self.low + np.pi / 2, self.high + np.pi / 2)),
        )

    def cos(self) -> Jet:
        """The cosine [rad]."""
        return (self + np.pi / 2).sin()

    def tanh(self) -> Jet:
        """The hyperbolic tangent."""
        low, high = np.tanh(self.low), np.tanh(self.high)
        steepest = 1.0 - squared(low, high)[0]
        flattest = 1.0 - np.maximum(low**2, high**2)
        return Jet(low, high, *product(self.slope_low, self.slope_high, flattest, steepest))

    def clip(self, low: float, high: float) -> Jet:
        """Kept between two numbers."""
        inside, outside = (self.low >= low) & (self.high <= high), (self.low > high) | (self.high < low)
        slope_low = np.where(inside, self.slope_low, np.where(outside, 0.0, np.minimum(self.slope_low, 0.0)))
        slope_high = np.where(inside, self.slope_high, np.where(outside, 0.0, np.maximum(self.slope_high, 0.0)))
        return Jet(np.clip(self.low, low, high), np.clip(self.high, low, high), slope_low, slope_high)

    def maximum(self, other: Jet) -> Jet:
        """The larger of two."""
        mine, theirs = self.low >= other.high, other.low >= self.high
        low, high = np.minimum(self.slope_low, other.slope_low), np.maximum(self.slope_high, other.slope_high)
        slope_low = np.where(mine, self.slope_low, np.where(theirs, other.slope_low, low))
        slope_high = np.where(mine, self.slope_high, np.where(theirs, other.slope_high, high))
        return Jet(np.maximum(self.low, other.low), np.maximum(self.high, other.high), slope_low, slope_high)

    @property
    def steepness(self) -> Array:
        """The largest derivative after each variable, in magnitude (v, ..., B)."""
        return np.asarray(np.maximum(np.abs(self.slope_low), np.abs(self.slope_high)))

    @property
    def rows(self) -> int:
        """How many functions a jet of shape (d, B) holds."""
        return len(self.low)

    def row(self, index: int) -> Jet:
        """One function of a jet of shape (d, B)."""
        return Jet(self.low[index], self.high[index], self.slope_low[:, index], self.slope_high[:, index])


def product(low: Array, high: Array, other_low: Any, other_high: Any) -> tuple[Array, Array]:
    """Bounds of a product of two intervals; zero times an unbounded one is zero."""
    with np.errstate(invalid="ignore"):
        ends = [np.nan_to_num(a * b, nan=0.0, posinf=np.inf, neginf=-np.inf)
                for a in (low, high) for b in (other_low, other_high)]  # fmt: skip
    return np.asarray(np.minimum.reduce(ends)), np.asarray(np.maximum.reduce(ends))


def squared(low: Array, high: Array) -> tuple[Array, Array]:
    """Bounds of a square."""
    ends = low**2, high**2
    return np.where((low <= 0.0) & (high >= 0.0), 0.0, np.minimum(*ends)), np.maximum(*ends)


def sines(low: Array, high: Array) -> tuple[Array, Array]:
    """Bounds of the sine over [low, high] [rad]."""
    ends = np.sin(low), np.sin(high)
    crest = np.floor((high - np.pi / 2) / (2 * np.pi)) >= np.ceil((low - np.pi / 2) / (2 * np.pi))
    trough = np.floor((high + np.pi / 2) / (2 * np.pi)) >= np.ceil((low + np.pi / 2) / (2 * np.pi))
    return np.where(trough, -1.0, np.minimum(*ends)), np.where(crest, 1.0, np.maximum(*ends))


def variables(centre: Array, radius: Array) -> list[Jet]:
    """The variables of B cells, as jets.

    Args:
        centre: of each cell (v, B).
        radius: half its width (v, B).
    """
    slopes = np.broadcast_to(np.eye(len(centre))[:, :, None], (len(centre), *centre.shape))
    return [Jet(centre[i] - radius[i], centre[i] + radius[i], slopes[:, i], slopes[:, i]) for i in range(len(centre))]


def stacked(columns: Sequence[Jet]) -> Jet:
    """Several jets of shape (B,) as one of shape (d, B)."""
    return Jet(
        np.stack([one.low for one in columns]),
        np.stack([one.high for one in columns]),
        np.stack([one.slope_low for one in columns], axis=1),
        np.stack([one.slope_high for one in columns], axis=1),
    )


def affine(weight: Array, x: Jet, bias: Array) -> Jet:
    """`weight @ x + bias` for a jet (d, B): (m, d) and (m,) -> (m, B)."""
    up, down = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
    return Jet(
        up @ x.low + down @ x.high + bias[:, None],
        up @ x.high + down @ x.low + bias[:, None],
        up @ x.slope_low + down @ x.slope_high,
        up @ x.slope_high + down @ x.slope_low,
    )


def sin(x: Column) -> Column:
    """The sine of an array, a tensor or a jet."""
    return np.sin(x) if isinstance(x, np.ndarray | float) else x.sin()


def cos(x: Column) -> Column:
    """The cosine of an array, a tensor or a jet."""
    return np.cos(x) if isinstance(x, np.ndarray | float) else x.cos()


def square(x: Column) -> Column:
    """The square of an array, a tensor or a jet."""
    return x**2 if isinstance(x, np.ndarray | float) else x.square()


def clip(x: Column, low: float, high: float) -> Column:
    """Between two numbers: an array, a tensor or a jet."""
    return np.clip(x, low, high) if isinstance(x, np.ndarray | float) else x.clip(low, high)


def maximum(a: Column, b: Column) -> Column:
    """The larger of two arrays, tensors or jets."""
    return np.maximum(a, b) if isinstance(a, np.ndarray | float) else a.maximum(b)

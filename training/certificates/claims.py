"""What a certificate claims, as conditions that must be zero or less at every state of its region.

An option is one way to act: a controller, or one fixed input. A state keeps the claim if all conditions of at least
one option hold there, so that a filter which searches all inputs finds one, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from onestride.hardware.state import Array
from onestride.training.certificates.jets import Column, maximum, square
from onestride.training.certificates.systems import State, System, TwoLinkArm

Function: TypeAlias = Callable[[State], Column]
Control: TypeAlias = Callable[[State], list[Column]]
#: (state, disturbance) -> conditions, each at most zero where the claim holds.
Option: TypeAlias = Callable[[State, State], list[Column]]


def decrease(system: System, function: Function, control: Control, decay: float, allowance: float) -> Option:
    """`V(f(x, u) + w) <= (1 - decay) V(x) + allowance`, and the next state is still in the domain.

    For a barrier h take `V = -h`: at `allowance = 0` it reads `h(f(x, u) + w) >= (1 - decay) h(x)`.
    """

    def conditions(x: State, w: State) -> list[Column]:
        ahead, rest = _next(system, control, x, w)
        return [function(ahead) - function(x) * (1.0 - decay) - allowance, *rest]

    return conditions


def admissible(system: System, control: Control) -> Option:
    """The next state is still in the domain, and the input is one that the system has.

    Beside a decrease that is proved by algebra (`quadratic.linear_decay`), this is all that is left to prove.
    """
    return lambda x, w: _next(system, control, x, w)[1]


def _next(system: System, control: Control, x: State, w: State) -> tuple[list[Column], list[Column]]:
    """The next state, and the conditions of its being in the domain and of its input being available."""
    u = control(x)
    ahead = system.step(x, u)
    ahead = [one + push for one, push in zip(ahead, w, strict=True)] if w else ahead
    return ahead, [*_within(ahead, system.domain), *_feasible(system, x, u)]


def _within(x: State, limits: Sequence[float]) -> list[Column]:
    """How far each element lies outside its limits of either sign."""
    return [maximum(one, -one) - limit for one, limit in zip(x, limits, strict=True)]


def _feasible(system: System, x: State, u: State) -> list[Column]:
    """Limits of the input that depend on the state: the arm's torques."""
    return _within(system.torques(x, u), system.torque) if isinstance(system, TwoLinkArm) else []


def fixed(u: Array) -> Control:
    """The same input everywhere."""
    return lambda _: [float(one) for one in u]


def any_input(system: System, function: Function, decay: float, allowance: float, points: int = 9) -> list[Option]:
    """The decrease claim with each input of a grid that holds the extremes: the most a filter could find."""
    inputs = sorted(system.inputs(points), key=lambda u: -abs(u).max())
    return [decrease(system, function, fixed(u), decay, allowance) for u in inputs]


def stopping_distance(position: float, braking: float) -> Function:
    """The barrier of one joint, negated: `-h` is the worse of both sides' `|p| + max(v, 0)² / (2 braking) - position`.

    Args:
        position: Largest position of either sign [rad].
        braking: Deceleration that the barrier counts with, below what the joint has [rad/s^2].
    """

    def value(x: State) -> Column:
        p, v = x
        ahead, back = maximum(v, v * 0.0), maximum(-v, v * 0.0)
        upper = p + square(ahead) * (0.5 / braking)
        lower = square(back) * (0.5 / braking) - p
        return maximum(upper, lower) - position

    return value


def ellipsoid(limits: Sequence[float]) -> Function:
    """The tempting barrier `h = 1 - sum (x_i / limit_i)²`, negated."""

    def value(x: State) -> Column:
        total: Column = -1.0
        for one, limit in zip(x, limits, strict=True):
            total = square(one * (1.0 / limit)) + total
        return total

    return value

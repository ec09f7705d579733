"""Known systems in discrete time, with bounded input: what certificates are proved for.

A proof speaks about these equations. What they leave out (delays, friction, the error of the time step) has to be
covered by a declared disturbance, or the proof does not speak about the machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.safety.certificates import COMMANDED_JOINT
from onestride.hardware.state import Array
from onestride.training.certificates.jets import Column, cos, sin, square

State = Sequence[Column]


@dataclass(frozen=True)
class System(ABC):
    """A system `x+ = step(x, u)` on a box of states, affine in its input.

    Attributes:
        period: of its discrete time [s].
        limit: largest input of either sign (m,).
        domain: largest state of either sign that is looked at (n,).
    """

    period: float
    limit: tuple[float, ...]
    domain: tuple[float, ...]

    name: ClassVar[str]
    states: ClassVar[tuple[str, ...]]
    """Names of the state's elements, with their units."""

    @abstractmethod
    def rate(self, x: State, u: State) -> list[Column]:
        """The derivative of the state at `x` (n columns) under input `u` (m columns)."""

    def step(self, x: State, u: State) -> list[Column]:
        """The state one period later: speeds first, then positions with the new speeds (semi-implicit Euler).

        States are all positions, then all speeds.
        """
        half = len(x) // 2
        rates = self.rate(x, u)
        speeds = [x[half + i] + rates[half + i] * self.period for i in range(half)]
        return [*(x[i] + speeds[i] * self.period for i in range(half)), *speeds]

    def linearised(self) -> tuple[Array, Array]:
        """The step's derivatives at rest, A (n, n) and B (n, m), by central differences."""
        n, m, width = len(self.domain), len(self.limit), 1e-5
        points = np.vstack([np.eye(n + m), -np.eye(n + m)]).T * width
        ahead = np.stack(self.step(list(points[:n]), list(points[n:])))
        both = (ahead[:, : n + m] - ahead[:, n + m :]) / (2 * width)
        return both[:, :n], both[:, n:]

    def inputs(self, points: int) -> Array:
        """A grid of inputs that holds the corners (points^m, m)."""
        axes = [np.linspace(-limit, limit, points) for limit in self.limit]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


@dataclass(frozen=True)
class DoubleIntegrator(System):
    """One joint whose acceleration is the input [rad/s^2]; stepped exactly, with the acceleration held."""

    period: float = 0.05
    limit: tuple[float, ...] = (2.0,)
    domain: tuple[float, ...] = (1.05, 2.4)

    name: ClassVar[str] = "double_integrator"
    states: ClassVar[tuple[str, ...]] = ("position [rad]", "velocity [rad/s]")

    def rate(self, x: State, u: State) -> list[Column]:
        """Velocity and acceleration."""
        return [x[1], u[0] + 0.0 * x[1]]

    def step(self, x: State, u: State) -> list[Column]:
        """Exact for an acceleration that is held over the period."""
        dt = self.period
        return [x[0] + x[1] * dt + u[0] * (dt * dt / 2.0), x[1] + u[0] * dt]


@dataclass(frozen=True)
class CommandedJoint(System):
    """One joint's position command, whose speed changes by a bounded acceleration: what the safety rows act on.

    A command is the last one plus its speed times the period, so that the step is the semi-implicit one.
    """

    period: float = 0.005
    limit: tuple[float, ...] = (8.0,)
    domain: tuple[float, ...] = (1.0, 2.0)

    name: ClassVar[str] = COMMANDED_JOINT
    states: ClassVar[tuple[str, ...]] = ("distance to the goal [rad]", "speed of the command [rad/s]")

    def rate(self, x: State, u: State) -> list[Column]:
        """Speed and acceleration of the command."""
        return [x[1], u[0] + 0.0 * x[1]]


@dataclass(frozen=True)
class Pendulum(System):
    """A pendulum about its upright equilibrium; the torque [Nm] cannot hold it far from there.

    Attributes:
        mass: at its end [kg].
        length: of its massless rod [m].
        damping: in its joint [Nm s/rad].
        gravity: [m/s^2].
    """

    period: float = 0.05
    limit: tuple[float, ...] = (6.0,)
    domain: tuple[float, ...] = (1.0, 4.0)
    mass: float = 1.0
    length: float = 1.0
    damping: float = 0.1
    gravity: float = 9.81

    name: ClassVar[str] = "pendulum"
    states: ClassVar[tuple[str, ...]] = ("angle [rad]", "speed [rad/s]")

    def rate(self, x: State, u: State) -> list[Column]:
        """Speed and angular acceleration."""
        inertia = self.mass * self.length**2
        fall = sin(x[0]) * (self.gravity / self.length)
        return [x[1], fall - x[1] * (self.damping / inertia) + u[0] * (1.0 / inertia)]


@dataclass(frozen=True)
class CartPole(System):
    """A pole on a cart that is pushed with a force [N]; the masses and lengths of Barto, Sutton and Anderson (1983).

    Attributes:
        cart: its mass [kg].
        pole: its mass [kg].
        half: half the pole's length [m].
        gravity: [m/s^2].
    """

    period: float = 0.04
    limit: tuple[float, ...] = (10.0,)
    domain: tuple[float, ...] = (2.0, 0.2, 2.0, 2.0)
    cart: float = 1.0
    pole: float = 0.1
    half: float = 0.5
    gravity: float = 9.8

    name: ClassVar[str] = "cart_pole"
    states: ClassVar[tuple[str, ...]] = ("cart [m]", "angle [rad]", "cart's speed [m/s]", "pole's speed [rad/s]")

    def rate(self, x: State, u: State) -> list[Column]:
        """Speeds and accelerations."""
        total, moment = self.cart + self.pole, self.pole * self.half
        sine, cosine = sin(x[1]), cos(x[1])
        push = (square(x[3]) * sine * moment + u[0]) * (1.0 / total)
        inertia = (square(cosine) * (-self.pole / total) + 4.0 / 3.0) * self.half
        turn = (sine * self.gravity - cosine * push) / inertia
        return [x[2], x[3], push - turn * cosine * (moment / total), turn]


@dataclass(frozen=True)
class TwoLinkArm(System):
    """Two links in a vertical plane whose torques cancel their dynamics; the input is what is left: accelerations.

    The angles are measured from a stretched horizontal pose, or wherever `pose` puts zero; gravity pulls down. The
    accelerations [rad/s^2] are unbounded as such: it is the torque that must stay within `torque`.

    Attributes:
        pose: angles of both joints at the state zero [rad].
        torque: largest torque of either sign [Nm].
        mass: of the links, uniform rods [kg].
        length: of the links [m].
        gravity: [m/s^2].
    """

    period: float = 0.01
    limit: tuple[float, ...] = (1e3, 1e3)
    domain: tuple[float, ...] = (1.0, 1.0, 4.0, 4.0)
    pose: tuple[float, float] = (0.5, 1.0)
    torque: tuple[float, float] = (45.0, 18.0)
    mass: tuple[float, float] = (2.0, 1.0)
    length: tuple[float, float] = (0.4, 0.35)
    gravity: float = 9.81

    name: ClassVar[str] = "two_link_arm"
    states: ClassVar[tuple[str, ...]] = ("joint 1 [rad]", "joint 2 [rad]", "speed 1 [rad/s]", "speed 2 [rad/s]")

    def rate(self, x: State, u: State) -> list[Column]:
        """Speeds and the accelerations asked for."""
        return [x[2], x[3], u[0] + 0.0 * x[2], u[1] + 0.0 * x[3]]

    def step(self, x: State, u: State) -> list[Column]:
        """Exact for accelerations that are held over the period."""
        dt = self.period
        ahead = [x[i] + x[2 + i] * dt + u[i] * (dt * dt / 2.0) for i in range(2)]
        return [*ahead, *(x[2 + i] + u[i] * dt for i in range(2))]

    def torques(self, x: State, u: State) -> list[Column]:
        """What both joints must give [Nm] for the accelerations `u`."""
        (m1, m2), (l1, l2) = self.mass, self.length
        first, second = x[0] + self.pose[0], x[1] + self.pose[1]
        coupling, swing = cos(second) * (m2 * l1 * l2 / 2.0), sin(second) * (m2 * l1 * l2 / 2.0)
        outer, inner = m2 * l2**2 / 3.0, m1 * l1**2 / 3.0 + m2 * l1**2
        weight = cos(first + second) * (m2 * self.gravity * l2 / 2.0)
        held = cos(first) * ((m1 / 2.0 + m2) * self.gravity * l1) + weight
        shared = coupling + outer
        return [
            (coupling * 2.0 + inner + outer) * u[0] + shared * u[1]
            - swing * (x[2] * x[3] * 2.0 + square(x[3])) + held,
            shared * u[0] + u[1] * outer + swing * square(x[2]) + weight,
        ]  # fmt: skip


SYSTEMS: dict[str, type[System]] = {
    one.name: one for one in (CommandedJoint, DoubleIntegrator, Pendulum, TwoLinkArm, CartPole)
}


def system_named(name: str, **changes: Any) -> System:
    """A system with its usual constants, or others.

    Args:
        name: of the system.
        changes: of `period`, `limit` or `domain`; None keeps the usual one.

    Raises:
        OneStrideError: no such system, or a limit or domain of another size or not positive.
    """
    if name not in SYSTEMS:
        raise unknown("system", name, tuple(SYSTEMS))
    usual = SYSTEMS[name]()  # type: ignore[call-arg]
    chosen = {key: value for key, value in changes.items() if value is not None}
    for key, value in chosen.items():
        expected = getattr(usual, key)
        found, wanted = np.atleast_1d(value), np.atleast_1d(expected)
        if found.shape != wanted.shape or not (found > 0.0).all():
            raise OneStrideError(f"{name}: {key}: expected {len(wanted)} positive numbers, got {value}")
    return replace(usual, **chosen)

"""An environment's actuators behind the energy tank that robots ship: metered, and filtered if asked.

Passivity-aware training needs three things of an environment, whatever the agent: the energy left as an observation,
a cost, and the filter that will be there on the robot. They are stated here once.

Reference: arXiv:2503.00287 (a policy trained without them breaks its energy bound when it is deployed).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onestride.deploy.safety.tank import EnergyTank
from onestride.deploy.safety.types import Box, Motion
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array


@dataclass(frozen=True)
class EnergySettings:
    """How an environment treats energy.

    Attributes:
        filtered: bound the efforts by the tank; otherwise it only meters.
        observed: the energy left, as a share of the initial one, is the observation's last element.
        cost: of a step [J]: `excess` is energy delivered beyond what is free of cost, for the first time, `power` all
            energy that was delivered and none that was taken back, `none` nothing.
        free: share of the bound that is free of cost; below 1, a policy learns to keep away from the bound.
        penalty: reward taken per joule of that cost.
    """

    filtered: bool = False
    observed: bool = False
    cost: Literal["excess", "power", "none"] = "excess"
    free: float = 1.0
    penalty: float = 0.0

    def __post_init__(self) -> None:
        if self.cost not in ("excess", "power", "none"):
            raise OneStrideError(f"expected cost excess, power or none, got {self.cost!r}")
        if not 0.0 <= self.free <= 1.0:
            raise OneStrideError(f"expected free between 0 and 1, got {self.free}")
        if not 0.0 <= self.penalty < np.inf:
            raise OneStrideError(f"expected penalty >= 0, got {self.penalty}")


@dataclass(frozen=True)
class State:
    """Of the metered joints: position (n,) [rad or m], velocity (n,), and the period of commands [s]."""

    position: Array
    velocity: Array
    period: float


class MeteredPort:
    """Applies efforts through a tank with one port.

    Attributes:
        delivered: net energy through the port since the reset, by effort and displacement [J].
        peak: the most that it ever was [J].
        filtered_ticks: ticks in which the tank changed the effort.
    """

    def __init__(self, tank: EnergyTank, settings: EnergySettings) -> None:
        self._tank, self.settings = tank, settings
        self.bound = float(tank.budget.bound[0])

    def reset(self, state: State) -> None:
        """Begin an episode at rest."""
        self.delivered = self.peak = self._power = 0.0
        self.filtered_ticks = 0
        self._at, self._effort = state.position.copy(), np.zeros_like(state.position)
        motion = self._motion(state)
        self._tank.reset(motion)
        self._tank.observe(motion)

    @property
    def share_left(self) -> float:
        """Energy in the tank, as a share of the initial one."""
        return float(self._tank.energy[0, 0] / self._tank.budget.initial[0])

    def run(self, wanted: Array, ticks: int, read: Callable[[], State], apply: Callable[[Array], None]) -> float:
        """Hold a wanted effort (n,) for some ticks, each through the tank; the cost of it [J].

        Args:
            wanted: by the policy [Nm or N].
            ticks: control periods.
            read: measures.
            apply: simulates one period under an effort.
        """
        peak, self._power = self.peak, 0.0
        for _ in range(ticks):
            motion = self._motion(read())
            self._effort = self._certified(motion, wanted)
            self._tank.sent(motion, self._effort[None])
            apply(self._effort)
            self._meter(read())
        return self._cost(peak)

    def _certified(self, motion: Motion, wanted: Array) -> Array:
        if not self.settings.filtered:
            return wanted
        if self._tank.void[0]:  # the safe stop of a robot that takes efforts: none, the drives' damping stays
            return np.zeros_like(wanted)
        certified = wanted
        for box in self._tank.rows(motion):
            if isinstance(box, Box):
                certified = np.clip(certified, box.low[0], box.high[0])
        self.filtered_ticks += bool(np.any(certified != wanted))
        return certified

    def _meter(self, state: State) -> None:
        self._tank.observe(self._motion(state))
        drawn = self._effort * (state.position - self._at)
        self._at = state.position.copy()
        self._power += float(np.maximum(drawn, 0.0).sum())
        self.delivered += float(drawn.sum())
        self.peak = max(self.peak, self.delivered)

    def _cost(self, peak_before: float) -> float:
        if self.settings.cost == "power":
            return self._power
        free = self.settings.free * self.bound
        over = max(self.peak - free, 0.0) - max(peak_before - free, 0.0)
        return over if self.settings.cost == "excess" else 0.0

    def _motion(self, state: State) -> Motion:
        still = np.zeros((1, len(state.position)))
        return Motion(state.period, state.position[None].copy(), state.velocity[None], self._effort[None], still, still)

"""Policy smoothing: noise on every observation, and what it certifies against whoever tampers with observations.

The policy sees ``o_t + units (δ_t + σ n_t)`` with fresh ``n_t ~ N(0, I)``. An adversary chooses each δ_t from all that
has happened, but for the noise that is still to be drawn, with ``Σ ‖δ_t‖² <= ε²`` over the episode. If an event has
probability p without it (success, or a return of at least c), then with it at least ``Φ(Φ⁻¹(p) - ε / σ)``.

It speaks of the *smoothed* policy, which has to be run with its noise; of observations, not of the robot's dynamics;
and of start states drawn as here. The episodes are taken as independent draws, so that p has a lower confidence bound.

Reference: arXiv:2106.11420.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Protocol

import numpy as np

from onestride.hardware.errors import OneStrideError
from onestride.training.environments.interface import Array, Environment, Interface, Step

NOISE = 0x5307
"""Tells the noise's random numbers from those that the policy draws at the same seed."""

_NORMAL = NormalDist()


class Adversary(Protocol):
    """Who shifts observations."""

    def reset(self, seed: int) -> None:
        """Start an episode."""
        ...

    def shift(self, observation: Array) -> Array:
        """δ (Do,) for an observation (Do,) in dataset units, before the noise is drawn."""
        ...


class Smoothed:
    """An environment whose observations are shifted by an adversary, if there is one, and then noised.

    The budget is kept here, whoever attacks: a shift that would exceed it is scaled down to what is left.

    Args:
        environment: The bare one.
        sigma: σ.
        units: (Do,) what one unit of σ and ε is, for each element in dataset units.
        adversary: None = nobody attacks.
        budget: ε, of an episode.
    """

    def __init__(
        self,
        environment: Environment,
        sigma: float,
        units: Array,
        adversary: Adversary | None = None,
        budget: float = 0.0,
    ) -> None:
        self._environment, self._sigma, self._units = environment, sigma, units
        self._adversary, self._budget = adversary, budget
        self._random, self._left = np.random.default_rng(), 0.0

    @property
    def name(self) -> str:
        """Of the bare environment, like all that follows."""
        return self._environment.name

    @property
    def source(self) -> str:
        """Package and version."""
        return self._environment.source

    @property
    def horizon(self) -> int:
        """Steps before an episode is cut."""
        return self._environment.horizon

    @property
    def observation_dim(self) -> int:
        """Do."""
        return self._environment.observation_dim

    @property
    def action_dim(self) -> int:
        """Da."""
        return self._environment.action_dim

    @property
    def policy_rate(self) -> float:
        """Environment steps per second [Hz]."""
        return self._environment.policy_rate

    @property
    def interface(self) -> Interface | None:
        """Observation and action in robot terms."""
        return self._environment.interface

    def reset(self, seed: int) -> Array:
        """Start the episode of `seed`, whose noise follows it."""
        self._random, self._left = np.random.default_rng((NOISE, seed)), self._budget**2
        if self._adversary:
            self._adversary.reset(seed)
        return self._seen(self._environment.reset(seed))

    def step(self, action: Array) -> Step:
        """Take one action; what it led to, as the policy sees it."""
        step = self._environment.step(action)
        return step._replace(observation=self._seen(step.observation))

    def close(self) -> None:
        """Free the simulation."""
        self._environment.close()

    def _seen(self, observation: Array) -> Array:
        moved = self._sigma * self._random.standard_normal(len(self._units))
        if self._adversary:
            moved = moved + self._paid(self._adversary.shift(observation))
        seen: Array = observation + self._units * moved
        return seen

    def _paid(self, shift: Array) -> Array:
        """The shift, as far as the budget goes."""
        price = float(shift @ shift)
        if price > self._left:
            shift, price = shift * math.sqrt(self._left / price), self._left
        self._left -= price
        return shift


def half_ranges(minimum: Sequence[float], maximum: Sequence[float]) -> Array:
    """Half of the range of each element (Do,), and 1 where it has none."""
    half = (np.asarray(maximum) - np.asarray(minimum)) / 2
    return np.where(half > 0, half, 1.0)


def shifted(probability: float, budget: float, sigma: float) -> float:
    """``Φ(Φ⁻¹(p) - ε / σ)``: what is left of a probability under attack."""
    if not 0 < probability < 1:
        return probability
    return _NORMAL.cdf(_NORMAL.inv_cdf(probability) - budget / sigma)


def success_bound(successes: int, episodes: int, confidence: float) -> float:
    """Clopper and Pearson's lower confidence bound of a probability."""
    from scipy.stats import beta

    return float(beta.ppf(1 - confidence, successes, episodes - successes + 1)) if successes else 0.0


class ReturnBounds:
    """What is certain about the return, from the returns of N episodes.

    ``P(R >= c)`` is at least its share of the episodes less ``sqrt(ln(1 / (1 - confidence)) / 2N)``, for all c at once
    (Dvoretzky, Kiefer and Wolfowitz, with Massart's constant).

    Args:
        returns: Of the smoothed policy, not attacked.
        confidence: At least 0.5.
    """

    def __init__(self, returns: Sequence[float], confidence: float) -> None:
        self._returns = np.sort(np.asarray(returns, np.float64))
        count = len(self._returns)
        margin = math.sqrt(math.log(1 / (1 - confidence)) / (2 * count))
        self._reached = np.maximum((count - np.arange(count)) / count - margin, 0.0)

    def median(self, budget: float, sigma: float) -> float | None:
        """The largest return that is reached in half of the episodes or more; None where no such one is certain."""
        certain = [shifted(p, budget, sigma) >= 0.5 for p in self._reached]
        return float(self._returns[sum(certain) - 1]) if any(certain) else None

    def mean(self, budget: float, sigma: float, lowest: float) -> float:
        """A lower bound of the mean return, if no return can be below ``lowest``.

        Raises:
            OneStrideError: One was.
        """
        if self._returns[0] < lowest:
            raise OneStrideError(f"expected returns of at least {lowest:g}, got {self._returns[0]:g}")
        widths = np.diff(self._returns, prepend=lowest)
        left = np.array([shifted(p, budget, sigma) for p in self._reached])
        return lowest + float(widths @ left)

"""Attacks on a policy's observations, to see how far from a certificate real ones stay."""

from __future__ import annotations

import math

import numpy as np

from onestride.training.environments.interface import Array
from onestride.training.evaluation import Policy

ATTACKS = ("steepest", "constant")

NUDGE = 1e-3
"""Step of the difference quotients, in units of σ and ε."""


class ConstantShift:
    """One random direction for each episode, with the budget spread evenly over all steps: a biased sensor.

    Args:
        budget: ε.
        dim: Do.
        horizon: Steps of an episode.
    """

    def __init__(self, budget: float, dim: int, horizon: int) -> None:
        self._size, self._shift = budget / math.sqrt(horizon + 1), np.zeros(dim)

    def reset(self, seed: int) -> None:
        """Draw the direction."""
        drawn = np.random.default_rng((len(self._shift), seed)).standard_normal(len(self._shift))
        self._shift = self._size * drawn / np.linalg.norm(drawn)

    def shift(self, observation: Array) -> Array:
        """The same (Do,) at every observation."""
        del observation
        return self._shift


class SteepestShift:
    """The direction in which the chunk moves most, always toward larger actions, at the observations that count.

    It knows the policy, by difference quotients: those at which a chunk is inferred are attacked, with equal shares.

    Args:
        policy: A copy of the one under attack, at one observation step of history.
        budget: ε.
        units: (Do,) of the shift.
        horizon: Steps of an episode.
    """

    def __init__(self, policy: Policy, budget: float, units: Array, horizon: int) -> None:
        terms = policy.contract.execution
        self._policy, self._units, self._every = policy, units, terms.n_action_steps
        self._size = budget / math.sqrt(1 + horizon // terms.n_action_steps)
        self._step = 0

    def reset(self, seed: int) -> None:
        """Start to count."""
        del seed
        self._step = 0

    def shift(self, observation: Array) -> Array:
        """(Do,), zero where the policy does not look."""
        looks = self._step % self._every == 0
        self._step += 1
        return self._size * self._direction(observation) if looks else np.zeros_like(self._units)

    def _direction(self, observation: Array) -> Array:
        nudges = NUDGE * np.diag(self._units)
        slopes = np.stack([self._chunk(observation + nudge) - self._chunk(observation - nudge) for nudge in nudges])
        steepest: Array = np.linalg.svd(slopes, full_matrices=False)[0][:, 0]
        return steepest if (steepest @ slopes).sum() >= 0 else -steepest

    def _chunk(self, observation: Array) -> Array:
        """The chunk, flat, at always the same noise."""
        self._policy.reset(0)
        seen = np.tile(observation.astype(np.float64), self._policy.contract.history)
        chunk: Array = self._policy.infer(seen).astype(np.float64).ravel()
        return chunk

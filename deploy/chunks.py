"""Execute predicted chunks action by action, and reach each joint target between policy steps."""

from __future__ import annotations

import numpy as np

from onestride.deploy.blending import blended
from onestride.deploy.contract import ExecutionTerms
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array


class ChunkExecutor:
    """Hands out a chunk's actions one policy step at a time.

    A chunk that arrives late is aligned by the steps actually consumed since it was requested, never by an
    estimated latency.

    Args:
        terms: of the contract.
        blend: actions that are left when the next chunk is due, and steps over which it is gone over to.

    Raises:
        OneStrideError: a chunk has no such number of actions left after its first.
    """

    def __init__(self, terms: ExecutionTerms, blend: int = 0) -> None:
        if not 0 <= blend < terms.n_action_steps:
            raise OneStrideError(f"chunk blend: expected 0 to {terms.n_action_steps - 1} steps, got {blend}")
        self._n_action_steps, self._blend = terms.n_action_steps, blend
        self.reset()

    def reset(self) -> None:
        """Forget the chunk and start counting anew."""
        self.consumed = 0
        self._chunk: Array | None = None
        self._next = 0

    @property
    def empty(self) -> bool:
        """Whether a new chunk is needed before the next action."""
        return self._chunk is None or self._next >= self._n_action_steps

    @property
    def due(self) -> bool:
        """Whether a new chunk should be asked for."""
        return self._chunk is None or self._next >= self._n_action_steps - self._blend

    def load(self, chunk: Array, requested_at: int) -> None:
        """Take a chunk (h, Da) that was requested when `requested_at` actions had been consumed."""
        following = self.consumed - requested_at
        left = None if self._chunk is None or not self._blend else self._chunk[self._next :]
        self._chunk = chunk if left is None else blended(left, chunk, following, self._blend)
        self._next = following

    def next(self) -> Array:
        """The next action (Da,).

        Raises:
            IndexError: the chunk is used up; ask `empty` first.
        """
        if self._chunk is None or self.empty:
            raise IndexError("the chunk is used up")
        action: Array = self._chunk[self._next]
        self._next += 1
        self.consumed += 1
        return action


class Interpolator:
    """Nominal joint targets between two policy steps.

    They go on from where they are, not from what was sent: a joint that a limit keeps back has a target that goes
    its way, and catches up with it as it may.
    """

    def __init__(self, terms: ExecutionTerms) -> None:
        self._linear = terms.interpolation == "linear"
        self._ticks = terms.ticks_per_step
        self._nominal: Array = np.empty(0)
        self._target: Array = np.empty(0)
        self._left = 0

    def aim(self, target: Array) -> None:
        """Set the joint target (n,) [rad] to be reached by the end of the policy step."""
        self._target, self._left = target, self._ticks

    def hold(self, target: Array) -> None:
        """Set the joint target (n,) [rad] for this tick and all that follow."""
        self._nominal = self._target = target
        self._left = 0

    def nominal(self) -> Array:
        """The joint target (n,) [rad] for this control tick."""
        if not self._linear or self._left <= 1:
            self._nominal = self._target
        else:
            self._nominal = self._nominal + (self._target - self._nominal) / self._left
        self._left = max(self._left - 1, 0)
        return self._nominal

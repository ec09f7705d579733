"""Fewer network evaluations where the machine is too slow for those that are wanted, and more again later.

The file offers the same weights with several numbers of evaluations. After `LATE_IN_A_ROW` inferences that took longer
than their budget, the most evaluations are taken that would have fitted, by the time one takes; after `PATIENCE` in
which the next larger number would have fitted every time, that one is taken. Never more than were wanted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onestride.deploy.contract import ExecutionTerms
from onestride.deploy.monitors import Reading
from onestride.deploy.runtime import Float32, Images, PolicyRuntime
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

#: Late inferences after which fewer evaluations are taken; one alone may be the machine's fault.
LATE_IN_A_ROW = 3

#: How long more evaluations must have fitted before they are taken [s].
PATIENCE = 5.0


def time_for_inference(terms: ExecutionTerms, blend: int) -> float:
    """How long an inference may take [s] before the robot waits longer than one control period for its chunk.

    Args:
        terms: of the contract.
        blend: actions left when the chunk is asked for.
    """
    return max(1.0 / terms.control_rate, blend / terms.policy_rate) if terms.control_rate else blend / terms.policy_rate


class AdaptivePolicy:
    """One policy with several numbers of evaluations.

    The noise goes on as one seeded sequence, whichever is taken.

    Args:
        policies: the same file with each number that may be taken; the first has the one wanted.
        budget: time that an inference may take [s].
        clock: that inferences are timed by [s].

    Attributes:
        wanted: evaluations, as long as they fit.
        late: inferences that took longer than their budget.
        taken: inferences by number of evaluations.
        readings: of the contract's monitors, at the last call.

    Raises:
        OneStrideError: there is nothing to choose from.
    """

    def __init__(
        self, policies: Sequence[PolicyRuntime], budget: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.wanted = policies[0].nfe
        if not any(policy.nfe < self.wanted for policy in policies):
            offered = list(policies[0].contract.policy.nfe)
            raise OneStrideError(f"adaptive nfe: expected a policy that offers less than {self.wanted}, got {offered}")
        self._policies = {policy.nfe: policy for policy in policies if policy.nfe <= self.wanted}
        self._budget, self._clock = budget, clock
        self._noise: Float32 = np.zeros(policies[0].contract.noise_shape, np.float32)
        self.provider: str = policies[0].provider
        self.late, self.taken, self._in_a_row = 0, Counter[int](), 0
        self._fits_since: float | None = None
        self.readings: tuple[Reading, ...] = ()
        self.reset(0)

    @classmethod
    def load(cls, first: PolicyRuntime, budget: float, make: Callable[[int], PolicyRuntime]) -> AdaptivePolicy:
        """With what `first` wants and all smaller numbers that its file offers, made by `make`."""
        fewer = sorted({nfe for nfe in first.contract.policy.nfe if nfe < first.nfe}, reverse=True)
        return cls([first, *map(make, fewer)], budget)

    def reset(self, seed: int) -> None:
        """Start the noise sequence of `seed`, with the evaluations that are wanted."""
        self._generator = np.random.default_rng(seed)
        self._choose(self.wanted)

    def infer(self, observation: Array, images: Images | None = None) -> Float32:
        """The chunk (h, Da) for an observation (To * Do,), with the next noise; see `PolicyRuntime.infer`."""
        policy, start = self._policies[self.nfe], self._clock()
        self._generator.standard_normal(out=self._noise, dtype=np.float32)
        chunk = policy.predict(observation, self._noise, images)
        self.readings = policy.readings
        self.taken[self.nfe] += 1
        end = self._clock()
        self._adapt(end - start, end)
        return chunk

    def summary(self) -> dict[str, Any]:
        """What was taken, as JSON."""
        counts: Mapping[int, int] = dict(self.taken)
        return {
            "wanted": self.wanted,
            "now": self.nfe,
            "late": self.late,
            "budget_ms": round(self._budget * 1e3, 3),
            "inferences": {str(nfe): count for nfe, count in sorted(counts.items())},
        }

    def _adapt(self, took: float, now: float) -> None:
        late = took > self._budget
        self.late += late
        self._in_a_row = self._in_a_row + 1 if late else 0
        if self._in_a_row >= LATE_IN_A_ROW:
            self._choose(self._fitting(took))
        elif self.nfe < self.wanted:
            self._wait_for_more(took, now)

    def _fitting(self, took: float) -> int:
        """The most evaluations below the present ones that would have fitted, or else the fewest."""
        fewer = [nfe for nfe in self._policies if nfe < self.nfe]
        fitting = [nfe for nfe in fewer if took * nfe / self.nfe <= self._budget]
        return max(fitting) if fitting else min(fewer, default=self.nfe)

    def _wait_for_more(self, took: float, now: float) -> None:
        more = min(nfe for nfe in self._policies if nfe > self.nfe)
        if took * more / self.nfe > self._budget:
            self._fits_since = None
        elif self._fits_since is None:
            self._fits_since = now
        elif now - self._fits_since >= PATIENCE:
            self._choose(more)

    def _choose(self, nfe: int) -> None:
        self.nfe, self._in_a_row, self._fits_since = nfe, 0, None

"""What a policy file computes beside its actions to be watched: a critic's risk, read against its threshold."""

from __future__ import annotations

from typing import NamedTuple


class Reading(NamedTuple):
    """One monitor at one inference."""

    name: str
    """As the contract names it."""
    value: float
    """What the graph gave."""
    threshold: float
    """The contract's."""

    @property
    def tripped(self) -> bool:
        """Whether the value is above its threshold, or is no number at all."""
        return not self.value <= self.threshold

"""RLPD: soft actor-critic with prior data, by a large normalised ensemble and batches that are half prior data.

The mixing is the loop's: of each batch the share ``online_share`` is drawn from what the policy itself has gathered,
the rest from the dataset. The published runs take many gradient steps for each environment step; here a
gradient step is one update, and the loop decides how many there are.

Reference: arXiv:2302.02948.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onestride.training.agents.sac import SACAgent, SACConfig
from onestride.training.agents.settings import require


@dataclass(frozen=True)
class RLPDConfig(SACConfig):
    """Soft actor-critic with prior data: ten normalised critics, half of each batch from the dataset."""

    critics: int = 10
    """Critics in the ensemble, K."""
    target_critics: int = 2
    """Critics drawn for a target, whose smallest value counts."""
    actor_value: Literal["min", "mean"] = "mean"
    """What the actor climbs: the smallest of the critics' values, or their mean."""
    layer_norm: bool = True
    """Whether the critics' hidden layers are normalised."""
    entropy_per_element: float = -0.5
    """Entropy [nat] per action element that the temperature steers to."""
    online_share: float = 0.5
    """Share of each batch that is drawn from online experience once there is any; the rest is the dataset's."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with, by field name."""
        super().__post_init__()
        require(self, "online_share", 0 <= self.online_share <= 1, "in [0, 1]")


class RLPDAgent(SACAgent):
    """Soft actor-critic, as :class:`RLPDConfig` sets it."""

"""What a filter is given and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from onestride.hardware.state import Array, Measurement


@dataclass(frozen=True)
class ControlState:
    """What a filter may know at one control tick.

    Attributes:
        now: the controller's monotonic clock [s].
        period: time until the next command [s].
        measurement: the newest measurement of every stream.
        last_sent: the last command that went out (n,) [rad].
        waiting: how long a chunk has been due and missing [s].
        speed_scale: fraction of the speed limits in force, below 1 during the soft start.
    """

    now: float
    period: float
    measurement: Measurement
    last_sent: Array
    waiting: float = 0.0
    speed_scale: float = 1.0


@dataclass(frozen=True)
class Certified:
    """A filter's answer.

    Attributes:
        action: the command that keeps the claim (n,) [rad]; meaningless unless `feasible`.
        feasible: whether the claim can be kept; if not, the controller goes to its safe stop.
        active: names of the rules that changed the nominal action.
        margin: smallest distance left to a limit, in that limit's unit; infinite where none applies.
        reason: why it is not feasible, for people.
    """

    action: Array
    feasible: bool = True
    active: tuple[str, ...] = ()
    margin: float = float("inf")
    reason: str = ""


class Filter(Protocol):
    """One safety idea. It neither prints nor raises: what it cannot keep, it says in its answer."""

    @property
    def name(self) -> str:
        """Name in counters and reports."""
        ...

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """The closest action to `nominal` (n,) that keeps this filter's claim."""
        ...

"""Filters in order, then a recheck of all of them on the value to be sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from onestride.deploy.safety.types import Certified, ControlState, Filter, Follows, Remembers
from onestride.hardware.state import Array


class Chain:
    """Certifies a nominal action by every filter in turn; itself a filter.

    Attributes:
        counters: ticks certified (`ticks`), changed (`interventions`), refused (`refusals`), and how often each
            rule was active or warned, as `filter.rule`.
    """

    name = "chain"

    def __init__(self, filters: Sequence[Filter]) -> None:
        self.filters = tuple(filters)
        self._following = tuple(one for one in self.filters if isinstance(one, Follows))
        self.counters: Counter[str] = Counter()

    def begin(self, state: ControlState) -> None:
        """Have every filter forget what it remembers and begin from this state, as at an activation."""
        for one in self.filters:
            if isinstance(one, Remembers):
                one.reset()
        if state.is_sound:
            for one in self._following:
                one.begin(state)

    def observe(self, state: ControlState) -> None:
        """Show the state of a new tick to the filters that keep account, unless it is not one."""
        if self._following and state.is_sound:
            for one in self._following:
                one.observe(state)

    def sent(self, state: ControlState, command: Array) -> None:
        """Tell the filters that keep account which command (n,) went out at a state."""
        if self._following and state.is_sound:
            for one in self._following:
                one.sent(state, command)

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """The action that keeps every filter's claim, or why there is none."""
        self.counters["ticks"] += 1
        certified = self._through(state, nominal)
        if certified.feasible and certified.action is not nominal:
            again = self._through(state, certified.action)
            if not again.feasible or again.active:
                reason = again.reason or f"recheck failed: {', '.join(again.active)}"
                certified = Certified(nominal, feasible=False, active=certified.active, reason=reason)
        self._count(certified)
        return certified

    def _through(self, state: ControlState, nominal: Array) -> Certified:
        action, margin = nominal, float("inf")
        active: tuple[str, ...] = ()
        warnings: tuple[str, ...] = ()
        readings: dict[str, float] = {}
        for one in self.filters:
            answer = one.certify(state, action)
            if answer.active:
                active = (*active, *(f"{one.name}.{rule}" for rule in answer.active))
            if not answer.feasible:
                return Certified(nominal, feasible=False, active=active, reason=answer.reason)
            action, margin = answer.action, min(margin, answer.margin)
            readings.update(answer.readings)
            if answer.warnings:
                warnings = (*warnings, *(f"{one.name}.{what}" for what in answer.warnings))
        return Certified(action, active=active, margin=margin, readings=readings, warnings=warnings)

    def _count(self, certified: Certified) -> None:
        self.counters["refusals"] += not certified.feasible
        self.counters["interventions"] += bool(certified.active)
        self.counters.update((*certified.active, *certified.warnings))

"""Claim: every duration that the chain reckons with has passed, for the clock neither ran backwards nor jumped."""

from __future__ import annotations

from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.safety.guards import ClockGuard
from onestride.hardware.state import Array


class Clock:
    """Refuses when two ticks are further apart than declared, or in the wrong order."""

    name = "clock"

    def __init__(self, terms: ClockGuard) -> None:
        self._jump = terms.jump
        self.reset()

    def reset(self) -> None:
        """Forget the last tick."""
        self._last: float | None = None
        self._reason = ""

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Pass `nominal` (n,) on, or declare it infeasible."""
        now, last = state.now, self._last
        if last is not None and now != last:
            self._reason = self._judge(now - last)
        self._last = now
        return Certified(nominal, feasible=not self._reason, reason=self._reason)

    def _judge(self, elapsed: float) -> str:
        if elapsed < 0:
            return f"the clock ran backwards by {-elapsed:.3f} s"
        if not elapsed <= self._jump:
            return f"the clock jumped: expected the next tick within {self._jump} s, got it after {elapsed:.3f} s"
        return ""

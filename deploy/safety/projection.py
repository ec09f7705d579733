"""Claim: the command sent keeps every row of every source at once, and is the closest to the nominal one that does.

All rows are in one problem, because rows that are kept one after the other undo one another: what a gate behind the
limits takes off a command may be the braking that a limit asked for.

Boxes come first, as they are most of what happens: a nominal command is clipped into them, and only if that breaks a
row the quadratic program is solved. A source that can tell by itself that a command keeps its claim is asked for rows
only once it objects. Where not all can be kept, bounds give way in the order that they declare; what
gives way still pulls, so that it is left no further than it must be. What is sent is checked against every row, and
by those sources that know more than their rows say. Where the check fails there is no command, and the safe stop
takes over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from onestride.deploy.safety.problem import LEVELS, Problem, gather
from onestride.deploy.safety.solver import OPTIMAL, Solution, Solver
from onestride.deploy.safety.types import Box, Certified, ControlState, Motion, Rows, RowSource, Yield
from onestride.hardware.state import Array


@runtime_checkable
class Rechecks(Protocol):
    """A source that knows a command's true worth, where its rows are only linear in it."""

    def shortfall(self, motion: Motion, command: Array) -> Array:
        """By how much the claim fails at commands (B, n), in the claim's unit (B,); not positive where it holds."""
        ...


@runtime_checkable
class Foresees(Protocol):
    """A source that can tell without its rows that a command keeps its claim, and more easily than state them."""

    def spare(self, motion: Motion, command: Array) -> Array:
        """What commands (B, n) leave beyond all that is asked for, at least, in the claim's unit (B,)."""
        ...


#: The answer before there is one.
NOTHING = Certified(np.empty(0), feasible=False)


class Projection:
    """Gathers the rows of its sources and finds the closest command that keeps them.

    Args:
        sources: of rows.
        joints: names of the robot's joints, in its order.
    """

    name = "projection"
    claim = "the closest command that keeps every row at once, or none"

    def __init__(self, sources: Sequence[RowSource], joints: tuple[str, ...]) -> None:
        self.sources = tuple(sources)
        self._rechecking = {at: source for at, source in enumerate(self.sources) if isinstance(source, Rechecks)}
        self._foreseeing = {at: source for at, source in enumerate(self.sources) if isinstance(source, Foresees)}
        self._always = frozenset(range(len(self.sources))) - frozenset(self._foreseeing)
        self._joints, self._solver = joints, Solver(len(joints))
        self._state: ControlState | None = None
        self._answer: Certified = NOTHING
        self._stated: dict[int, tuple[Rows | Box, ...]] = {}
        self._problems: dict[frozenset[int], Problem] = {}

    def begin(self, state: ControlState) -> None:
        """Have every source begin anew from this state."""
        self._state = None
        for source in self.sources:
            source.reset(state.motion)

    def observe(self, state: ControlState) -> None:
        """Show every source the state of a new tick."""
        self._state = None
        for source in self.sources:
            source.observe(state.motion)

    def sent(self, state: ControlState, command: Array) -> None:
        """Tell every source which command (n,) went out."""
        for source in self.sources:
            source.sent(state.motion, command[None])

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """The closest command to `nominal` (n,) that keeps every row."""
        if state is self._state and nominal is self._answer.action:
            return self._answer  # asked again, about what was checked here and cannot have been changed since
        stating, objecting = self._always, frozenset[int]()
        while True:
            stating |= objecting
            problem = self._problem_at(state, stating)
            action, reason = self._solved(problem, nominal, stating)
            if reason:
                return Certified(nominal, feasible=False, reason=reason)
            objecting = self._objecting(stating, problem.motion, action)
            if not objecting:
                return self._certified(problem, nominal, action)

    def _certified(self, problem: Problem, nominal: Array, action: Array) -> Certified:
        margin, readings = problem.margin(action), self._readings()
        if action is not nominal:
            action.flags.writeable = False
        self._answer = Certified(action, margin=margin, readings=readings)
        active = () if action is nominal else _active(problem, nominal, action)
        return Certified(action, active=active, margin=margin, readings=readings)

    def _objecting(self, stating: frozenset[int], motion: Motion, action: Array) -> frozenset[int]:
        """Which sources that have stated no rows do not see that a command keeps their claims."""
        others = ((at, source) for at, source in self._foreseeing.items() if at not in stating)
        return frozenset(at for at, source in others if not source.spare(motion, action[None])[0] >= 0.0)

    def _solved(self, problem: Problem, nominal: Array, stating: frozenset[int]) -> tuple[Array, str]:
        """The nearest command that keeps every row stated; or why there is none."""
        if problem.clash:
            return nominal, problem.clash
        action, reason = self._nearest(problem, nominal)
        return action, reason or self._recheck(problem, action, stating)

    def _problem_at(self, state: ControlState, stating: frozenset[int]) -> Problem:
        """What some of the sources ask for at a state, put together once: the chain asks again about what it sends."""
        if state is not self._state:
            self._state, self._answer, self._stated, self._problems = state, NOTHING, {}, {}
        if stating not in self._problems:
            claims = [
                (self.sources[at].name, claim) for at in sorted(stating) for claim in self._rows_of(at, state.motion)
            ]
            self._problems[stating] = gather(state.motion, claims, self._joints)
        return self._problems[stating]

    def _rows_of(self, at: int, motion: Motion) -> tuple[Rows | Box, ...]:
        if at not in self._stated:
            self._stated[at] = self.sources[at].rows(motion)
        return self._stated[at]

    def _nearest(self, problem: Problem, nominal: Array) -> tuple[Array, str]:
        """The command, `nominal` itself if it keeps everything; or why there is none."""
        wanted, flag = nominal, OPTIMAL
        for level in LEVELS:
            bounds = problem.bounds_at(level)
            clipped = bounds.nearest(wanted) if bounds.outside(wanted) else wanted
            if problem.keeps_rows(clipped, Yield.JERK):
                return clipped, ""
            change, flag = self._with_rows(problem, wanted, level)
            if change is not None:
                return bounds.nearest(wanted + change), ""
            wanted = clipped
        return nominal, f"no command keeps {', '.join(problem.broken(wanted, Yield.NEVER))} (solver flag {flag})"

    def _with_rows(self, problem: Problem, wanted: Array, level: Yield) -> Solution:
        """The smallest change of `wanted` (n,) that keeps the bounds and rows of a level, the others if it can."""
        bounds, room = problem.bounds_at(level), problem.room(wanted)
        soft = problem.yields > level
        return self._solver.smallest_change(bounds.low - wanted, bounds.high - wanted, problem.matrix, room, soft)

    def _recheck(self, problem: Problem, action: Array, stating: frozenset[int]) -> str:
        """Which hard claims the command to be sent breaks; empty if none."""
        broken: list[str] = []
        if not problem.keeps_bounds(action) or not problem.keeps_rows(action, Yield.NEVER):
            broken.extend(problem.broken(action, Yield.NEVER) or ("bounds of the joints",))
        for at, source in self._rechecking.items():
            if at in stating and not source.shortfall(problem.motion, action[None])[0] <= 0.0:
                broken.append(self.sources[at].name)
        return f"recheck failed: {', '.join(broken)}" if broken else ""

    def _readings(self) -> dict[str, float]:
        return {name: value for source in self.sources for name, value in source.readings().items()}


def _active(problem: Problem, nominal: Array, action: Array) -> tuple[str, ...]:
    """The rules that the nominal command broke, and those that had to give way."""
    return (*problem.broken(nominal), *(f"{name}.yielded" for name in problem.broken(action)))

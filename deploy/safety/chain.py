"""Filters in order, then a recheck of all of them on the value to be sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from onestride.deploy.contract import Contract
from onestride.deploy.safety.finite import Finite
from onestride.deploy.safety.guards import FreshStreams, PolicyAlive
from onestride.deploy.safety.limits import JointLimits
from onestride.deploy.safety.types import Certified, ControlState, Filter
from onestride.deploy.terms import ObjectSource, ScalarSource
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array


class Chain:
    """Certifies a nominal action by every filter in turn; itself a filter.

    Attributes:
        counters: ticks certified (`ticks`), changed (`interventions`), refused (`refusals`), and how often each
            rule was active, as `filter.rule`.
    """

    name = "chain"

    def __init__(self, filters: Sequence[Filter]) -> None:
        self.filters = tuple(filters)
        self.counters: Counter[str] = Counter()

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """The action that keeps every filter's claim, or why there is none."""
        self.counters["ticks"] += 1
        certified = self._through(state, nominal)
        if certified.feasible:
            again = self._through(state, certified.action)
            if not again.feasible or again.active:
                reason = again.reason or f"recheck failed: {', '.join(again.active)}"
                certified = Certified(nominal, feasible=False, active=certified.active, reason=reason)
        self._count(certified)
        return certified

    def _through(self, state: ControlState, nominal: Array) -> Certified:
        action, margin = nominal, float("inf")
        active: tuple[str, ...] = ()
        for one in self.filters:
            answer = one.certify(state, action)
            active = (*active, *(f"{one.name}.{rule}" for rule in answer.active))
            if not answer.feasible:
                return Certified(nominal, feasible=False, active=active, reason=answer.reason)
            action, margin = answer.action, min(margin, answer.margin)
        return Certified(action, active=active, margin=margin)

    def _count(self, certified: Certified) -> None:
        self.counters["refusals"] += not certified.feasible
        self.counters["interventions"] += bool(certified.active)
        self.counters.update(certified.active)


def joint_space_chain(contract: Contract, robot: RobotDescription) -> Chain:
    """The chain every joint-commanded robot gets: finite, fresh, alive, then the limits."""
    streams = ["joints"]
    max_age: dict[str, float] = {}
    for term in contract.observations:
        source = term.source
        name = source.object if isinstance(source, ObjectSource) else "joints"
        name = source.scalar if isinstance(source, ScalarSource) else name
        streams.append(name)
        if term.max_age is not None:
            max_age[name] = min(term.max_age, max_age.get(name, float("inf")))
    return Chain(
        [
            Finite(len(robot.joints)),
            FreshStreams(robot.detection, tuple(dict.fromkeys(streams)), max_age),
            PolicyAlive(robot.detection),
            JointLimits(robot),
        ]
    )

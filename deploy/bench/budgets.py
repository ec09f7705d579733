"""Budgets: the longest that a stage may take, and whether a report keeps it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from onestride.deploy.bench.report import POLICY_STAGES, TICK_STAGES, Figures, Paced, Report
from onestride.hardware.errors import OneStrideError, unknown

#: Written -> attribute of `Figures`.
STATISTICS = {name: name.replace(".", "") for name in ("min", "p50", "p90", "p95", "p99", "p99.9", "max", "mean")}
STAGES = tuple(dict.fromkeys((*POLICY_STAGES, *TICK_STAGES, "wakeup")))
DEFAULT_STAGE = "policy"
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}
_WRITTEN = re.compile(r"(?:(?P<stage>\w+)\.)?(?P<statistic>[a-z]+|p[\d.]+)=(?P<value>\d+(?:\.\d+)?)(?P<unit>us|ms|s)")


@dataclass(frozen=True)
class Budget:
    """The longest that a stage may take, at the control rate.

    Attributes:
        stage: of the policy, which each variant has to keep, or of the control tick.
        statistic: as `STATISTICS` writes it.
        limit: [us].
    """

    stage: str
    statistic: str
    limit: float

    def __str__(self) -> str:
        return f"{self.stage}.{self.statistic} <= {self.limit:g} µs"


def parse_budget(text: str) -> Budget:
    """A budget as it is written on the command line: `p99=500us`, `filters.p99=60us`, `tick.p99.9=1ms`.

    Raises:
        OneStrideError: it is written otherwise, or names an unknown stage or statistic.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise OneStrideError(f"budget: expected [stage.]statistic=time with us, ms or s, as p99=500us, got {text!r}")
    stage, statistic = found["stage"] or DEFAULT_STAGE, found["statistic"]
    if stage not in STAGES:
        raise unknown("stage of a budget", stage, STAGES)
    if statistic not in STATISTICS:
        raise unknown("statistic of a budget", statistic, STATISTICS)
    return Budget(stage, statistic, float(found["value"]) * _UNITS[found["unit"]])


def over_budget(report: Report, budget: Budget) -> list[str]:
    """One line for everything that exceeds the budget, or that it asks for and the report lacks."""
    measured = list(_measured(report, budget.stage))
    if not measured:
        why = next((f": {one.why}" for one in report.skipped if one.what == "full tick"), "")
        return [f"expected {budget}, but this stage was not measured{why}"]
    values = [(where, float(getattr(one, STATISTICS[budget.statistic]))) for where, one in measured]
    return [f"{where}: expected {budget}, got {value:g} µs" for where, value in values if value > budget.limit]


def _measured(report: Report, stage: str) -> Iterator[tuple[str, Figures]]:
    """Where a stage was measured; stages of both count at the policy, apart from filters and the like."""
    of_policy = stage in POLICY_STAGES or stage == "wakeup"
    for where, series in _series(report, of_policy=of_policy):
        if stage == "wakeup":
            yield where, series.wakeup
        elif stage in series.stages:
            yield where, series.stages[stage]


def _series(report: Report, *, of_policy: bool) -> Iterator[tuple[str, Paced]]:
    if of_policy:
        yield from ((variant.title, variant.paced) for variant in report.variants)
    elif report.full_tick is not None:
        yield "full tick", report.full_tick.paced

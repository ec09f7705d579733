"""Two reports side by side: what became faster or slower, and what else differs between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from onestride.deploy.bench.report import Paced, Report, Variant


class Change(NamedTuple):
    """How a series changed.

    Attributes:
        what: the variant or the control tick, and the stage.
        before: median of the earlier report [us].
        after: median of the later one [us].
        p99: ratio of the 99th percentiles, later to earlier.
    """

    what: str
    before: float
    after: float
    p99: float

    @property
    def p50(self) -> float:
        """Ratio of the medians, later to earlier."""
        return self.after / self.before


def changes(earlier: Report, later: Report) -> list[Change]:
    """Every stage that both reports measured at the control rate."""
    before, after = dict(_series(earlier)), dict(_series(later))
    return [
        Change(f"{where}: {stage}", old.p50, new.p50, new.p99 / old.p99 if old.p99 else float("inf"))
        for where in after
        if where in before
        for stage, new in after[where].stages.items()
        if (old := before[where].stages.get(stage)) is not None and old.p50 > 0
    ]


def _series(report: Report) -> Iterator[tuple[str, Paced]]:
    for variant in report.variants:
        yield variant.title, variant.paced
    if report.full_tick is not None:
        yield f"full tick on {report.full_tick.robot}", report.full_tick.paced


def differences(earlier: Report, later: Report) -> list[str]:
    """What makes the figures of two reports no like for like, one line each."""
    pairs = {
        "policy": (earlier.policy.sha256[:12], later.policy.sha256[:12]),
        "device": (earlier.machine.device, later.machine.device),
        "onnxruntime": (earlier.machine.onnxruntime, later.machine.onnxruntime),
        "python": (earlier.machine.python, later.machine.python),
        "governor": (earlier.before.governor, later.before.governor),
        "power mode": (_power_mode(earlier), _power_mode(later)),
        "busy neighbours": (earlier.busy, later.busy),
        "rate": (_rates(earlier.variants), _rates(later.variants)),
    }
    return [f"{name}: {old} before, {new} now" for name, (old, new) in pairs.items() if old != new]


def _power_mode(report: Report) -> str | None:
    return report.machine.jetson.power_mode if report.machine.jetson else None


def _rates(variants: tuple[Variant, ...]) -> tuple[float, ...]:
    return tuple(sorted({variant.paced.rate_hz for variant in variants}))

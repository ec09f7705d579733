"""Reports of many devices as one table, a row for each way in which a device ran a policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onestride.deploy.bench.report import FullTick, Report, Variant, read_report
from onestride.hardware.errors import OneStrideError

HEAD = (
    "device",
    "power mode",
    "policy",
    "provider",
    "precision",
    "NFE",
    "back to back p50 [µs]",
    "paced p50 [µs]",
    "paced p99 [µs]",
    "late",
    "tick p99 [µs]",
    "action error",
    "power [W]",
    "load",
    "onnxruntime",
    "measured",
)
#: Rails that all of a board's power goes through, by generation.
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")


def table_of(folder: Path) -> str:
    """A Markdown table of every report in a folder, a row for each way that was measured.

    Raises:
        OneStrideError: no such folder, no report in it, or a file that is none.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise OneStrideError(f"{folder}: expected JSON reports of `onestride bench`, found none")
    reports = [read_report(path) for path in files]
    reports.sort(key=lambda report: (report.machine.device, report.policy.name))
    lines = [HEAD, tuple("---" for _ in HEAD), *(row for report in reports for row in _rows(report))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    for index, variant in enumerate(report.variants):
        yield _row(report, variant, report.full_tick if index == 0 else None)


def _row(report: Report, variant: Variant, tick: FullTick | None) -> tuple[str, ...]:
    paced, policy = variant.paced.stages["policy"], report.policy
    return (
        _cell(report.machine.device),
        _cell(_power_mode(report)),
        _cell(f"{policy.name} ({policy.observation} → {policy.horizon} × {policy.action}, {policy.sha256[:8]})"),
        variant.provider.removesuffix("ExecutionProvider"),
        variant.precision,
        str(variant.nfe),
        f"{variant.back_to_back['policy'].p50:.0f}",
        f"{paced.p50:.0f}",
        f"{paced.p99:.0f}",
        f"{variant.paced.overruns / (paced.n + variant.paced.overruns):.2%}",
        f"{tick.paced.stages['tick'].p99:.0f}" if tick else "–",
        f"{variant.error.max:.1e}",
        _power(report),
        f"{report.before.load[0]:g}",
        report.machine.onnxruntime,
        report.measured[:10],
    )


def _power_mode(report: Report) -> str:
    jetson = report.machine.jetson
    return (jetson.power_mode if jetson else None) or "–"


def _power(report: Report) -> str:
    rails = report.power.mean_mw if report.power else {}
    total = next((rails[rail] for rail in TOTAL_RAILS if rail in rails), None)
    return "–" if total is None else f"{total / 1000:.1f}"


def _cell(text: str) -> str:
    """Text of a report that somebody sent, made harmless in a Markdown table."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    for mark in "\\|<>`[]*_":
        plain = plain.replace(mark, f"\\{mark}")
    return plain

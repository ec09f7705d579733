"""A report on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onestride.deploy.bench.compare import changes, differences
from onestride.deploy.bench.report import Figures, FullTick, Paced, Report, Variant

COLUMNS = ("min", "p50", "p90", "p95", "p99", "p999", "max")


def print_report(report: Report, earlier: Report | None = None) -> None:
    """Print what was measured, what was skipped, and what changed since an earlier report."""
    console = Console(highlight=False)
    _head(console, report)
    for variant in report.variants:
        _variant(console, variant)
    if report.full_tick is not None:
        _tick(console, report.full_tick)
    for skipped in report.skipped:
        console.print(f"[dim]skipped[/]  {escape(skipped.what)}: {escape(skipped.why)}", soft_wrap=True)
    if earlier is not None:
        _changes(console, earlier, report)


def _head(console: Console, report: Report) -> None:
    policy, machine, before, after = report.policy, report.machine, report.before, report.after
    console.print(f"[bold]{escape(policy.name)}[/]  sha256 {policy.sha256[:12]}…, {policy.candidates} candidates")
    on = ",".join(map(str, machine.affinity))
    words = f"{machine.cores} cores (on {on}), onnxruntime {machine.onnxruntime}, {report.threads} thread"
    console.print(f"{escape(machine.device)}, {words}", soft_wrap=True)
    if machine.jetson is not None:
        jetson = machine.jetson
        console.print(f"Jetson Linux {jetson.l4t}, JetPack {jetson.jetpack}, nvpmodel {jetson.power_mode}")
    console.print(f"load {before.load[0]:g} before, {after.load[0]:g} after, {report.busy} busy neighbours of ours")


def _table(title: str, back_to_back: dict[str, Figures], paced: Paced) -> Table:
    table = Table(box=None, padding=(0, 1), title=f"{title}  [dim]microseconds[/]", title_justify="left")
    table.add_column("stage")
    for column in (*(name.replace("p999", "p99.9") for name in COLUMNS), "n"):
        table.add_column(column, justify="right")
    pace = f"paced {paced.rate_hz:g} Hz"
    rows = {"back to back": back_to_back, pace: {**paced.stages, "wake-up": paced.wakeup}}
    for series, stages in rows.items():
        if stages:
            table.add_row(f"[dim]{series}[/]")
        for stage, figures in stages.items():
            values = (f"{getattr(figures, name):.1f}" for name in COLUMNS)
            table.add_row(f"  {stage}", *values, str(figures.n))
    return table


def _variant(console: Console, variant: Variant) -> None:
    error, paced = variant.error, variant.paced
    colour = "green" if error.within else "red"
    same = "" if error.same_choice is None else f", same candidate in {error.same_choice:.1%}"
    console.print(_table(f"[bold]{variant.title}[/]", variant.back_to_back, variant.paced))
    console.print(
        f"load {variant.load_ms:.0f} ms, first call {variant.first_call_us:.0f} µs, "
        f"{paced.overruns} overruns (longest run {paced.longest_run}), "
        f"action error [{colour}]{error.max:.1e}[/] (tolerance {error.tolerance:g}){same}",
        soft_wrap=True,
    )


def _tick(console: Console, tick: FullTick) -> None:
    paced = tick.paced
    stages = {**paced.stages, "tick with inference": tick.inferring}
    console.print(_table(f"[bold]control tick of {tick.robot}[/]", {}, paced.model_copy(update={"stages": stages})))
    faults = ", ".join(f"{count} x {reason}" for reason, count in tick.faults.items()) or "none"
    words = f"{paced.overruns} overruns (longest run {paced.longest_run}), commands to {tick.sink}, faults: {faults}"
    console.print(escape(words), soft_wrap=True)


def _changes(console: Console, earlier: Report, later: Report) -> None:
    console.print("[bold]against the earlier report[/] (p50, paced)")
    for line in differences(earlier, later):
        console.print(f"[yellow]not like for like[/]  {escape(line)}", soft_wrap=True)
    for one in changes(earlier, later):
        text = f"{one.what}: {one.before:.1f} to {one.after:.1f} µs, x{one.p50:.2f}, p99 x{one.p99:.2f}"
        console.print(escape(text), soft_wrap=True)

"""`onestride bench`: measure, print, compare, and fail over budget."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from onestride.hardware.errors import OneStrideError


@dataclass
class Bench:
    """Latency and jitter of a policy file, back to back and paced at the control rate.

    Exits with 1 if a budget is given and exceeded.
    """

    policy: tyro.conf.Positional[Path]
    """Exported policy file."""
    calls: int = 5000
    """Timed calls of each back-to-back series."""
    seconds: float = 3.0
    """Length of each paced series."""
    rate: float | None = None
    """Pace in Hz; default the contract's control rate (its policy rate where no robot is named)."""
    nfe: tuple[int, ...] = ()
    """Network evaluations to measure; default all that the file offers."""
    provider: str = "CPUExecutionProvider"
    """onnxruntime execution provider; a missing one is an error."""
    budget_us: float | None = None
    """Largest paced p99 allowed, in microseconds."""
    output: Path | None = None
    """Write the JSON report to this file too."""
    compare: Path | None = None
    """An earlier JSON report; ratios of medians are printed."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Measure and report."""
        from rich.console import Console

        from onestride.deploy.bench import BenchOptions, bench, over_budget
        from onestride.deploy.commands import print_json

        if self.calls < 1 or self.seconds <= 0 or (self.rate is not None and self.rate <= 0):
            raise OneStrideError(f"expected calls, seconds and rate > 0, got {self.calls}, {self.seconds}, {self.rate}")
        earlier = _read(self.compare) if self.compare else None
        options = BenchOptions(self.policy, self.calls, self.seconds, self.rate, self.nfe, self.provider)
        with Console(stderr=True).status("measuring"):
            report = bench(options)
        if self.output:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.output.write_text(jsonlib.dumps(report, indent=2) + "\n", encoding="utf-8")
        if self.json:
            print_json(report)
        else:
            _print(report, earlier)
        late = over_budget(report, self.budget_us) if self.budget_us else []
        for line in late:
            Console(stderr=True).print(f"[red]over budget[/]: {line}", highlight=False)
        return 1 if late else 0


def _read(path: Path) -> dict[str, Any]:
    from onestride.deploy.bench import FORMAT

    try:
        report: dict[str, Any] = jsonlib.loads(path.read_text(encoding="utf-8"))
        if report["format"] != FORMAT:
            raise OneStrideError(f"{path}: expected bench format {FORMAT}, got {report['format']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OneStrideError(f"{path}: expected a JSON report of `onestride bench`, got: {error}") from None
    return report


def _print(report: dict[str, Any], earlier: dict[str, Any] | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    machine = report["environment"]
    console.print(f"[bold]{report['policy']['name']}[/]  sha256 {report['policy']['sha256'][:12]}…", highlight=False)
    console.print(
        f"{machine['device_model'] or machine['processor']}, {machine['cores']} cores, "
        f"onnxruntime {machine['onnxruntime']} {report['provider']}, 1 thread",
        highlight=False,
    )
    table = Table(box=None, padding=(0, 1), title="microseconds", title_justify="left")
    for column in ("NFE", "series", "min", "p50", "p90", "p95", "p99", "p99.9", "max", "n"):
        table.add_column(column, justify="left" if column == "series" else "right")
    for result in report["results"]:
        _rows(table, result, report["rate_hz"])
    console.print(table)
    for result in report["results"]:
        console.print(_notes(result, earlier), highlight=False)


def _rows(table: Any, result: dict[str, Any], rate: float) -> None:
    series = {
        "back to back": result["back_to_back_us"],
        f"paced {rate:g} Hz": result["paced"]["infer_us"],
        "wake-up": result["paced"]["wakeup_us"],
    }
    for name, figures in series.items():
        values = (f"{figures[key]:.1f}" for key in ("min", "p50", "p90", "p95", "p99", "p99.9", "max"))
        table.add_row(str(result["nfe"]), name, *values, str(figures["n"]))


def _notes(result: dict[str, Any], earlier: dict[str, Any] | None) -> str:
    paced = result["paced"]
    text = (
        f"NFE {result['nfe']}: load {result['load_ms']:.0f} ms, first call {result['first_call_us']:.0f} µs, "
        f"{paced['overruns']} overruns (longest run {paced['longest_run_of_overruns']})"
    )
    before = next((old for old in (earlier or {}).get("results", []) if old["nfe"] == result["nfe"]), None)
    if before:
        ratio = result["back_to_back_us"]["p50"] / before["back_to_back_us"]["p50"]
        paced_ratio = paced["infer_us"]["p50"] / before["paced"]["infer_us"]["p50"]
        text += f"; against the earlier report: back to back x{ratio:.2f}, paced x{paced_ratio:.2f}"
    return text

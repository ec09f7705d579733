"""Commands of this room: bring a dataset into the store, and look at a store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

if TYPE_CHECKING:
    from rich.table import Table

    from onestride.datasets.converters import Report
    from onestride.datasets.statistics import Statistics
    from onestride.datasets.store import Store


@dataclass
class Convert:
    """Bring a dataset of another format into a new store, and say what was kept, changed and left out."""

    source: Positional[Path]
    """Dataset to read; its format is told by its content (robomimic HDF5)."""
    destination: Positional[Path]
    """Store to make."""
    overwrite: bool = False
    """Replace a store that is already there."""
    json: bool = False
    """Print the report as JSON."""

    def __call__(self) -> int:
        """Convert with a progress bar on stderr; the report goes to stdout."""
        report = _convert(self.source, self.destination, self.overwrite)
        if self.json:
            _print_json(report.to_json())
        else:
            _print_table(_report_table(report, self.destination))
        return 0


@dataclass
class Inspect:
    """Show what a store holds: episodes, features with ranges, success rate, origin, and what was dropped."""

    data: Positional[Path]
    """Store to look at."""
    json: bool = False
    """Print the summary as JSON."""

    def __call__(self) -> int:
        """Verify every segment and print the summary."""
        from onestride.datasets.store import Store

        store = Store.open(self.data)
        store.verify()
        summary = summarise(store)
        if self.json:
            _print_json(summary)
        else:
            for table in _summary_tables(summary):
                _print_table(table)
        return 0


def summarise(store: Store) -> dict[str, Any]:
    """What `inspect` shows, as JSON values."""
    lengths = store.lengths
    counted = {"min": int(lengths.min()), "max": int(lengths.max())} if len(lengths) else None
    return {
        "path": str(store.path),
        "dataset_id": store.dataset_id,
        "episodes": store.num_episodes,
        "steps": store.num_steps,
        "lengths": counted,
        "success_rate": _success_rate(store),
        "control_rate": store.schema.control_rate,
        "environment": store.schema.environment,
        "robot": store.schema.robot,
        "label": f"{store.schema.label} ({store.schema.label_source})",
        "features": _features(store),
        "provenance": store.provenance.model_dump(mode="json"),
        "dropped": list(store.dropped),
    }


def _convert(source: Path, destination: Path, overwrite: bool) -> Report:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from onestride.datasets.converters import convert

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"Converting {source.name}", total=None)
        return convert(
            source,
            destination,
            overwrite=overwrite,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _report_table(report: Report, destination: Path) -> Table:
    from rich.table import Table

    title = f"{destination}: {report.episodes} episodes, {report.steps} steps, id {report.dataset_id}"
    table = Table("", f"from {report.format}", title=title, title_justify="left")
    sections = (("kept", report.kept), ("changed", report.changed), ("left out", report.left_out))
    for heading, lines in sections:
        table.add_section()
        for number, line in enumerate(lines or ["nothing"]):
            table.add_row("" if number else heading, line)
    return table


def _success_rate(store: Store) -> float | None:
    """Share of successes among the episodes that say; None where none says."""
    told = [info.attributes["success"] for info in store.episodes if "success" in info.attributes]
    return sum(bool(success) for success in told) / len(told) if told else None


def _features(store: Store) -> list[dict[str, Any]]:
    from onestride.datasets.statistics import statistics

    # Ranges of images say little and take long.
    flat = [one.name for one in store.schema.features if len(one.shape) <= 1] if store.num_steps else []
    known = statistics(store, flat) if flat else None
    return [{**feature.model_dump(mode="json"), **_range(known, feature.name)} for feature in store.schema.features]


def _range(known: Statistics | None, name: str) -> dict[str, Any]:
    if known is None or name not in known.features:
        return {"min": None, "max": None, "mean": None}
    one = known.features[name]
    return {"min": one.min.tolist(), "max": one.max.tolist(), "mean": one.mean.tolist()}


def _summary_tables(summary: dict[str, Any]) -> list[Table]:
    from rich.table import Table

    about = Table(show_header=False, title=summary["path"], title_justify="left")
    for row in _about_rows(summary):
        about.add_row(*row)
    features = Table("feature", "role", "shape", "dtype", "unit", "min", "max", "mean")
    for one in summary["features"]:
        shape = "×".join(map(str, one["shape"])) or "scalar"
        numbers = [_span(one[key], choose) for key, choose in (("min", min), ("max", max), ("mean", _mean))]
        units = ", ".join(dict.fromkeys(one["units"])) or "?"
        features.add_row(one["name"], one["role"], shape, one["dtype"], units, *numbers)
    return [about, features]


def _about_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    lengths, success, origin = summary["lengths"], summary["success_rate"], summary["provenance"]
    rate = summary["control_rate"]
    sources = ", ".join(one["name"] for one in origin["sources"]) or "none"
    return [
        ("dataset id", summary["dataset_id"]),
        ("episodes", str(summary["episodes"])),
        ("steps", f"{summary['steps']}" + (f" ({lengths['min']} to {lengths['max']} each)" if lengths else "")),
        ("success rate", "not recorded" if success is None else f"{success:.2f}"),
        ("environment", summary["environment"] or "none"),
        ("robot", summary["robot"] or "none (actions named as in the dataset)"),
        ("label", summary["label"]),
        ("control rate", f"{rate:g} Hz" if rate else "unknown"),
        ("made", f"{origin['created']} by {origin['command']}, onestride {origin['onestride_version']}"),
        ("sources", sources),
        ("dropped", ", ".join(summary["dropped"]) or "nothing"),
    ]


def _span(values: list[float] | None, choose: Any) -> str:
    return "" if values is None else f"{choose(values):.4g}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _print_table(table: Table) -> None:
    from rich.console import Console

    Console(markup=False, emoji=False).print(table)


def _print_json(content: dict[str, Any]) -> None:
    from rich.console import Console

    plain = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
    plain.print(json.dumps(content, indent=2))

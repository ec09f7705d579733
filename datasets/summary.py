"""What `inspect` tells of a store: as JSON values for a program, as tables for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from onestride.datasets.quality import ClockQuality, Quality
    from onestride.datasets.statistics import Statistics
    from onestride.datasets.store import Store


def summarise(store: Store, quality: Quality) -> dict[str, Any]:
    """Everything, as JSON values."""
    lengths = store.lengths
    counted = {"min": int(lengths.min()), "max": int(lengths.max())} if len(lengths) else None
    return {
        "path": str(store.path),
        "dataset_id": store.dataset_id,
        "episodes": store.num_episodes,
        "steps": store.num_steps,
        "segments": len(store.segments),
        "lengths": counted,
        "success_rate": success_rate(store),
        "tasks": _tasks(store),
        "control_rate": store.schema.control_rate,
        "environment": store.schema.environment,
        "robot": store.schema.robot,
        "label": f"{store.schema.label} ({store.schema.label_source})",
        "features": _features(store),
        "quality": quality.to_json(),
        "provenance": store.provenance.model_dump(mode="json"),
        "edits": [edition.model_dump(mode="json") for edition in store.manifest.history],
        "hidden_steps": sum(sum(one.entry.lengths) for one in store.segments) - store.num_steps,
        "dropped": list(store.dropped),
    }


def tables(summary: dict[str, Any], quality: Quality) -> list[Table]:
    """The same, to be looked at."""
    return [_about(summary, quality), _feature_table(summary), _clock_table(quality)]


def success_rate(store: Store) -> float | None:
    """Share of successes among the episodes that say; None where none says."""
    told = [info.attributes["success"] for info in store.episodes if "success" in info.attributes]
    return sum(bool(success) for success in told) / len(told) if told else None


def _tasks(store: Store) -> dict[str, int]:
    """Task -> episodes, most frequent first; empty where no episode names one."""
    counts: dict[str, int] = {}
    for info in store.episodes:
        if "task" in info.attributes:
            task = str(info.attributes["task"])
            counts[task] = counts.get(task, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _features(store: Store) -> list[dict[str, Any]]:
    from onestride.datasets.statistics import statistics

    # Ranges of images say little and take long.
    flat = [one.name for one in store.schema.features if len(one.shape) <= 1]
    flat = [name for name in flat if store.num_rows(store.schema.feature(name).stream)]
    known = statistics(store, flat) if flat else None
    return [
        {"codec": "lossless", **feature.model_dump(mode="json"), **_range(known, feature.name)}
        for feature in store.schema.features
    ]


def _range(known: Statistics | None, name: str) -> dict[str, Any]:
    if known is None or name not in known.features:
        return {"min": None, "max": None, "mean": None}
    one = known.features[name]
    return {"min": one.min.tolist(), "max": one.max.tolist(), "mean": one.mean.tolist()}


def _about(summary: dict[str, Any], quality: Quality) -> Table:
    from rich.table import Table

    about = Table(show_header=False, title=summary["path"], title_justify="left")
    for row in (*_about_rows(summary), *_quality_rows(quality), *_origin_rows(summary)):
        about.add_row(*row)
    about.add_section()
    for number, problem in enumerate(quality.problems or ["none found"]):
        about.add_row("" if number else "problems", problem)
    return about


def _about_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    lengths, success, rate = summary["lengths"], summary["success_rate"], summary["control_rate"]
    hidden = f", {summary['hidden_steps']} more hidden by edits" if summary["hidden_steps"] else ""
    tasks = [f"{task} ({count})" for task, count in summary["tasks"].items()]
    return [
        ("dataset id", summary["dataset_id"]),
        ("episodes", str(summary["episodes"])),
        ("steps", f"{summary['steps']}" + (f" ({lengths['min']} to {lengths['max']} each){hidden}" if lengths else "")),
        ("segments", str(summary["segments"])),
        ("success rate", "not recorded" if success is None else f"{success:.2f}"),
        ("tasks", _few(tasks) or "not named"),
        ("environment", summary["environment"] or "none"),
        ("robot", summary["robot"] or "none (actions named as in the dataset)"),
        ("label", summary["label"]),
        ("control rate", f"{rate:g} Hz" if rate else "unknown"),
    ]


def _quality_rows(quality: Quality) -> list[tuple[str, str]]:
    one = quality.coverage
    saco = "none" if one.saco is None else f"{one.saco:.3f} of {one.saco_reference} ({one.unique_pairs} unique pairs)"
    tq = f"none ({one.tq_reference})" if one.tq is None else f"{one.tq:.3f} ({one.tq_reference})"
    rows = [("coverage SACo", saco), ("quality TQ", tq)]
    if quality.constant:
        rows.append(("never change", _few(quality.constant)))
    for name, (overall, worst) in quality.video.items():
        rows.append((f"video {name}", f"PSNR {overall:.1f} dB, worst frame {worst:.1f} dB"))
    return rows


def _few(names: Sequence[str], shown: int = 6) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _origin_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    origin, edits = summary["provenance"], summary["edits"]
    sources = ", ".join(one["name"] for one in origin["sources"])
    rows = [
        ("made", f"{origin['created']} by {origin['command']}, onestride {origin['onestride_version']}"),
        ("sources", sources or "none"),
        ("parents", ", ".join(origin["parents"]) or "none"),
        ("dropped", ", ".join(summary["dropped"]) or "nothing"),
    ]
    if edits:
        rows.insert(3, ("edited", f"{len(edits)} times, last {edits[-1]['edited']}: {edits[-1]['command']}"))
    return rows


def _feature_table(summary: dict[str, Any]) -> Table:
    from rich.table import Column, Table

    # The name is what one looks for: a narrow window shortens the others.
    heads = ("role", "stream", "shape", "dtype", "unit", "min", "max", "mean")
    table = Table(Column("feature", no_wrap=True), *heads, padding=(0, 0), pad_edge=True)
    for one in summary["features"]:
        shape = "×".join(map(str, one["shape"])) or "scalar"
        numbers = [_span(one[key], choose) for key, choose in (("min", min), ("max", max), ("mean", _mean))]
        units = ", ".join(dict.fromkeys(one["units"])) or "?"
        kind = one["dtype"] + (" video" if one["codec"] == "video" else "")
        table.add_row(one["name"], one["role"], one["stream"], shape, kind, units, *numbers)
    return table


def _clock_table(quality: Quality) -> Table:
    from rich.table import Table

    table = Table("stream", "rows", "rate Hz", "jitter p50 ms", "p99", "max", "gaps", "longest s", "repeated")
    for stream, clock in quality.clocks.items():
        table.add_row(stream, *_clock_cells(clock))
    return table


def _clock_cells(clock: ClockQuality) -> list[str]:
    rate = f"{clock.rate:.4g}" if clock.rate else "unknown"
    jitter = [f"{1e3 * one:.3g}" for one in (clock.jitter_p50, clock.jitter_p99, clock.jitter_max)]
    longest = f"{clock.longest_gap:.3g}" if clock.gaps else ""
    return [str(clock.rows), rate, *jitter, str(clock.gaps), longest, str(clock.repeated)]


def _span(values: list[float] | None, choose: Any) -> str:
    return "" if values is None else f"{choose(values):.3g}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

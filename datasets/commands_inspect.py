"""`onestride inspect`: what a store holds, what is wrong with it, and putting it right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from onestride.datasets.printing import episode_progress, print_json, print_line, print_table

if TYPE_CHECKING:
    from onestride.datasets.quality import Quality
    from onestride.datasets.repair import RepairReport
    from onestride.datasets.store import Store


@dataclass
class Inspect:
    """Show what a store holds: episodes, features, ranges, clocks, duplicates, coverage, origin, and what is wrong."""

    data: Positional[Path]
    """Store to look at."""
    json: bool = False
    """Print the summary as JSON."""
    strict: bool = False
    """Exit with 1 where there are problems: gaps, repeated timestamps, NaNs, duplicates, dropped pieces, wrong rate."""
    repair: bool = False
    """First commit what is whole and uncommitted, keep the sound episodes of damaged segments, clear away the rest."""
    plot: Path | None = None
    """Write a picture (.png, .pdf, .svg) of trajectories, action histograms and timing jitter."""
    rerun: bool = False
    """Open the episodes in the Rerun viewer."""
    rerun_file: Path | None = None
    """Write the episodes to a file (.rrd) for the Rerun viewer instead of opening it."""
    episodes: tuple[int, ...] = ()
    """Episodes for Rerun; none named = the first ten."""
    reference: Path | None = None
    """Store whose coverage counts as 1 for SACo; without one SACo is the share of steps that are unique."""
    returns: tuple[float, float] | None = None
    """Return of the worst and of the best policy known, for TQ; without them, of its own worst and best episode."""

    def __call__(self) -> int:
        """Verify every segment, look through every episode, and print the summary."""
        from onestride.datasets.store import Store
        from onestride.datasets.summary import summarise, tables

        repaired = _repair(self.data) if self.repair else None
        store = Store.open(self.data)
        store.verify()
        quality = _assess(store, self.reference, self.returns)
        summary = summarise(store, quality)
        if repaired is not None:
            summary["repair"] = repaired.to_json()
        if self.json:
            print_json(summary)
        else:
            for line in _repair_lines(repaired):
                print_line(line)
            for table in tables(summary, quality):
                print_table(table)
        self._show(store)
        return int(self.strict and bool(quality.problems))

    def _show(self, store: Store) -> None:
        if self.plot is not None:
            from onestride.datasets.plots import plot

            plot(store, self.plot)
        if self.rerun or self.rerun_file is not None:
            from onestride.datasets.rerun import show

            show(store, self.episodes or range(min(10, store.num_episodes)), self.rerun_file)


def _repair(path: Path) -> RepairReport:
    from onestride.datasets.repair import repair

    return repair(path)


def _repair_lines(report: RepairReport | None) -> list[str]:
    if report is None:
        return []
    if not report.changed:
        return ["repair: nothing to do"]
    told: dict[str, Any] = report.to_json()
    lines = ["repair: the manifest was damaged and was rebuilt; edits are lost"] if report.manifest_rebuilt else []
    return lines + [
        f"repair: {what} {', '.join(told[what])}"
        for what in ("recovered", "doubled", "salvaged", "lost", "moved", "removed")
        if told[what]
    ]


def _assess(store: Store, reference: Path | None, returns: tuple[float, float] | None) -> Quality:
    from onestride.datasets.quality import assess
    from onestride.datasets.store import Store

    other = None if reference is None else Store.open(reference)
    with episode_progress(f"Reading {store.path.name}") as progress:
        return assess(store, reference=other, returns=returns, progress=progress)

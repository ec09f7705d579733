"""``onestride bench-train``: the benchmarks of learning, one resumable training a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestride.training.commands import progress_bar, say

if TYPE_CHECKING:
    from onestride.training.suites.cells import Cell, Suite
    from onestride.training.sweep import Outcome

SUITES = {
    "mvp-paper": "onestride.training.suites.mvp_paper",
    "cube-single": "onestride.training.suites.cube_single",
    "safe-velocity": "onestride.training.suites.safe_velocity",
}
"""Name on the command line -> module with its `SUITE`."""


@dataclass
class BenchTrain:
    """Run the cells of a benchmark of learning; running it again goes on where it was cut.

    For instance `onestride bench-train --suite cube-single --only mvp --seeds 0`.
    """

    suite: str
    """mvp-paper (nine tasks), cube-single (two cores, minutes to an hour a cell) or safe-velocity."""
    scale: str = "cpu-smoke"
    """How much of it: cpu-smoke (seconds a cell, tells that it runs), and what the suite has beside."""
    seeds: tuple[int, ...] = ()
    """Seeds; default the scale's."""
    only: tuple[str, ...] = ()
    """Tasks and agents to run; default all of them."""
    jobs: int = 1
    """Trainings at a time."""
    run: Path = Path("runs/bench-train")
    """Folder of the data and the run directories."""
    results: Path = Path("runs/bench-train/results")
    """Folder of the results: <suite>.json, and for each scale a table and a plot."""
    list: bool = False
    """Only list the cells and whether they were run."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Run what is not done, and write the table and the plot."""
        from onestride.training.suites.results import Results

        suite, results = load(self.suite), Results(self.results / f"{self.suite}.json")
        cells = suite.cells(self.scale, self.seeds, self.only)
        outcomes: list[Outcome] = []
        if not self.list:
            outcomes = self._run(suite, cells, results)
        say(self._told(cells, results, outcomes), "cells", self.json, names=True)
        return 0 if all(outcome.code == 0 for outcome in outcomes) else 1

    def _run(self, suite: Suite, cells: Any, results: Any) -> Any:
        from onestride.training.suites.page import write_page
        from onestride.training.suites.running import run_cells

        results.read()  # a damaged file is refused before hours of work, not after
        with progress_bar("cells", len(cells)) as advance:
            ended: Any = []

            def progress(outcome: Outcome) -> None:
                ended.append(outcome)
                advance(len(ended), outcome.trial)
                entries = results.read()
                write_page(suite, self.scale, self._shown(suite, entries), entries, self.results)

            return run_cells(cells, self.scale, self.run / suite.name, results, self.jobs, progress)

    def _shown(self, suite: Suite, entries: Any) -> Sequence[Cell]:
        """Every cell of the page: of all seeds that were asked for, now or before."""
        before = {entry["seed"] for entry in entries if entry["scale"] == self.scale}
        usual = self.seeds or suite.seeds[self.scale]
        return suite.cells(self.scale, sorted({*usual, *before}))

    def _told(self, cells: Any, results: Any, outcomes: Any) -> dict[str, Any]:
        from onestride.training.suites.results import found

        failed = {outcome.trial: outcome.message for outcome in outcomes if outcome.code}
        entries = results.read()
        return {cell.name: self._state(cell, found(cell, self.scale, entries), failed) for cell in cells}

    def _state(self, cell: Cell, entry: dict[str, Any] | None, failed: dict[str, str]) -> str:
        if cell.name in failed:
            return f"failed: {failed[cell.name]}"
        row = entry and (entry["online"] or entry["offline"])
        if not row:
            return "not run" if entry is None else "run, not evaluated"
        return f"success {row['success']:.2f}, return {row['return']:.4g}, cost {row['cost']:.3g}"


def load(name: str) -> Suite:
    """A suite by name.

    Raises:
        OneStrideError: There is none; lists those there are.
    """
    from importlib import import_module

    from onestride.hardware.errors import unknown

    if name not in SUITES:
        raise unknown("suite", name, SUITES)
    suite: Suite = import_module(SUITES[name]).SUITE
    return suite

"""Run the cells of a suite: make the data, train in resumable processes, write each result as it comes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from onestride.hardware.errors import OneStrideError
from onestride.training import snapshots
from onestride.training.checkpoint import RunDirectory
from onestride.training.evaluation import evaluate
from onestride.training.evaluations import Row, read_evaluations, summary
from onestride.training.suites.cells import Cell, Data
from onestride.training.suites.results import Results, entry
from onestride.training.sweep import Outcome, Trial, run_all

Progress = Callable[[Outcome], None]


def run_cells(
    cells: Sequence[Cell], scale: str, folder: Path, results: Results, jobs: int = 1, progress: Progress | None = None
) -> list[Outcome]:
    """Run cells, `jobs` at a time; one that fails does not stop the others.

    Running the same cells again goes on where they were cut; a finished one is only read.

    Args:
        cells: In the order of their run.
        scale: Of the suite.
        folder: Of the data and the run directories.
        results: What takes the outcome of each cell when it ends.
        jobs: Trainings at a time.
        progress: Told of each cell that ends.

    Raises:
        OneStrideError: The data cannot be made.
    """
    stores = {data: make(data, folder / "data") for data in dict.fromkeys(cell.data for cell in cells) if data}
    by_name = {cell.name: cell for cell in cells}

    def ended(outcome: Outcome) -> None:
        if outcome.code == 0:
            cell, run = by_name[outcome.trial], folder / scale / outcome.trial
            results.put(entry(cell, scale, outcome.result, run, _with_candidates(cell, run)))
        if progress:
            progress(outcome)

    runs = folder / scale
    found = run_all([_trial(cell, stores, runs) for cell in cells if not cell.after], runs, jobs, ended)
    ready = [cell for cell in cells if cell.after and _finished(runs / cell.start)]
    found += run_all([_trial(cell, stores, runs) for cell in ready], runs, jobs, ended)
    for cell in cells:
        if cell.after and cell not in ready:
            found.append(Outcome(cell.name, 1, message=f"expected {cell.start} to be finished: run {cell.after} first"))
    return found


def _finished(run: Path) -> bool:
    """Whether a training has taken its last step."""
    if not run.is_dir():
        return False
    snapshot, _ = snapshots.newest(RunDirectory(run).checkpoints)
    if snapshot is None:
        return False
    return bool(snapshot.values.get("stopped")) or snapshot.step >= RunDirectory(run).config().total_steps


def make(data: Data, folder: Path) -> Path:
    """Make a store with the commands of its recipe, each of which resumes; nothing to do where it is complete.

    Raises:
        OneStrideError: A command fails.
    """
    store, done = folder / data.name, folder / f"{data.name}.done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for command in data.commands:
            given = [word.format(data=folder, store=store) for word in command]
            _onestride(given)
        done.touch()
    return store


def _trial(cell: Cell, stores: dict[Data, Path], runs: Path) -> Trial:
    given = ("--data", str(stores[cell.data])) if cell.data else ()
    start = ("--start", str(runs / cell.start)) if cell.start else ()
    agent, *rest = cell.words
    return Trial(cell.name, (agent, *given, *start, *rest, "--seed", str(cell.seed)))


def _onestride(command: Sequence[str]) -> None:
    process = subprocess.run([sys.executable, "-m", "onestride.deploy.cli", *command], stdout=sys.stderr, check=False)
    if process.returncode:
        raise OneStrideError(f"expected data from `onestride {' '.join(command)}`, got exit code {process.returncode}")


def _with_candidates(cell: Cell, run: Path) -> dict[int, Row]:
    """Evaluations of a run's last weights with other numbers of candidates, at the run's own evaluation seeds."""
    if not cell.candidates:
        return {}
    from onestride.training.acting import policy_of
    from onestride.training.checkpoint import load_run
    from onestride.training.environments.registry import make as make_environment

    loaded, last = load_run(run), read_evaluations(run / "evaluations.csv")[-1]
    environment = make_environment(loaded.config.env)
    seeds = range(int(last["seed"]), int(last["seed"] + last["episodes"]))
    try:
        rows = {}
        for count in cell.candidates:
            trials = evaluate(policy_of(loaded, candidates=count), environment, seeds)
            rows[count] = summary(trials, loaded.step, 0.0)
        return rows
    finally:
        environment.close()

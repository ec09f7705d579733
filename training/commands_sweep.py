"""``onestride sweep``: several runs over seeds and settings, on this machine or on Ray."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from onestride.training.commands import progress_bar, say

if TYPE_CHECKING:
    from onestride.training.sweep import Outcome, Trial


@dataclass
class Sweep:
    """Train over seeds and settings; running it again goes on where it was cut.

    For instance `onestride sweep cube.yaml --run runs/cube --jobs 4`, or without a file
    `onestride sweep --train "mvp --data cube.zarr --steps 6000" --seeds 0 1 2 --run runs/cube`.
    """

    file: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="[FILE.yaml]")]] = None
    """agent: NAME, common: {flag: value}, settings: {flag: [values to try]}, seeds: [numbers]."""
    run: Path = Path("runs/sweep")
    """Folder of the sweep: a run directory and a log for each trial, and report.html."""
    train: str = ""
    """Instead of a file: the words of `onestride train` that all trials share."""
    seeds: tuple[int, ...] = ()
    """Seeds; default the file's, or 0."""
    jobs: int = 1
    """Trials at a time, on this machine."""
    ray: bool = False
    """Run the trials as tasks of Ray."""
    ray_address: str | None = None
    """Of a running Ray cluster; default one on this machine, for as long as this takes."""
    cpus: float = 1.0
    """Processors of a trial on Ray."""
    gpus: float = 0.0
    """GPUs of a trial on Ray; parts of one share it."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Run what is not done, write the report, and say how each trial ended."""
        every = self._trials()
        for trial in every:
            _check(trial)
        with progress_bar("sweep", len(every)) as advance:
            done: list[Outcome] = []

            def progress(outcome: Outcome) -> None:
                done.append(outcome)
                advance(len(done), outcome.trial)

            outcomes = self._run(every, progress)
        self._report(outcomes)
        say(_told(outcomes, self.run, self.json), "swept", self.json, names=True)
        return 0 if all(outcome.code == 0 for outcome in outcomes) else 1

    def _trials(self) -> list[Trial]:
        from onestride.hardware.errors import OneStrideError
        from onestride.training.sweep import read_sweep, trials

        if (self.file is None) == (not self.train):
            raise OneStrideError("expected either a sweep file or --train with the words of `onestride train`")
        if self.file is not None:
            return read_sweep(self.file, self.seeds)
        agent, *words = shlex.split(self.train)
        return trials(agent, words, {}, self.seeds or (0,))

    def _run(self, every: list[Trial], progress: Any) -> list[Outcome]:
        if self.ray or self.ray_address:
            from onestride.training.sweep_ray import run_on_ray

            return run_on_ray(
                every, self.run, address=self.ray_address, cpus=self.cpus, gpus=self.gpus, progress=progress
            )
        from onestride.training.sweep import run_all

        return run_all(every, self.run, self.jobs, progress)

    def _report(self, outcomes: list[Outcome]) -> None:
        from onestride.hardware.durable import write_atomic
        from onestride.training.report import group_runs
        from onestride.training.report_page import build_page

        if paths := [self.run / outcome.trial for outcome in outcomes if outcome.code == 0]:
            write_atomic(self.run / "report.html", build_page(group_runs(paths)).encode(), self.run)


def _check(trial: Trial) -> None:
    """Refuse a trial whose words `train` does not know, as `train` itself would, before any has begun."""
    from onestride.deploy.usage import parse
    from onestride.training.commands_train import Train

    Train.accept(list(trial.arguments))
    parse(Train, "onestride train", [*trial.arguments, "--run", trial.name])


def _told(outcomes: list[Outcome], folder: Path, whole: bool) -> dict[str, Any]:
    if whole:
        return {"run": str(folder), "trials": [vars(outcome) for outcome in outcomes]}
    return {outcome.trial: _ending(outcome) for outcome in outcomes} | {"report": str(folder / "report.html")}


def _ending(outcome: Outcome) -> str:
    if outcome.code:
        return f"failed ({outcome.code}): {outcome.message}"
    success, steps = outcome.result["success"], outcome.result["steps"]
    return f"{steps} steps" + ("" if success is None else f", success {success:.2f}")

"""Commands of this room beside `train` and `collect`: eval, export."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from onestride.deploy.contract import Contract
    from onestride.deploy.runtime import PolicyRuntime
    from onestride.training.acting import TorchPolicy
    from onestride.training.environments.interface import Environment


def say(result: dict[str, Any], title: str, json: bool, *, names: bool = False) -> None:
    """Print a result: as one JSON document, or as a small table.

    Args:
        result: What to print.
        title: Of the table.
        json: Whether a program reads it.
        names: Whether the keys are names, to be shown as they are.
    """
    if json:
        sys.stdout.write(jsonlib.dumps(result, indent=2) + "\n")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, show_header=False, box=None, title_justify="left", padding=(0, 1))
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, value in result.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        table.add_row(name if names else name.replace("_", " "), escape(text))
    Console().print(table)


@contextmanager
def progress_bar(label: str, total: int, done: int = 0) -> Iterator[Any]:
    """A progress bar on the standard error; yields `advance_to(count, note)`."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, completed=done, note="")
        yield lambda count, note="": progress.update(task, completed=count, note=note)


@dataclass
class Eval:
    """Success of an exported policy, or of a run's newest checkpoint, in an environment (no robot between)."""

    policy: tyro.conf.Positional[Path]
    """Exported policy file, or a training run."""
    env: str | None = None
    """Environment id; default the one the policy was trained for."""
    episodes: int = 25
    """Episodes, one per seed."""
    seed: int = 1_000_000
    """First seed; far from the seeds that `collect` uses."""
    nfe: int | None = None
    """Network evaluations per action; default the policy's first."""
    candidates: int | None = None
    """Of a run: chunks drawn and ranked by its critic, instead of its own number; 1 = unranked."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Evaluate and print the success rate."""
        from onestride.training.evaluation import evaluate

        policy = self._policy()
        environment, name = self._environment(policy.contract)
        seeds = range(self.seed, self.seed + self.episodes)
        try:
            with progress_bar("evaluate", self.episodes) as advance:
                trials = evaluate(policy, environment, seeds, lambda trial: advance(trial.seed - self.seed + 1))
        finally:
            environment.close()
        count = len(trials)
        summary = {
            "success_rate": sum(trial.success for trial in trials) / count,
            "episodes": count,
            "mean_steps": sum(trial.steps for trial in trials) / count,
            "mean_reward": sum(trial.reward for trial in trials) / count,
            "mean_cost": sum(trial.cost for trial in trials) / count,
            "nfe": policy.nfe,
            "env": name,
        }
        say(summary | ({"trials": [asdict(trial) for trial in trials]} if self.json else {}), "evaluated", self.json)
        return 0

    def _environment(self, contract: Contract) -> tuple[Environment, str]:
        """The environment to evaluate in, and how it is named."""
        from onestride.hardware.errors import OneStrideError
        from onestride.training.environments.registry import canonical, make

        name = self.env or contract.environment
        if self.episodes < 1:
            raise OneStrideError(f"expected --episodes >= 1, got {self.episodes}")
        if name is None or (self.env is None and canonical(name) is None):
            raise OneStrideError(f"the policy names no environment to evaluate in (its data: {name}): expected --env")
        own = canonical(name) == contract.environment
        return make(name, contract.environment_settings if own else None), name

    def _policy(self) -> TorchPolicy | PolicyRuntime:
        if self.policy.is_dir():
            from onestride.training.acting import policy_of
            from onestride.training.checkpoint import load_run

            return policy_of(load_run(self.policy), self.nfe, self.candidates)
        from onestride.deploy.runtime import PolicyRuntime
        from onestride.hardware.errors import OneStrideError

        if self.candidates is not None:
            raise OneStrideError("--candidates: expected a training run, got a policy file, whose number is built in")
        return PolicyRuntime(self.policy, nfe=self.nfe)


@dataclass
class Export:
    """Export a training run as one ONNX file with the contract inside."""

    run: tyro.conf.Positional[Path]
    """Training run."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("policy.onnx")
    """File to write."""
    data: Path | None = None
    """The training store, if it has moved since."""
    watch: bool = False
    """Learn a Lyapunov function on the run's successful episodes and export it beside the policy, as the monitor
    `lyapunov` of the safety filter `decrease`. Not proved."""
    candidates: int | None = None
    """Chunks drawn and ranked by the run's critic, instead of its own number; 1 = unranked."""
    certificate: Path | None = None
    """File of `onestride certificate` for the system that the policy acts on: only candidates that keep its claim are
    ranked, and the file's monitors tell where none does."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Export and say what was written."""
        from onestride.deploy.runtime import load_contract
        from onestride.training.exporting import export_run

        if self.watch:
            self._watch()
        export_run(
            self.run,
            self.output,
            self.data,
            watch=self.watch,
            candidates=self.candidates,
            certificate=self.certificate,
        )
        contract, digest = load_contract(self.output)
        assert contract.export is not None
        summary = {
            "policy": str(self.output),
            "bytes": self.output.stat().st_size,
            "sha256": digest,
            "nfe": list(contract.policy.nfe),
            "steps": contract.policy.steps,
            "parity": contract.export.parity,
            "dataset_id": contract.dataset.id,
        }
        if (slope := contract.policy.lipschitz) is not None:
            text = f"{slope.seen:.3g} seen at {slope.samples} observations, at most {slope.bound:.3g}"
            summary["lipschitz"] = slope.model_dump() if self.json else text
        if (kept := contract.policy.certificate) is not None:
            summary["certificate"] = f"{kept.claim} of {kept.system}, for {contract.policy.candidates} candidates"
        if contract.policy.monitors:
            summary["monitors"] = [f"{monitor.name}: {monitor.meaning}" for monitor in contract.policy.monitors]
        say(summary, "exported", self.json)
        return 0

    def _watch(self) -> None:
        from onestride.training.certificates.on_data import OnDataConfig
        from onestride.training.exporting import watch_run

        with progress_bar("learning what to watch", OnDataConfig().steps) as bar:
            watch_run(self.run, self.data, bar)

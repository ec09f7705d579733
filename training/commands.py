"""Commands of this room beside `train`: collect, eval, export, scene."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


def say(result: dict[str, Any], title: str, json: bool) -> None:
    """Print a result: as one JSON document, or as a small table."""
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
        table.add_row(name.replace("_", " "), escape(f"{value:.4g}" if isinstance(value, float) else str(value)))
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
class Collect:
    """Roll an oracle in an environment into a store. Running it again goes on where it was cut.

    For instance `onestride collect cube.zarr --episodes 200`.
    """

    store: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="[STORE]")]] = None
    """Store to write; default the environment's name with .zarr, in this folder."""
    env: str = "ogbench/cube-single-singletask-task2-v0"
    """Environment id."""
    oracle: str = "markov"
    """The environment's scripted expert."""
    episodes: int = 200
    """Episodes the store shall hold."""
    noise: float = 0.2
    """Standard deviation of the noise on executed actions (labels stay clean), in action units."""
    seed: int = 0
    """Seed of the first episode; each attempt takes the next."""
    keep_failures: bool = False
    """Store unsolved episodes too."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Collect and say what is in the store."""
        from onestride.training.collection import Collection, collect

        collection = Collection(self.env, self.oracle, self.noise, self.seed, self.keep_failures)
        path = self.store or Path(f"{self.env.split('/')[-1]}.zarr")
        with progress_bar("collect", self.episodes) as advance:
            result = collect(collection, path, self.episodes, lambda count, steps: advance(count, f"{steps} steps"))
        say(asdict(result), "collected", self.json)
        return 0


@dataclass
class Eval:
    """Success of an exported policy in an environment (its own step, no robot between)."""

    policy: tyro.conf.Positional[Path]
    """Exported policy file."""
    env: str | None = None
    """Environment id; default the one the policy was trained for."""
    episodes: int = 25
    """Episodes, one per seed."""
    seed: int = 1_000_000
    """First seed; far from the seeds that `collect` uses."""
    nfe: int | None = None
    """Network evaluations per action; default the policy's first."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Evaluate and print the success rate."""
        from onestride.deploy.runtime import PolicyRuntime
        from onestride.hardware.errors import OneStrideError
        from onestride.training.environments.registry import make
        from onestride.training.evaluation import evaluate

        policy = PolicyRuntime(self.policy, nfe=self.nfe)
        name = self.env or policy.contract.environment
        if name is None:
            raise OneStrideError("the policy names no environment: expected --env")
        environment = make(name)
        seeds = range(self.seed, self.seed + self.episodes)
        with progress_bar("evaluate", self.episodes) as advance:
            trials = evaluate(policy, environment, seeds, lambda trial: advance(trial.seed - self.seed + 1))
        environment.close()
        rate = sum(trial.success for trial in trials) / len(trials)
        steps = sum(trial.steps for trial in trials) / len(trials)
        summary = {"success_rate": rate, "episodes": len(trials), "mean_steps": steps, "nfe": policy.nfe, "env": name}
        say(summary | ({"trials": [asdict(trial) for trial in trials]} if self.json else {}), "evaluated", self.json)
        return 0


@dataclass
class Export:
    """Export a training run as one ONNX file with the contract inside."""

    run: tyro.conf.Positional[Path]
    """Training run."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("policy.onnx")
    """File to write."""
    data: Path | None = None
    """The training store, if it has moved since."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Export and say what was written."""
        from onestride.deploy.runtime import load_contract
        from onestride.training.exporting import export_run

        export_run(self.run, self.output, self.data)
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
        say(summary, "exported", self.json)
        return 0


@dataclass
class ExportScene:
    """Export an environment's scene and episode starts, so that the plant needs no environment."""

    env: tyro.conf.Positional[str]
    """Environment id."""
    starts: int = 20
    """Episode starts to keep with it."""
    seed: int = 1_000_000
    """Seed of the first start."""

    def __call__(self) -> int:
        """Export and print the folder."""
        from onestride.training.environments.scenes import prepare_scene

        scene = prepare_scene(self.env, self.starts, self.seed)
        say({"scene": str(scene.folder), "robot": scene.description.robot}, "exported", json=False)
        return 0

"""What the demo does before a robot moves: collect, train, export, check, evaluate in the bare environment.

Every stage leaves files; a stage whose files are there and fit is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onestride.deploy.check import Finding, check_data, check_file, check_robot
from onestride.deploy.runtime import PolicyRuntime, load_contract
from onestride.hardware.durable import write_atomic
from onestride.hardware.errors import OneStrideError
from onestride.hardware.scene import Scene, save_starts
from onestride.training.agents import catalogue
from onestride.training.collection import Collected, Collection, collect
from onestride.training.commands import progress_bar
from onestride.training.environments.ogbench_cube import make_cube
from onestride.training.environments.scenes import export_scene
from onestride.training.evaluation import Trial, evaluate
from onestride.training.exporting import export_run, fresh_parity
from onestride.training.reporter import RichReporter
from onestride.training.trainer import TrainOptions, TrainResult, train

ENVIRONMENT = "ogbench/cube-single-singletask-task2-v0"
NOISE = 0.2

#: Evaluation seeds lie far from those of collection, which count up from the demo's seed.
UNSEEN = 1_000_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Workshop:
    """The demo's folder and settings.

    Attributes:
        out: folder of everything the demo makes.
        demonstrations: how many to collect.
        steps: gradient steps.
        episodes: evaluation episodes.
        seed: of collection, training and evaluation.
        say: tells a person what is going on.
    """

    out: Path
    demonstrations: int
    steps: int
    episodes: int
    seed: int
    say: Say

    @property
    def data(self) -> Path:
        """The store of demonstrations."""
        return self.out / "demonstrations.zarr"

    @property
    def run(self) -> Path:
        """The training run."""
        return self.out / "train"

    @property
    def policy(self) -> Path:
        """The exported policy."""
        return self.out / "policy.onnx"

    @property
    def starts(self) -> Path:
        """Starts of the evaluation episodes, for the plant."""
        return self.out / "starts.json"

    @property
    def seeds(self) -> range:
        """Evaluation seeds."""
        first = UNSEEN + self.seed
        return range(first, first + self.episodes)


def collect_stage(shop: Workshop) -> Collected:
    """Demonstrations by OGBench's own oracle."""
    collection = Collection(ENVIRONMENT, noise=NOISE, seed=shop.seed)
    with progress_bar("  demonstrations", shop.demonstrations) as advance:
        result = collect(collection, shop.data, shop.demonstrations, advance_with(advance))
    reused = f", {result.reused} of them reused" if result.reused else ""
    shop.say(f"{result.episodes} demonstrations, {result.steps} steps{reused} -> {shop.data}")
    return result


def advance_with(advance: Callable[[int, str], None]) -> Callable[[int, int], None]:
    """A progress callback of `collect` that moves a progress bar."""
    return lambda episodes, steps: advance(episodes, f"{steps} steps")


def train_stage(shop: Workshop) -> TrainResult:
    """A one-step policy by imitation."""
    options = TrainOptions(
        config=catalogue.find("mvp").config(),
        data=shop.data,
        run=shop.run,
        steps=shop.steps,
        seed=shop.seed,
    )
    with RichReporter("  training") as reporter:
        result = train(options, reporter)
    resumed = result.resumed_from
    how = "reused" if resumed == result.steps else f"resumed at {resumed}" if resumed else f"{result.train_s:.0f} s"
    shop.say(f"{result.steps} gradient steps ({how}) -> {shop.run}")
    return result


def export_stage(shop: Workshop, trained: TrainResult) -> str:
    """One ONNX file with its contract; the file's SHA-256."""
    if _is_current(shop.policy, trained):
        how = "reused"
    else:
        export_run(shop.run, shop.policy)
        how = f"{shop.policy.stat().st_size // 1000} kB"
    _, digest = load_contract(shop.policy)
    shop.say(f"one ONNX file, sha256 {digest[:12]}… ({how}) -> {shop.policy}")
    return digest


def _is_current(policy: Path, trained: TrainResult) -> bool:
    if not policy.exists():
        return False
    try:
        contract, _ = load_contract(policy)
    except OneStrideError:
        return False  # damaged or of another version: export again
    return contract.dataset.id == trained.dataset_id and contract.policy.steps == trained.steps


def check_stage(shop: Workshop) -> list[Finding]:
    """Everything `onestride check` asks.

    Raises:
        OneStrideError: a check failed.
    """
    findings, contract = check_file(shop.policy)
    if contract is not None and contract.robot is not None:
        findings += [check_robot(contract, contract.robot.id), *check_data(contract, shop.data)]
        findings.append(fresh_parity(shop.policy, shop.run))
    failed = [f"{finding.question}: {finding.detail}" for finding in findings if not finding.passed]
    if failed:
        raise OneStrideError(f"{shop.policy} fails its checks: {'; '.join(failed)}")
    shop.say(f"{len(findings)} checks passed: {', '.join(finding.question for finding in findings)}")
    return findings


def bare_stage(shop: Workshop) -> tuple[Scene, list[Trial]]:
    """The scene and episode starts for the plant, and the policy's success without a robot between."""
    environment = make_cube(ENVIRONMENT)
    try:
        scene = export_scene(environment)
        states = []
        for seed in shop.seeds:
            environment.reset(seed)
            states.append(environment.state())
        save_starts(shop.starts, list(shop.seeds), np.array(states))
        with progress_bar("  bare environment", shop.episodes) as advance:
            trials = evaluate(
                PolicyRuntime(shop.policy),
                environment,
                shop.seeds,
                lambda trial: advance(trial.seed - shop.seeds.start + 1, ""),
            )
    finally:
        environment.close()
    solved = sum(trial.success for trial in trials)
    shop.say(f"{solved} of {len(trials)} unseen episodes solved in the bare environment")
    return scene, trials


def save_json(path: Path, content: object) -> None:
    """Write a JSON file that is whole or absent."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode(), path.parent)

"""`onestride eval` in environments that no robot stands for, and with data that names nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from play_samples import write_official

pytest.importorskip("ogbench", reason="needs the extra `sim`")
pytest.importorskip("torch", reason="needs the extra `train`")

from onestride.datasets.converters import convert
from onestride.datasets.store import Store
from onestride.deploy.cli import main
from onestride.deploy.runtime import PolicyRuntime
from onestride.training.environments.registry import make
from onestride.training.evaluation import noise_seed
from onestride.training.play import Play, play

SCENE = "ogbench/scene-singletask-task1-v0"


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """Of play data of the scene: a file without a robot and without a task."""
    folder = tmp_path_factory.mktemp("scene")
    play(Play("ogbench/scene-play", steps=40), folder / "play.zarr", 2)
    words = ["--data", str(folder / "play.zarr"), "--run", str(folder / "run"), "--steps", "3", "--hidden", "16", "16"]
    assert main(["train", "mvp", *words]) == 0
    assert main(["export", str(folder / "run"), "-o", str(folder / "policy.onnx")]) == 0
    return folder / "policy.onnx"


def test_a_policy_without_a_robot_is_evaluated_in_the_task_named(policy, capsys):
    name = "ogbench/scene-play-singletask-task1-v0"
    assert main(["eval", str(policy), "--env", name, "--episodes", "1", "--seed", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["env"], said["episodes"], said["mean_cost"]) == (name, 1, 0.0)
    assert said["trials"] == [retold(policy, 3)]
    assert said["mean_reward"] == said["trials"][0]["reward"] < 0


def retold(policy, seed: int) -> dict[str, object]:
    """The episode once more, by hand: a chunk from the file, its first steps taken, then the next."""
    runtime, environment = PolicyRuntime(policy, seed=seed), make(SCENE)
    runtime.reset(noise_seed(seed))
    observation, steps, reward = environment.reset(seed), 0, 0.0
    while True:
        for action in runtime.infer(observation.astype(np.float64))[: runtime.contract.execution.n_action_steps]:
            step = environment.step(np.clip(action.astype(np.float64), -1, 1))
            observation, steps, reward = step.observation, steps + 1, reward + step.reward
            if step.terminal or step.cut:
                environment.close()
                return {"seed": seed, "success": step.success, "steps": steps, "reward": reward, "cost": 0.0}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "names no environment to evaluate in (its data: ogbench/scene-v0): expected --env"),
        (["--env", "ogbench/puzzle-3x3-singletask-v0"], "expected a policy of 55 observation and 5 action elements"),
        (["--env", "ogbench/cube-single-singletask-v0"], "the policy's observations are not those of"),
        (["--env", SCENE, "--episodes", "0"], "expected --episodes >= 1, got 0"),
        (["--env", "soup"], "unknown environment: got 'soup'"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(policy, words, sentence, capsys):
    assert main(["eval", str(policy), *words]) == 1
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_file_of_the_packages_own_is_for_the_task_that_is_named(tmp_path):
    """It names no element; the contract states them as the environment does."""
    from onestride.training.contracts import draft

    play(Play("ogbench/cube-single-play", steps=10), tmp_path / "play.zarr", 1)
    file = write_official(Store.open(tmp_path / "play.zarr"), tmp_path / "cube-single-play-v0.npz")
    convert(file, tmp_path / "imported.zarr")
    imported, task = Store.open(tmp_path / "imported.zarr"), "ogbench/cube-single-singletask-task2-v0"
    terms = {"algorithm": "mvp", "nfe": [1], "horizon": 2, "n_action_steps": 1, "config": {}, "seed": 0, "step": 1}
    contract = draft(imported, ["observation"], environment=task, **terms)
    assert contract.robot is not None
    assert contract.observation_names == make(task).interface.observation_names  # type: ignore[union-attr]

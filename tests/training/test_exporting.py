"""From run to file and back: contracts say what the data is, evaluation is the environment's own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onestride.deploy.cli import main
from onestride.deploy.runtime import PolicyRuntime, load_contract
from onestride.hardware.description import load_robot

pytest.importorskip("ogbench", reason="needs the extra `sim`")

from onestride.datasets.statistics import statistics
from onestride.datasets.store import Store
from onestride.training.environments.registry import make
from onestride.training.evaluation import noise_seed, run_episode
from onestride.training.exporting import fresh_parity

CUBE = "ogbench/cube-single-singletask-task2-v0"


def test_the_contract_tells_the_data_and_the_robot(small_run):
    contract, _ = load_contract(small_run.policy)
    store = Store.open(small_run.data)
    assert contract.environment == CUBE
    assert contract.dataset.id == store.dataset_id
    assert (contract.dataset.episodes, contract.dataset.steps) == (store.num_episodes, store.num_steps)
    assert contract.dataset.statistics == statistics(store, ["observation", "action"]).fingerprint
    np.testing.assert_array_equal(contract.dataset.minimum, store.read("observation").min(axis=0).astype(np.float64))
    assert contract.policy.steps == 60
    assert contract.differences(load_robot("ur5e_2f85")) == []


def test_fresh_parity_passes_and_notices_another_step(small_run, tmp_path):
    assert fresh_parity(small_run.policy, small_run.run).passed
    other = tmp_path / "other"
    train = [
        "train",
        "mvp",
        "--data",
        str(small_run.data),
        "--run",
        str(other),
        "--steps",
        "20",
        "--hidden",
        "32",
        "32",
    ]
    assert main(train) == 0
    finding = fresh_parity(small_run.policy, other)
    assert not finding.passed
    assert "exported at step 60, the run is at step 20" in finding.detail


def test_parity_notices_other_weights(small_run, tmp_path):
    other = tmp_path / "other"
    train = ["train", "mvp", "--data", str(small_run.data), "--run", str(other), "--steps", "60", "--seed", "9"]
    assert main([*train, "--hidden", "32", "32"]) == 0
    finding = fresh_parity(small_run.policy, other)
    assert not finding.passed
    assert "at most 1e-05" in finding.detail


def test_an_episode_is_reproducible_and_replays_from_its_observations(small_run):
    """Replay: the recorded observations, given to a fresh runtime with the same noise, give the identical chunks."""
    environment = make(CUBE)
    recorded: list[tuple[np.ndarray, np.ndarray]] = []

    class Recording(PolicyRuntime):
        def infer(self, observation):
            chunk = super().infer(observation)
            recorded.append((observation.copy(), chunk.copy()))
            return chunk

    first = run_episode(Recording(small_run.policy), environment, seed=7)
    replayed = PolicyRuntime(small_run.policy, seed=noise_seed(7))
    for observation, chunk in recorded:
        np.testing.assert_array_equal(replayed.infer(observation), chunk)
    assert len(recorded) == -(-first.steps // replayed.contract.execution.n_action_steps)
    assert run_episode(PolicyRuntime(small_run.policy), environment, seed=7) == first
    environment.close()


def test_eval_prints_json(small_run, capsys):
    assert main(["eval", str(small_run.policy), "--episodes", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["episodes"] == 1
    assert answer["trials"][0]["seed"] == 1_000_000


def test_human_demonstrations_go_the_same_way(shared_data, tmp_path, capsys):
    """The ten real Lift demonstrations: convert, train, export, check, bench, in short form."""
    source, store, run, policy = (
        shared_data / "robomimic" / "lift_ph_10demos.hdf5",
        tmp_path / "lift.zarr",
        tmp_path / "run",
        tmp_path / "lift.onnx",
    )
    names = ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object"]
    assert main(["convert", str(source), str(store)]) == 0
    train = ["train", "mvp", "--data", str(store), "--run", str(run), "--steps", "40", "--hidden", "32", "32"]
    assert main([*train, "--observations", *names]) == 0
    assert main(["export", str(run), "-o", str(policy)]) == 0
    assert main(["check", str(policy), "--data", str(store), "--run", str(run)]) == 0
    capsys.readouterr()
    assert main(["bench", str(policy), "--calls", "50", "--seconds", "0.2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [variant["nfe"] for variant in report["variants"]] == [1, 2, 4]
    contract, _ = load_contract(policy)
    assert contract.robot is None
    assert contract.observation_size == 19
    assert (contract.dataset.episodes, contract.dataset.steps) == (10, 531)
    assert main(["check", str(policy), "--robot", "ur5e_2f85"]) == 1
    assert main(["run", str(policy)]) == 1
    assert "names no robot" in capsys.readouterr().err

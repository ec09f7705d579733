"""Episodes in simulated time are recorded as those in the node are: what the policy was fed, what was sent, when."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onestride.datasets.journal_reader import Journal
from onestride.datasets.store import Store
from onestride.deploy.cli import main
from onestride.deploy.controller import Controller
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.simulation import simulate_episode
from onestride.deploy.simulation_recording import SimulatedRecording
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant


@pytest.fixture(scope="module")
def short(cube_scene, robot):
    """A plant whose episodes last twenty policy steps."""
    plant = Plant(cube_scene, robot)
    plant.scene = plant.scene.model_copy(update={"horizon": 20})
    return plant


def controller_of(policy, robot, forward):
    runtime = PolicyRuntime(policy)
    return Controller(runtime.contract, robot, forward, InlineInference(runtime)), runtime.sha256


def test_what_is_recorded_is_what_happened(small_run, robot, forward, short, start, tmp_path):
    seen = []
    controller, sha256 = controller_of(small_run.policy, robot, forward)
    simulate_episode(controller, short, start, 3, lambda tick, measurement: seen.append((tick, measurement)))
    recording = SimulatedRecording(controller, sha256, tmp_path)
    recording.episode(short, start, 3)
    recording.episode(short, start, 4)
    recording.close()
    with Journal(recording.journal) as journal:
        assert journal.report == []
        first, second = journal.episodes
        data, attributes = journal.read(first).data, first.attributes
    ticks = [tick for tick, _ in seen]
    steps = [tick for tick in ticks if tick.action is not None]
    np.testing.assert_array_equal(data["observation"], np.array([tick.observation for tick in steps], np.float32))
    np.testing.assert_array_equal(data["action"], np.array([tick.action for tick in steps], np.float32))
    np.testing.assert_array_equal(data["certified"], [tick.command for tick in ticks])
    np.testing.assert_array_equal(data["joint_position"], [measurement.position for _, measurement in seen])
    assert (attributes["seed"], second.attributes["seed"]) == (3, 4)
    assert (attributes["success"], attributes["faulted"]) == (False, False)


def test_the_clock_of_a_recording_is_the_simulations(small_run, robot, forward, short, start, tmp_path):
    controller, sha256 = controller_of(small_run.policy, robot, forward)
    recording = SimulatedRecording(controller, sha256, tmp_path)
    recording.episode(short, start, 3)
    recording.close()
    assert main(["commit", recording.journal, str(tmp_path / "own.zarr")]) == 0
    steps = np.diff(Store.open(tmp_path / "own.zarr").read_time()) * 1e-9
    np.testing.assert_allclose(steps, 1 / controller.contract.execution.policy_rate, atol=1e-6)


def test_an_episode_that_cannot_begin_is_left_incomplete(small_run, robot, forward, short, tmp_path):
    controller, sha256 = controller_of(small_run.policy, robot, forward)
    recording = SimulatedRecording(controller, sha256, tmp_path)
    with pytest.raises(OneStrideError):
        recording.episode(short, np.full(3, np.nan), 0)
    recording.close()
    with Journal(recording.journal) as journal:
        (one,) = journal.episodes
    assert "cut short" in str(one)


def test_the_command_records_and_says_where(small_run, cube_scene, tmp_path, capsys):
    run = ["run", str(small_run.policy), "--no-ros", "--episodes", "1", "--scene", str(cube_scene.folder)]
    assert main([*run, "--record", str(tmp_path / "journals"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert main(["commit", said["journal"], str(tmp_path / "own.zarr")]) == 0
    assert Store.open(tmp_path / "own.zarr").num_steps >= said["episodes"][0]["time"] * 20 - 1


def test_what_is_wrong_with_an_arm_is_recorded_too(small_run, cube_scene, tmp_path, capsys):
    run = ["run", str(small_run.policy), "--no-ros", "--episodes", "1", "--scene", str(cube_scene.folder), "--json"]
    assert main([*run, "--record", str(tmp_path), "--noise", "1", "--latency", "0.02"]) == 0
    with Journal(json.loads(capsys.readouterr().out)["journal"]) as journal:
        (one,) = journal.episodes
        position = journal.read(one).data["joint_position"]
    assert np.abs(np.diff(position[:5], axis=0)).max() > 1e-4, "an arm at rest, as sensors see it that are not new"

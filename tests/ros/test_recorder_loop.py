"""The loop closed: a policy runs in the node, what it did is recorded, and the next policy learns from that.

Nothing is converted on the way: journal, store, joined store, training, export, check and the node again.
"""

from __future__ import annotations

import json
import re
from importlib import resources

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.datasets.joining import join
from onestride.datasets.journal_commit import commit
from onestride.datasets.journal_reader import Journal
from onestride.datasets.merging import merge
from onestride.datasets.store import Store
from onestride.deploy.cli import main
from onestride.deploy.runtime import PolicyRuntime, load_contract
from onestride.hardware.errors import OneStrideError
from onestride_controller.simulated import SimulatedRun, run_simulated

SEED = 11
SHIPPED = resources.files("onestride.hardware") / "robots" / "ur5e_2f85.yaml"


def simulated(ground, policy, folder, episodes=1):
    """Episodes through node and plant over DDS, recorded; a stall of a busy machine is not what is tested here."""
    folder.mkdir(exist_ok=True)
    patient = folder / "patient.yaml"
    patient.write_text(re.sub(r"(joints_stale|objects_stale|policy_stall): .*", r"\1: 0.6", SHIPPED.read_text()))
    run = SimulatedRun(
        policy=policy,
        robot=str(patient),
        scene=ground.scene,
        starts=ground.starts,
        episodes=episodes,
        logs=folder / "log",
        record=folder / "journals",
        seed=SEED,
    )
    return run_simulated(run)


@pytest.fixture(scope="module")
def recorded(ground, small_run, tmp_path_factory):
    """One whole episode of the small policy: two hundred policy steps."""
    folder = tmp_path_factory.mktemp("recorded")
    return simulated(ground, small_run.policy, folder), folder


def test_recorded_observations_are_what_the_policy_was_fed(recorded, small_run):
    """The exported network, given the recorded observations and the same noise, acts as it did, bit for bit."""
    trials, folder = recorded
    assert trials.figures["faults"] == []
    (path,) = (folder / "journals").glob("*.journal")
    with Journal(path) as journal:
        (one,) = journal.episodes
        assert journal.report == []
        episode = journal.read(one)
    assert one.attributes["success"] is trials.episodes[0].success
    assert one.attributes["seed"] == SEED
    observations, actions = episode.data["observation"], episode.data["action"]
    assert len(actions) > 150
    runtime = PolicyRuntime(small_run.policy, seed=SEED)
    consumed = runtime.contract.execution.n_action_steps
    for start in range(0, len(actions), consumed):
        chunk = runtime.infer(observations[start])
        np.testing.assert_array_equal(actions[start : start + consumed], chunk[: len(actions) - start][:consumed])
    other = PolicyRuntime(small_run.policy, seed=SEED).infer(np.nextafter(observations[0], np.float32(9)))
    assert (other != actions[:consumed]).any(), "the network must feel a single bit, or the above proves nothing"


def test_the_loop_closes(recorded, small_run, ground, tmp_path, capsys):
    _, folder = recorded
    own = tmp_path / "own.zarr"
    assert commit(folder / "journals", own).steps > 150

    # As it is: what was recorded trains by itself, and drafts the contract that it was recorded under.
    hidden = ["--hidden", "32", "32"]
    alone = ["train", "mvp", "--data", str(own), "--run", str(tmp_path / "alone"), "--steps", "5", *hidden]
    assert main(alone) == 0
    draft = json.loads((tmp_path / "alone" / "contract.json").read_text())
    ran, _ = load_contract(small_run.policy)
    same = json.loads(ran.model_dump_json())
    for part in ("environment", "robot", "history", "observations", "actions", "kinematics", "execution"):
        assert draft[part] == same[part], part

    # With the demonstrations: their schemas differ, so that `merge` refuses and `join` keeps what both have.
    with pytest.raises(OneStrideError, match="expected stores of one schema"):
        merge([small_run.data, own], tmp_path / "merged.zarr")
    both = tmp_path / "both.zarr"
    report = join([small_run.data, own], both)
    assert report.features == ("observation", "action", "terminal")
    assert {"reward", "joint_position", "certified"} <= set(report.left_out)
    store, source = Store.open(both), Store.open(small_run.data)
    assert store.num_episodes == source.num_episodes + 1
    assert store.schema.label_source == "unknown"
    labels = [info.attributes["label_source"] for info in store.episodes]
    assert labels == ["oracle"] * source.num_episodes + ["nominal"]
    np.testing.assert_array_equal(store.read("action")[: source.num_steps], source.read("action"))
    np.testing.assert_array_equal(store.read("observation")[source.num_steps :], Store.open(own).read("observation"))

    run, policy = tmp_path / "run", tmp_path / "policy.onnx"
    tuning = ["train", "mvp", "--data", str(both), "--run", str(run), "--steps", "40", *hidden]
    assert main([*tuning, "--start", str(tmp_path / "alone")]) == 0
    assert main(["export", str(run), "-o", str(policy)]) == 0
    capsys.readouterr()
    checks = ["check", str(policy), "--robot", "ur5e_2f85", "--data", str(both), "--run", str(run), "--json"]
    assert main(checks) == 0, capsys.readouterr().out
    assert json.loads(capsys.readouterr().out)["passed"]

    trials = simulated(ground, policy, tmp_path / "again")
    assert trials.figures["faults"] == []
    assert trials.episodes[0].over
    assert commit(tmp_path / "again" / "journals", own).committed, "another policy's recording joins the same store"
    assert Store.open(own).num_episodes == 2
    hashes = {str(info.attributes["policy_sha256"]) for info in Store.open(own).episodes}
    assert hashes == {load_contract(small_run.policy)[1], load_contract(policy)[1]}

"""Replay: a recording gives its own actions and commands again, to the bit, and whatever was altered is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from policy_samples import changed, parse, signed_anew

from onestride.datasets.recordings import Recording, read_recording
from onestride.deploy.cli import main
from onestride.deploy.controller import Controller
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.observe import Observer
from onestride.deploy.replay import Steps, history, judge, read_steps, replay_actions
from onestride.deploy.replay_controller import replay_controller
from onestride.deploy.runtime import InlineInference, PolicyRuntime, runtime_identity
from onestride.deploy.simulation_recording import SimulatedRecording
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant

STEPS, SEED = 22, 7  # policy steps: four chunks and a part of the fifth
RUNTIME = runtime_identity("CPUExecutionProvider")


@pytest.fixture(scope="module")
def journal(sample_policy, robot, forward, cube_scene, start, tmp_path_factory) -> Path:
    """A folder with the journal of one episode, recorded in simulated time."""
    plant = Plant(cube_scene, robot)
    plant.scene = plant.scene.model_copy(update={"horizon": STEPS})
    policy, folder = PolicyRuntime(sample_policy, nfe=2), tmp_path_factory.mktemp("journals")
    controller = Controller(policy.contract, robot, forward, InlineInference(policy))
    recording = SimulatedRecording(controller, policy.sha256, folder, nfe=policy.nfe, runtime=RUNTIME)
    recording.episode(plant, start, SEED)
    recording.close()
    return folder


@pytest.fixture(scope="module")
def recording(journal) -> Recording:
    return read_recording(journal)


@pytest.fixture
def policy(sample_policy) -> PolicyRuntime:
    return PolicyRuntime(sample_policy, nfe=2, seed=99)


@pytest.fixture
def steps(policy, recording) -> Steps:
    return read_steps(policy.contract, recording.schema, recording.episode)


def replayed(arguments: list[object], capsys) -> tuple[int, dict]:
    code = main(["replay", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_recording_gives_its_own_actions_observations_and_commands_to_the_bit(
    sample_policy, journal, cube_scene, capsys
):
    code, report = replayed([sample_policy, journal, "--scene", cube_scene.folder], capsys)
    assert code == 0
    assert (report["seed"], report["nfe"], report["tolerance"]) == (SEED, 2, 0.0)
    assert report["actions"]["steps"] == STEPS
    assert report["actions"]["identical"]
    controller = report["controller"]
    assert (controller["exact"], controller["ended"]) == (True, "")
    assert controller["commands"]["steps"] == 10 * STEPS
    assert controller["commands"]["identical"]
    assert controller["observations"]["identical"]


@pytest.mark.parametrize("form", ["store.zarr", "episodes.mcap"])
def test_what_became_of_the_journal_replays_as_well(form, sample_policy, journal, cube_scene, tmp_path, capsys):
    pytest.importorskip("zarr", reason="needs the extra `train`")
    if form.endswith("mcap"):
        pytest.importorskip("mcap", reason="needs the extra `rosbag`")
    store = tmp_path / "store.zarr"
    assert main(["commit", str(journal), str(store)]) == 0
    if form.endswith("mcap"):
        assert main(["convert", str(store), str(tmp_path / form)]) == 0
    capsys.readouterr()
    code, report = replayed([sample_policy, tmp_path / form, "--scene", cube_scene.folder], capsys)
    assert (code, report["tolerance"]) == (0, 0.0)
    assert report["controller"]["commands"]["identical"]


def test_other_noise_is_found_and_fails(sample_policy, journal, capsys):
    code, report = replayed([sample_policy, journal, "--seed", SEED + 1], capsys)
    assert code == 1
    assert report["actions"]["first_step_that_differs"] == 0
    assert report["actions"]["max"] > 0.05


def test_another_policy_is_compared_and_not_judged(sample_policy, journal, tmp_path, capsys):
    other = signed_anew(sample_policy, tmp_path / "other.onnx", lambda c: c["policy"].update(name="other"))
    code, report = replayed([other, journal], capsys)
    assert (code, report["tolerance"]) == (0, None)
    assert "another policy file was recorded" in report["judged"]
    assert report["actions"]["identical"], "the graph is the same"
    code, report = replayed([other, journal, "--seed", SEED + 1, "--tolerance", "0.001"], capsys)
    assert (code, report["judged"]) == (1, "as asked")


def test_one_altered_action_is_found_in_its_step_and_term(policy, steps):
    actions = steps.actions.copy()
    actions[13, 4] += 1e-4
    difference = replay_actions(policy, replace(steps, actions=actions), SEED)
    assert difference.first(0.0) == 13
    assert difference.first(1e-3) is None
    terms = difference.summary()["terms"]
    assert {name for name, one in terms.items() if one["max"] > 0} == {"gripper"}
    assert terms["gripper"]["max"] == pytest.approx(1e-4)
    assert not judge(steps, policy.sha256, RUNTIME).passed(difference)
    assert not judge(steps, policy.sha256, "another machine").passed(difference), "more than its 1e-5"


def test_an_altered_observation_changes_its_own_chunk_only(policy, steps):
    observations = steps.observations.copy()
    observations[10] += 0.1  # the third chunk is inferred from it
    difference = replay_actions(policy, replace(steps, observations=observations), SEED)
    changed_steps = np.flatnonzero((difference.recorded != difference.again).any(axis=1))
    np.testing.assert_array_equal(changed_steps, range(10, 15))


def test_an_altered_measurement_is_found_by_the_whole_controller(policy, recording, robot, forward: ForwardKinematics):
    position = recording.episode.data["joint_position"].copy()
    position[100, 2] += 1e-3  # the elbow, in the tick that the eleventh policy step begins with
    episode = replace(recording.episode, data={**recording.episode.data, "joint_position": position})
    replay = replay_controller(policy, robot, forward, episode, SEED)
    assert replay.observations.first(0.0) == 10
    assert replay.observations.summary()["terms"]["arm_position"]["at_step"] == 10
    assert replay.commands.first(0.0) == 100


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"by_node": False}, "not recorded from a running policy"),
        ({"supervised": True}, "a person was at the controls"),
        ({"attributes": {"policy_sha256": "0" * 64}}, "another policy file was recorded"),
    ],
)
def test_nothing_is_promised_of_data_that_this_policy_did_not_make(policy, steps, change, why):
    judgement = judge(replace(steps, **change), policy.sha256, RUNTIME)
    assert judgement.tolerance is None
    assert why in judgement.why


def test_data_without_the_contracts_observations_is_refused_by_name(contract, recording):
    def rename(content) -> None:
        content["observations"][0]["name"] = "other"
        names = content["dataset"]["observation_names"]
        content["dataset"]["observation_names"] = [name.replace("arm_position", "other") for name in names]

    with pytest.raises(
        OneStrideError, match=r"observation 'other\.shoulder_pan_joint' .* begins no feature; available"
    ):
        read_steps(parse(changed(contract, rename)), recording.schema, recording.episode)


@pytest.mark.parametrize(("number", "message"), [(1, "one of its episodes 0 to 0, got 1"), (-1, "from 0 on, got -1")])
def test_an_episode_that_is_not_there_is_refused(journal, number, message):
    with pytest.raises(OneStrideError, match=message):
        read_recording(journal, number)


def test_the_history_is_the_observers(contract, forward, robot, cube_scene, start):
    """The independent reference: what the observer makes of the same measurements."""
    long = parse(changed(contract, lambda c: c.update(history=3)))
    observer, plant, rng = Observer(long, forward), Plant(cube_scene, robot), np.random.default_rng(0)
    measurement = plant.reset(start)
    built, rows = [], []
    for _ in range(5):
        moved = replace(measurement, position=measurement.position + 0.01 * rng.standard_normal(7))
        built.append(observer.build(moved))
        rows.append(observer.step(moved))
    for index, expected in enumerate(built):
        np.testing.assert_array_equal(history(long, np.array(rows), index), expected)


def test_demonstrations_are_compared_and_not_judged(small_run, tmp_path, capsys):
    picture = tmp_path / "actions.png"
    code, report = replayed([small_run.policy, small_run.data, "--episode", 2, "--plot", picture], capsys)
    assert (code, report["recorded_by_node"], report["tolerance"]) == (0, False, None)
    assert "controller" not in report
    assert report["actions"]["max"] > 0, "sixty gradient steps do not repeat an oracle"
    assert picture.read_bytes().startswith(b"\x89PNG")

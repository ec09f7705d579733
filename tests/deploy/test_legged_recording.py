"""What is recorded of a robot on legs: every reading as it was, enough to make each observation of the policy again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("robosuite_models", reason="needs the Go2's model")
pytest.importorskip("onnxruntime", reason="needs the extra `cpu`")

from go2_walks import REAL, ROBOT, walker

from onestride.datasets.journal_reader import Journal
from onestride.datasets.schema import Episode
from onestride.deploy.cli import main
from onestride.deploy.controller import Controller
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.replay_controller import replay_controller
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.simulation_recording import SimulatedRecording
from onestride.hardware.description import load_robot
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.realistic_plant import RealisticPlant

POLICY = Path(__file__).parents[1] / "assets" / "go2_walk.onnx"
SEED, SECONDS = 5, 1.5
IMU = ("imu_orientation", "imu_angular_velocity", "imu_acceleration")


def asked(now: float) -> tuple[float, float, float]:
    """Forward, then to the left: at 0.7 s the command changes."""
    return (0.3, 0.0, 0.1) if now < 0.7 else (0.0, 0.2, 0.0)


def recorded(controller: Controller, plant: Plant, folder: Path) -> tuple[Episode, list[Any]]:
    """One episode as its journal has it, and the ticks and measurements that it was made of."""
    seen: list[Any] = []
    recording = SimulatedRecording(controller, "0" * 64, folder)

    def see(*pair: Any) -> None:
        seen.append(pair)

    recording.episode(plant, None, SEED, see, velocity=asked, duration=SECONDS)
    recording.close()
    with Journal(recording.journal) as journal:
        assert journal.report == []
        (one,) = journal.episodes
        return journal.read(one), seen


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> tuple[Episode, list[Any]]:
    """The Go2 on an ideal plant with odometry."""
    plant = Plant(robot_scene(ROBOT), ROBOT, odometry=True)
    return recorded(walker(POLICY), plant, tmp_path_factory.mktemp("walked"))


def test_every_reading_is_recorded_as_it_was(walked):
    episode, seen = walked
    data, measured = episode.data, [measurement for _, measurement in seen]
    for name, part in zip(IMU, ("orientation", "angular_velocity", "acceleration"), strict=True):
        np.testing.assert_array_equal(data[name], [getattr(one.imu, part) for one in measured])
    np.testing.assert_array_equal(data["joint_effort"], [one.effort for one in measured])
    for name in ("foot_forces", "velocity_command"):
        np.testing.assert_array_equal(data[name], [one.vectors[name] for one in measured])
    weight = 9.81 * Plant(robot_scene(ROBOT), ROBOT).model.body_mass.sum()
    assert data["foot_forces"].sum(axis=1).mean() == pytest.approx(weight, rel=0.2), "newtons that carry the robot"
    assert "base_velocity" not in data, "the contract does not name it"


def test_observations_can_be_made_of_it_by_hand(walked):
    """The contract's terms, written out once more: inertial sensor, joints, the command within its limits."""
    episode, _ = walked
    contract = walker(POLICY).contract
    rows = np.searchsorted(episode.timestamps["imu"], episode.timestamps["base"])
    np.testing.assert_array_equal(episode.timestamps["imu"][rows], episode.timestamps["base"])
    w, x, y, z = episode.data["imu_orientation"][rows].T
    down = np.stack([2 * (w * y - x * z), -2 * (y * z + w * x), 2 * (x * x + y * y) - 1], axis=1)
    default = np.array([joint.default for joint in ROBOT.joints])
    parts = {
        "angular_velocity": episode.data["imu_angular_velocity"][rows],
        "gravity": down,
        "position": episode.data["joint_position"][rows] - default,
        "command": episode.data["velocity_command"][rows],
    }
    start, compared = 0, []
    for term in contract.observations:
        source: Any = term.source
        for name, values in parts.items():
            if name in (getattr(source, "field", None), source.kind.removeprefix("velocity_")):
                offset = np.array(term.offset or (0.0,)) - (default if name == "position" else 0.0)
                expected = (values - offset) * np.asarray(term.scale)
                got = episode.data["observation"][:, start : start + term.size]
                np.testing.assert_allclose(got, expected, atol=1e-6, err_msg=term.name)
                compared.append(name)
        start += term.size
    assert sorted(compared) == sorted(parts)


def test_the_whole_controller_makes_the_same_of_it_to_the_bit(walked):
    episode, seen = walked
    policy = PolicyRuntime(POLICY)
    forward = ForwardKinematics.load(robot_scene(ROBOT).model_path, ROBOT)
    replay = replay_controller(policy, ROBOT, forward, episode, SEED)
    assert (replay.exact, replay.ended) == (True, "")
    assert len(replay.commands.recorded) == len(seen)
    assert replay.observations.identical
    assert replay.commands.identical

    episode.data["imu_angular_velocity"][40] += 0.01
    found = replay_controller(policy, ROBOT, forward, episode, SEED).observations
    episode.data["imu_angular_velocity"][40] -= 0.01
    assert not found.identical, "what is altered in the recording is found"


def test_late_messages_are_recorded_once_and_when_they_came(tmp_path):
    plant = RealisticPlant(robot_scene(ROBOT), ROBOT, REAL.model_copy(update={"rate": 100.0}), seed=3)
    episode, seen = recorded(walker(POLICY), plant, tmp_path)
    clock = episode.timestamps["imu"]
    assert len(clock) < 0.8 * len(seen), "a hundred readings a second, two hundred ticks"
    np.testing.assert_array_equal(clock, episode.timestamps["joint_states"])
    assert (np.diff(clock) > 0).all()
    ages = np.array([age(measurement) for _, measurement in seen])
    assert ages.max() > 0.005
    np.testing.assert_allclose(episode.data["timing"][:, 2], ages, atol=1e-9)
    policy = PolicyRuntime(POLICY)
    forward = ForwardKinematics.load(robot_scene(ROBOT).model_path, ROBOT)
    replay = replay_controller(policy, ROBOT, forward, episode, SEED)
    assert not replay.exact
    assert replay.observations.largest < 1e-6, "each tick is given the reading that it saw"


def test_the_commands_record_and_replay_it(tmp_path, capsys):
    journals = str(tmp_path / "journals")
    walk = ["--no-ros", "--command=0.3,0,0", "--seconds", "1", "--episodes", "1", "--record", journals]
    assert main(["run", str(POLICY), *walk, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["journal"].startswith(journals)
    assert main(["replay", str(POLICY), journals, "--json"]) == 0
    controller = json.loads(capsys.readouterr().out)["controller"]
    assert (controller["exact"], controller["ended"]) == (True, "")
    assert controller["observations"]["identical"]
    assert controller["commands"]["identical"]
    assert controller["commands"]["steps"] == 200


def age(measurement: Any) -> float:
    """Of the joints: how much older they are than what was asked, which is never late [s]."""
    return float(measurement.received["velocity_command"] - measurement.received["joints"])


def test_what_the_estimator_says_is_recorded_with_it(shared_data: Path, tmp_path):
    files, robot = shared_data / "policies" / "go1_joystick", load_robot("go1")
    scene = robot_scene(robot, files / "go1_mjx_feetonly.xml", folder=tmp_path / "scene")
    policy = PolicyRuntime(files / "go1_policy.onnx", contract="go1_joystick")
    forward = ForwardKinematics.load(scene.model_path, robot)
    controller = Controller(policy.contract, robot, forward, InlineInference(policy))
    episode, seen = recorded(controller, Plant(scene, robot), tmp_path)
    np.testing.assert_array_equal(episode.data["estimated_velocity"], [tick.velocity for tick, _ in seen])
    rows = np.searchsorted(episode.timestamps["estimated_velocity"], episode.timestamps["base"])
    fed = episode.data["observation"][:, :3]
    np.testing.assert_array_equal(fed, episode.data["estimated_velocity"][rows].astype(np.float32))
    replay = replay_controller(policy, robot, forward, episode, SEED)
    assert replay.exact
    assert replay.observations.identical

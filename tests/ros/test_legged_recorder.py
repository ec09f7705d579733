"""The recorder beside a walking Go2, over DDS: its readings, what is asked of it, and the policy's steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")
pytest.importorskip("robosuite_models", reason="needs the Go2's model")

from onestride.datasets.journal_commit import commit
from onestride.datasets.store import Store
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.observe import Observer
from onestride.deploy.recorded_base import read_inertial
from onestride.deploy.replay_controller import replay_controller
from onestride.deploy.runtime import PolicyRuntime
from onestride.hardware.description import load_robot
from onestride.hardware.models import robot_scene
from onestride.hardware.state import Measurement
from onestride_controller.simulated import SimulatedRun
from onestride_controller.walks import Course, run_walks

from .patient import patient_robot

POLICY = Path(__file__).parents[1] / "assets" / "go2_walk.onnx"
ASKED = (0.3, 0.0, 0.2)
TOPIC = "/somewhere/else"


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    """A walk of two seconds, through journal and store."""
    folder = tmp_path_factory.mktemp("recorded")
    robot = patient_robot("go2", folder)
    run = SimulatedRun(
        policy=POLICY,
        robot=str(robot),
        scene=robot_scene("go2", folder=folder / "scene").folder,
        episodes=1,
        logs=folder,
        record=folder / "journals",
        parameters={"cmd_vel_topic": TOPIC},
        plant={"cmd-vel-topic": TOPIC},
    )
    trials = run_walks(run, Course((ASKED,), 2.0, TOPIC), lambda _: None, lambda _: None)
    assert trials.episodes[0].success, trials.episodes[0]
    report = commit(folder / "journals", folder / "store")
    assert (len(report.committed), report.damage) == (1, [])
    store = Store.open(folder / "store")
    store.verify()
    assert "not_taken" not in store.episodes[0].attributes
    return store.read_episode(0)


def test_every_sensor_has_a_stream_at_its_own_rate(episode):
    clocks = {name: clock * 1e-9 for name, clock in episode.timestamps.items()}
    for stream in ("joint_states", "joint_effort", "imu", "foot_forces"):
        assert np.median(np.diff(clocks[stream])) < 1 / 100, stream
        assert clocks[stream][0] < clocks["base"][0] + 0.1, "one clock for all streams"
        assert clocks[stream][-1] > clocks["base"][-1]
    np.testing.assert_allclose(np.linalg.norm(episode.data["imu_orientation"], axis=1), 1.0, atol=1e-6)
    upwards = episode.data["imu_acceleration"].mean(axis=0)
    assert upwards[2] == pytest.approx(9.81, rel=0.15), "specific force of a body that neither rises nor falls"
    assert episode.data["foot_forces"].shape[1] == 4
    assert np.abs(episode.data["joint_effort"]).max() > 5.0, "legs that carry it"


def test_what_was_asked_is_recorded_from_the_topic_that_the_controller_hears(episode):
    asked = episode.data["velocity_command"]
    assert len(asked) > 10
    np.testing.assert_array_equal(asked[-1], ASKED)


def test_recorded_observations_are_made_of_recorded_readings(episode):
    """Each is made of one inertial and one joint reading that the plant had published."""
    observer = Observer(PolicyRuntime(POLICY).contract, forward())
    rows = np.searchsorted(episode.timestamps["imu"], episode.timestamps["joint_states"])
    rows = np.minimum(rows, len(episode.timestamps["imu"]) - 1)  # of the same instant, where neither was lost
    data = episode.data
    published = {
        observer.step(
            Measurement(
                data["joint_position"][joints], data["joint_velocity"][joints], imu=read_inertial(data, imu), vectors={}
            )
        )[:30]
        .astype(np.float32)
        .tobytes()
        for joints, imu in enumerate(rows)
    }
    observed = np.ascontiguousarray(data["observation"][:, :30])
    assert np.mean([row.tobytes() in published for row in observed]) > 0.8, "best effort may lose a reading"
    np.testing.assert_allclose(data["observation"][-1, -3:], ASKED, atol=1e-6)


def test_it_can_be_replayed_through_the_whole_controller(episode):
    """Differences are told and not judged: a tick over DDS need not have taken the newest reading by its stamp."""
    policy = PolicyRuntime(POLICY)
    replay = replay_controller(policy, load_robot("go2"), forward(), episode, episode.attributes["seed"])
    assert (replay.exact, replay.ended) == (False, "")
    assert len(replay.commands.again) > 300
    assert np.isfinite(replay.commands.largest)


def forward() -> ForwardKinematics:
    return ForwardKinematics.load(robot_scene("go2").model_path, load_robot("go2"))

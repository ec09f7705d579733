"""A recorded run as one MCAP file that any ROS tool reads: the contract, the raw actions and the certified ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mcap", reason="needs the extra `rosbag`")
pytest.importorskip("rosbags", reason="needs the extra `rosbag`")

from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from onestride.datasets.journal_reader import Journal
from onestride.deploy.cli import main
from onestride.deploy.contract import parse_contract
from onestride.deploy.controller import Controller
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.simulation_recording import SimulatedRecording
from onestride.hardware.plant import Plant


@pytest.fixture(scope="module")
def recorded(small_run, robot, forward, cube_scene, start, tmp_path_factory):
    """Two short episodes: their controller, and their journal."""
    folder = tmp_path_factory.mktemp("bag")
    plant = Plant(cube_scene, robot)
    plant.scene = plant.scene.model_copy(update={"horizon": 20})
    runtime = PolicyRuntime(small_run.policy)
    controller = Controller(runtime.contract, robot, forward, InlineInference(runtime))
    recording = SimulatedRecording(controller, runtime.sha256, folder)
    for seed in (3, 4):
        recording.episode(plant, start, seed)
    recording.close()
    return controller, recording.journal, folder


@pytest.fixture(scope="module")
def bag(recorded):
    """What `onestride commit` and `onestride convert` make of it."""
    _, journal, folder = recorded
    assert main(["commit", journal, str(folder / "own.zarr")]) == 0
    assert main(["convert", str(folder / "own.zarr"), str(folder / "out.mcap")]) == 0
    return folder / "out.mcap"


def test_the_contract_travels_with_it(recorded, bag):
    with bag.open("rb") as file:
        (note,) = [one for one in make_reader(file).iter_metadata() if one.name == "onestride"]
    (origin,) = json.loads(note.metadata["passport"])["provenance"]["extra"]["recorded"]
    assert parse_contract(json.dumps(origin["contract"]).encode(), "bag") == recorded[0].contract


def test_raw_nominal_and_certified_actions_are_messages_of_their_own(recorded, bag):
    with Journal(recorded[1]) as journal:
        episodes = [journal.read(one).data for one in journal.episodes]
    messages: dict[str, list[np.ndarray]] = {}
    with AnyReader([bag]) as reader:
        for connection, _, raw in reader.messages():
            message: Any = reader.deserialize(raw, connection.msgtype)
            if connection.topic in ("/action", "/nominal", "/certified"):
                values = message.position if connection.msgtype == "sensor_msgs/msg/JointState" else message.data
                messages.setdefault(connection.topic, []).append(np.array(values))
    for name in ("action", "nominal", "certified"):
        written = np.concatenate([data[name] for data in episodes])
        np.testing.assert_array_equal(messages[f"/{name}"], written)
    assert len(messages["/certified"]) == 10 * len(messages["/action"]), "ten commands to a policy step"

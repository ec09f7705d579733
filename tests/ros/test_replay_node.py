"""What the node recorded over DDS replays: its actions to the bit, its commands as closely as its messages tell."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.deploy.cli import main
from onestride_controller.simulated import SimulatedRun, run_simulated

from .bystanders import patient_robot
from .conftest import STEADY
from .tiny_policy import write_policy


@pytest.mark.slow
def test_a_recording_of_the_node_gives_its_actions_again_to_the_bit(ground, tmp_path, capsys):
    policy = write_policy(tmp_path / "noisy.onnx", STEADY, noise_gain=0.2)
    run = SimulatedRun(
        policy=policy,
        robot=str(patient_robot(tmp_path / "patient.yaml")),
        scene=ground.scene,
        episodes=1,
        logs=tmp_path / "logs",
        starts=ground.starts,
        nfe=2,
        seed=11,
        record=tmp_path / "journals",
        horizon=25,
    )
    assert run_simulated(run).episodes
    assert main(["replay", str(policy), str(tmp_path / "journals"), "--scene", str(ground.scene), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["recorded_by_node"], report["seed"], report["nfe"], report["tolerance"]) == (True, 11, 2, 0.0)
    assert report["actions"]["steps"] >= 10, "two chunks and more"
    assert report["actions"]["identical"]
    controller = report["controller"]
    assert not controller["exact"]
    assert controller["observations"]["terms"]["arm_position"]["max"] < 0.02, "at most a few messages beside it"
    assert controller["commands"]["max"] < 0.2

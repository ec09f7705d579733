"""Latency is measured over real DDS: the joint moves a little, the figures come into an overlay, and latency shows."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from std_msgs.msg import Float64MultiArray

from onestride.deploy.cli import main
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.latency import read_overlay
from onestride_controller.calibrating import Calibration, _measure, _node

from .bystanders import patient_robot
from .recorder import ARM, COMMAND, Participant, wait_for


@pytest.fixture
def calibrated(ground, tmp_path, capsys):
    """Calibrates a robot that forgives the stalls of a busy machine; what was printed."""
    patient, out = patient_robot(tmp_path / "patient.yaml"), tmp_path / "ur5e.latency.yaml"

    def run(*arguments: str) -> dict:
        said = ["--robot", patient, "--scene", ground.scene, "--out", out, "--logs", tmp_path, "--json", *arguments]
        assert main(["calibrate-latency", *map(str, said)]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_delays_are_measured_and_written(calibrated):
    found = calibrated("--seconds", "4")
    overlay = read_overlay(Path(found["file"]))
    assert overlay.overlay_of == "ur5e_2f85"
    latency = overlay.latency
    assert latency.simulated
    assert (latency.joint, latency.amplitude, latency.control_rate) == ("wrist_3_joint", 0.02, 200.0)
    assert latency.explained > 0.9
    assert latency.drive_lag == pytest.approx(100 / 500, rel=0.3), "damping over stiffness"
    assert 0 < latency.sensor_to_command <= latency.sensor_to_command_p99


def test_a_second_writer_ends_it(session, ground, tmp_path):
    """One that joins while the joint moves, as no look before could see."""
    robot = load_robot(str(patient_robot(tmp_path / "patient.yaml")))
    wanted, plant = Calibration(str(robot.id), ground.scene, tmp_path, seconds=20.0), session.plant(ground)
    supervisor = session.supervisor(plant)
    supervisor.trigger("onestride_plant/reset", timeout=20.0)
    with Participant("intruder", session.namespace, session.environment) as intruder:

        def join():
            topic = intruder.node.resolve_topic_name(ARM)
            wait_for(lambda: intruder.node.count_publishers(topic), "the motion", timeout=30.0)
            time.sleep(1.0)
            intruder.node.create_publisher(Float64MultiArray, ARM, COMMAND)

        joining = threading.Thread(target=join, daemon=True)
        joining.start()
        with (
            _node(session.namespace, session.environment, {}) as node,
            pytest.raises(
                OneStrideError, match=r"ended early: a second writer of commands: .* publishes on .*commands"
            ),
        ):
            _measure(node, robot, "wrist_3_joint", wanted, plant)
        joining.join(timeout=5.0)


def test_what_is_not_small_is_refused(ground, tmp_path, capsys):
    options = ["--scene", ground.scene, "--logs", tmp_path, "--amplitude", 0.2, "--out", tmp_path / "out.yaml"]
    assert main(["calibrate-latency", *map(str, options)]) == 1
    assert "expected an amplitude above 0 and up to 0.05 rad, got 0.2" in capsys.readouterr().err
    assert not (tmp_path / "out.yaml").exists()

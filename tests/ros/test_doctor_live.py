"""The doctor at a robot's bedside: it hears what is there over real DDS, and says nothing itself."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from std_msgs.msg import Float64MultiArray

from onestride.deploy.cli import main
from onestride_controller.listening import NODE_NAME

from .bystanders import Witness, patient_robot
from .recorder import ARM, COMMAND, Participant, wait_for


@pytest.fixture
def bedside(session, ground, tmp_path, monkeypatch, capsys):
    """Runs the doctor in the session's domain; its exit code and its answers by question.

    The robot forgives stalls of half a second, so that a busy machine fails no test.
    """
    for name, value in session.environment.items():
        monkeypatch.setenv(name, value)
    patient = patient_robot(tmp_path / "patient.yaml")
    options = ["--robot", patient, "--scene", ground.scene, "--namespace", session.namespace, "--listen", "1", "--json"]

    def look() -> tuple[int, dict[str, dict]]:
        code = main(["doctor", str(ground.policy), *map(str, options)])
        report = json.loads(capsys.readouterr().out)
        assert report["passed"] is (code == 0)
        return code, {answer["question"]: answer for answer in report["robot"]}

    return look


def test_a_plant_is_heard_and_judged_and_nobody_ever_publishes_a_command(session, ground, bedside):
    session.plant(ground)
    with Witness(session.namespace, session.environment) as witness:
        wait_for(lambda: "onestride_plant" in witness.nodes, "the plant", timeout=20.0)
        code, found = bedside()
        assert NODE_NAME in witness.nodes, "the witness must have seen the doctor"
        assert witness.writers == set()
    assert code == 0, found
    for stream in ("joints", "block_0", "gripper_contact"):
        assert found[f"stream {stream}"]["level"] != "fail"
        rate = re.search(r"at ([\d.]+) Hz", found[f"stream {stream}"]["detail"])
        assert rate is not None
        assert 100 < float(rate[1]) < 1000, "500 Hz, but for a plant that catches up"
    assert found["joint names"]["detail"] == "all 7 there, in the robot's order"
    assert found[f"commands {session.namespace}/{ARM}"]["detail"] == f"read by {session.namespace}/onestride_plant"
    assert found["activation"]["level"] == "pass"
    assert found["training ranges"]["level"] == "pass"
    assert "first command" in found


def test_a_second_writer_fails(session, ground, bedside):
    session.plant(ground)
    with Participant("stranger", session.namespace, session.environment) as stranger:
        stranger.node.create_publisher(Float64MultiArray, ARM, COMMAND)
        code, found = bedside()
    assert code == 1
    answer = found[f"commands {session.namespace}/{ARM}"]
    assert answer["level"] == "fail"
    assert f"expected no publisher, got {session.namespace}/stranger" in answer["detail"]


def test_silence_fails_by_stream(session, bedside):
    code, found = bedside()
    assert code == 1
    assert found["stream joints"]["detail"] == (
        f"expected messages on {session.namespace}/joint_states, got none; nobody publishes there"
    )
    assert found["joint names"]["level"] == "fail"
    assert "activation" not in found

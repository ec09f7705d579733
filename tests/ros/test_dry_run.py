"""A dry run does everything but sending: no publisher of commands ever exists, and what would be sent is told."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.deploy.cli import main
from onestride.hardware.description import load_robot

from .bystanders import Witness
from .recorder import wait_for

ROBOT = load_robot("ur5e_2f85")


def test_the_node_ticks_and_creates_no_publisher_of_commands(session, ground):
    plant = session.plant(ground)
    with Witness(session.namespace, session.environment) as witness:
        node = session.controller(ground, soft_start=0.0, dry_run=True)
        supervisor = session.supervisor(plant, node)
        supervisor.wait_for_services()
        supervisor.trigger("onestride_plant/reset")
        supervisor.transition("configure")
        supervisor.transition("activate")
        supervisor.spin(0.5)
        supervisor.transition("deactivate")
        report = supervisor.report()
        wait_for(lambda: "onestride_controller" in witness.nodes, "the controller in the graph")
        assert witness.writers == set()
    assert supervisor.trigger("onestride_plant/progress")["commands"] == 0
    unsent = report["unsent"]
    assert unsent["commands"] >= 10
    assert set(unsent["joints"]) == set(ROBOT.joint_names)
    moved = [joint["high"] - joint["low"] for joint in unsent["joints"].values()]
    assert max(moved) > 1e-3, "the policy asks for motion"
    steps = np.array([joint["step"] for joint in unsent["joints"].values()])
    assert (steps <= ROBOT.velocity_limits / 200 + 1e-9).all(), "what would be sent is certified"


@pytest.mark.slow
def test_the_command_tells_what_it_would_have_sent(ground, tmp_path, capsys):
    options = ["--scene", ground.scene, "--seconds", "1", "--logs", tmp_path, "--dry-run", "--json"]
    options += ["--realtime", "7", "--nfe", "2", "--adaptive-nfe"]
    assert main(["run", str(ground.policy), *map(str, options)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["activations"] >= 1
    assert report["unsent"]["commands"] > 0
    assert report["node"]["realtime"]["control"].startswith("SCHED_FIFO 7")
    assert report["node"]["adaptive_nfe"]
    assert all(why for why in report["ended_by"])

"""The node's diagnostics as others hear them, over real DDS."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from diagnostic_msgs.msg import DiagnosticArray

from .patient import patient_robot
from .recorder import wait_for

OK, ERROR = b"\x00", b"\x02"


def test_what_the_node_says_of_itself_is_heard_and_turns_bad_with_it(session, ground, tmp_path):
    robot = str(patient_robot("ur5e_2f85", tmp_path))
    plant, node = session.plant(ground), session.controller(ground, robot=robot)
    supervisor = session.supervisor(node)
    heard: list[dict[str, Any]] = []

    def hear(message):
        heard.append({status.name.removeprefix("onestride_controller: "): status for status in message.status})

    supervisor.node.create_subscription(DiagnosticArray, "diagnostics", hear, 1)
    supervisor.wait_for_services()
    wait_for(lambda: supervisor.spin(0.1) or heard, "a word before it is configured")
    assert heard[-1]["mode"].message == "idle"

    supervisor.transition("configure")
    supervisor.trigger("onestride_plant/reset")
    supervisor.transition("activate")
    supervisor.spin(3.5)
    last = heard[-1]
    assert last["mode"].level == OK
    assert last["mode"].message == "active"
    assert last["mode"].hardware_id == robot
    assert last["control loop"].message.endswith(" Hz")
    figures = {value.key: value.value for value in last["control loop"].values}
    assert json.loads(figures["rate_hz"]) > 100
    assert last["stream joints"].level == OK
    assert last["policy"].level == OK
    assert "commands" in last["safety chain"].message

    plant.kill()
    wait_for(lambda: supervisor.spin(0.1) or heard[-1]["mode"].level == ERROR, "the fault", timeout=10.0)
    assert heard[-1]["mode"].message.startswith("fault: stream ")
    wait_for(lambda: supervisor.spin(0.1) or heard[-1]["stream joints"].level == b"\x03", "stale joints", timeout=5.0)
    topics = dict(supervisor.node.get_topic_names_and_types())
    assert f"{session.namespace}/diagnostics" in topics
    assert "/diagnostics" not in topics, "a simulated run keeps it to itself"

"""Controller and watchdog hear each other, over DDS, in this process: what is believed, and what is objected to."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from std_msgs.msg import String

from onestride.deploy.watchdog import Watch
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride_controller import guardian as guardian_module
from onestride_controller.guardian import Guardian
from onestride_watchdog.topics import NEWEST, Heartbeats

from .bystanders import patient_robot
from .own_watchdog import OwnWatchdog
from .recorder import Participant, wait_for

ROBOT, OTHER = load_robot("ur5e_2f85"), load_robot("panda")
COMMAND = np.array([joint.default for joint in ROBOT.joints])


@pytest.fixture
def pair(session):
    """A guardian in a node, and another node that hears it and speaks for the watchdog."""
    with (
        Participant("onestride_controller", session.namespace, session.environment) as one,
        Participant("onestride_watchdog", session.namespace, session.environment) as two,
    ):
        guardian = Guardian(one.node, ROBOT, 0.005, "onestride_watchdog")
        yield guardian, two.node


def test_heartbeats_are_believed_of_the_own_robot_only(pair):
    guardian, node = pair
    ours, others = (Heartbeats(node, "onestride_controller", robot) for robot in (ROBOT, OTHER))
    wait_for(lambda: guardian._publisher.get_subscription_count() == 2, "both to listen")
    guardian.beat(COMMAND - 0.01)
    guardian.beat(COMMAND)
    heard = []
    wait_for(lambda: heard.append(ours.take()) or (heard[-1] is not None and heard[-1].velocity.any()), "the last beat")
    assert heard[-1].in_charge
    np.testing.assert_array_equal(heard[-1].command, COMMAND)
    np.testing.assert_allclose(heard[-1].velocity, 0.01 / 0.005)
    wait_for(lambda: others.take() is None and others.refused, "the other robot's watchdog to refuse")
    assert others.heard == 0
    guardian.farewell()
    wait_for(lambda: (one := ours.take()) is not None and not one.in_charge, "the farewell")


def test_what_the_controller_objects_to(pair, monkeypatch):
    monkeypatch.setattr(guardian_module, "SILENCE", 0.3)
    monkeypatch.setattr(guardian_module, "FIRST_WORD", 0.5)
    guardian, node = pair
    with pytest.raises(OneStrideError, match=r"no watchdog: expected onestride_watchdog to be heard within 0.5 s"):
        guardian.begin()
    heartbeats = Heartbeats(node, "onestride_controller", ROBOT)
    publisher, word = node.create_publisher(String, "~/state", NEWEST), String(data="waiting")
    timer = node.create_timer(0.02, lambda: publisher.publish(word))
    wait_for(publisher.get_subscription_count, "the guardian to listen")
    guardian.begin()
    assert guardian.objection(time.monotonic()) == ""
    guardian.beat(COMMAND)
    wait_for(lambda: "has not noticed this node within 0.3 s" in guardian.objection(time.monotonic()), "an objection")
    word.data = "watching"
    wait_for(lambda: guardian.objection(time.monotonic()) == "", "no objection")
    word.data = "stopping"
    wait_for(lambda: "has taken over" in guardian.objection(time.monotonic()), "an objection")
    assert guardian.stopping
    with pytest.raises(OneStrideError, match="holds the robot after a controller has died; rearm it first"):
        guardian.begin()
    word.data = "watching"
    wait_for(lambda: guardian.objection(time.monotonic()) == "", "no objection")
    timer.cancel()
    wait_for(lambda: "was not heard for 0.3 s" in guardian.objection(time.monotonic()), "an objection")
    assert heartbeats.refused == 0


def test_asked_to_end_in_mid_stop_the_watchdog_goes_on_until_the_robot_is_at_rest(session, tmp_path):
    """A short silence, so that the command still counts as moving."""
    detection = dict.fromkeys(("joints_stale", "objects_stale", "policy_stall"), 0.6) | {"heartbeat": 0.01}
    path = patient_robot(tmp_path / "robot.yaml", detection=detection)
    watchdog = OwnWatchdog(session.namespace, session.environment, path)
    with Participant("onestride_controller", session.namespace, session.environment) as one:
        guardian = Guardian(one.node, load_robot(path), 0.005, "onestride_watchdog")
        wait_for(guardian._publisher.get_subscription_count, "the watchdog to listen")
        guardian.beat(COMMAND - 0.01)
        guardian.beat(COMMAND)
        wait_for(lambda: watchdog.node.look() and watchdog.judge.watch is Watch.STOPPING, "the stop")
        before = not watchdog.node.may_end
        watchdog.stopping.set()
        watchdog.run()
    watchdog.close()
    assert before
    assert watchdog.judge.at_rest
    assert np.abs(watchdog.judge.command() - COMMAND).max() > 0.01, "it went on to where it could come to rest"

"""The watchdog as a process beside controller and plant: silent while the controller lives, in charge once it died."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.deploy.confinement import claim_domain
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride_controller.supervisor import WATCHDOG

from .conftest import Session
from .patient import patient_robot
from .recorder import ARM, GRIPPER, Recorder, wait_for

PERIOD = 1 / 200.0
#: What a loaded two-core machine may add to any bound [s].
SLACK = 0.3


class World:
    """Plant, watchdog, controller, supervisor and recorder, in the order in which the tests use them up."""

    def __init__(self, session, ground, recorder):
        self.session, self.ground, self.recorder = session, ground, recorder
        self.path = patient_robot("ur5e_2f85", session.folder)
        self.robot = load_robot(self.path)
        self.plant, self.supervisor = session.plant(ground), session.supervisor()
        self.watchdog, self.node = session.watchdog(self.path), self.controller()

    def controller(self):
        node = self.session.controller(self.ground, soft_start=0.0, robot=self.path, watchdog=WATCHDOG)
        self.supervisor.wait_for_services()
        self.status()
        return node

    def watchdog_again(self):
        """Another in place of one that has ended, with a log of its own."""
        self.watchdog.log.unlink()
        self.watchdog = self.session.watchdog(self.path)
        self.status()

    def status(self):
        return self.supervisor.trigger(f"{WATCHDOG}/status", timeout=20.0)

    def after(self, moment: float, topic: str = ARM) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Commands heard after a moment, as `Recorder.commands` gives them."""
        times, numbers, values = self.recorder.commands(topic)
        return times[times > moment], numbers[times > moment], values[times > moment]


@pytest.fixture(scope="module")
def world(ground, tmp_path_factory):
    with claim_domain() as domain:
        session = Session(domain, tmp_path_factory.mktemp("watched"))
        with session.children, Recorder(session.namespace, session.environment) as recorder:
            yield World(session, ground, recorder)


def start_moving(world):
    world.supervisor.trigger("onestride_plant/reset")
    for heard in world.recorder.heard.values():
        heard.clear()
    world.supervisor.transition("activate")
    world.supervisor.spin(1.0)
    assert np.ptp(world.recorder.commands(ARM)[2], axis=0).max() > 0.02, "the policy should have moved the arm"


def test_it_is_silent_while_the_controller_lives(world):
    world.supervisor.transition("configure")
    start_moving(world)
    assert world.status()["state"] == "watching"
    world.supervisor.transition("deactivate")
    ended = time.monotonic()
    world.supervisor.spin(1.0)
    found = world.status()
    assert (found["state"], found["stops"], found["refused"]) == ("waiting", 0, 0)
    assert found["heartbeats"] > 20
    times, numbers, _ = world.recorder.commands(ARM)
    assert (np.diff(numbers) > 0).all(), "one writer counts upwards, two do not"
    assert times[-1] < ended + SLACK


def test_it_is_known_and_another_of_its_name_is_not(world):
    """The endpoint that was there at activation is the watchdog's, whoever else bears the name."""
    from std_msgs.msg import Float64MultiArray

    from .recorder import COMMAND

    start_moving(world)
    world.supervisor.spin(1.0)
    assert world.supervisor.status["mode"] == "active"
    session = world.session
    with Recorder(session.namespace, session.environment, name=WATCHDOG) as impostor:
        impostor.node.create_publisher(Float64MultiArray, GRIPPER, COMMAND)
        supervisor = world.supervisor
        wait_for(lambda: supervisor.spin(0.05) or supervisor.status.get("mode") == "fault", "the fault", timeout=5.0)
    assert "a second writer of commands: " in world.supervisor.report()["reason"]
    world.supervisor.transition("deactivate")
    world.supervisor.trigger("onestride_controller/rearm")
    wait_for(lambda: len(world.supervisor.node.get_publishers_info_by_topic(GRIPPER)) == 2, "the impostor to be gone")


def test_killed_in_mid_motion_the_controller_is_replaced_within_the_declared_time(world):
    start_moving(world)
    world.node.kill()
    killed = time.monotonic()
    world.supervisor.spin(1.5)
    detected = world.robot.detection.heartbeat
    times, numbers, values = world.recorder.commands(ARM)
    own = int(np.flatnonzero(numbers == 1)[-1])  # where the watchdog began to count
    sent, times, numbers, values = values[own - 1], times[own:], numbers[own:], values[own:]
    assert times[0] - killed <= detected + SLACK
    np.testing.assert_array_equal(numbers, np.arange(1, len(numbers) + 1), "the watchdog's commands, and no others")
    assert np.abs(values[0] - sent).max() <= 2 * PERIOD * 3.2, "from the last command sent"
    moving = times[1:][np.abs(np.diff(values, axis=0)).max(axis=1) > 0]
    at_rest = moving[-1] if len(moving) else times[0]
    assert at_rest - killed <= detected + world.robot.safe_stop.completes_within + SLACK
    assert len(times) > 50, "the safe stop is repeated"
    found = world.status()
    assert (found["state"], found["stops"], found["at_rest"]) == ("stopping", 1, True)
    assert "has died: stopping the robot" in world.watchdog.tail()


def test_the_robot_stays_the_watchdogs_until_it_is_rearmed(world):
    with pytest.raises(OneStrideError, match="expected the controller to be back and idle"):
        world.supervisor.trigger(f"{WATCHDOG}/rearm")
    topic = f"{world.session.namespace}/{ARM}"
    wait_for(
        lambda: len(world.supervisor.node.get_publishers_info_by_topic(topic)) == 1, "the dead to be forgotten", 30
    )
    world.node = world.controller()
    world.supervisor.transition("configure")
    with pytest.raises(OneStrideError, match="onestride_watchdog holds the robot after a controller has died; rearm"):
        world.supervisor.transition("activate")
    before = world.status()
    assert before["state"] == "stopping"
    wait_for(lambda: world.after(time.monotonic() - 0.1)[0].size, "the hold to go on")
    world.supervisor.spin(1.0)  # the controller is back, and says so twice a second
    world.supervisor.trigger(f"{WATCHDOG}/rearm")
    rearmed = time.monotonic()
    world.supervisor.spin(0.5)
    assert not world.after(rearmed + SLACK)[0].size, "nobody sends between rearming and activation"
    start_moving(world)
    assert world.status()["state"] == "watching"
    world.supervisor.transition("deactivate")


def test_a_stalled_controller_finds_itself_replaced_and_falls_silent(world):
    start_moving(world)
    os.kill(world.node.pid, signal.SIGSTOP)
    wait_for(lambda: world.status()["state"] == "stopping", "the watchdog to stop the robot")
    os.kill(world.node.pid, signal.SIGCONT)
    woken = time.monotonic()
    supervisor = world.supervisor
    wait_for(lambda: supervisor.spin(0.05) or supervisor.status.get("mode") == "fault", "the fault", timeout=5.0)
    assert supervisor.report()["reason"] == "onestride_watchdog has taken over, for want of heartbeats"
    supervisor.spin(0.5)
    _, numbers, values = world.after(woken + SLACK)
    assert (np.diff(numbers) == 1).all(), "one writer"
    np.testing.assert_array_equal(values, np.broadcast_to(values[0], values.shape))
    supervisor.transition("deactivate")
    supervisor.spin(1.0)
    supervisor.trigger(f"{WATCHDOG}/rearm")
    supervisor.trigger("onestride_controller/rearm")


def test_asked_to_end_it_has_the_controller_stop_the_robot_first(world):
    """It goes only once the arm rests, says so on the way, and the controller tells why it stopped."""
    start_moving(world)
    asked, supervisor = time.monotonic(), world.supervisor
    os.kill(world.watchdog.pid, signal.SIGTERM)
    wait_for(lambda: supervisor.spin(0.02) or supervisor.status.get("mode") == "fault", "the fault", timeout=5.0)
    assert supervisor.report()["reason"] == "onestride_watchdog is ending: nobody would watch this node any more"
    assert world.watchdog.running, "the arm is still being brought to rest"
    wait_for(lambda: supervisor.spin(0.05) or not world.watchdog.running, "its end", timeout=10.0)
    assert world.watchdog.exit_code == 0
    assert "asked to end while onestride_controller commands the robot" in world.watchdog.tail()
    assert "nobody watches onestride_controller any more" in world.watchdog.tail()
    _, numbers, values = world.after(asked)
    assert (np.diff(numbers) > 0).all(), "one writer: the controller"
    still = len(values) // 4
    np.testing.assert_array_equal(values[-still:], np.broadcast_to(values[-1], values[-still:].shape))
    supervisor.transition("deactivate")
    supervisor.trigger("onestride_controller/rearm")
    world.watchdog_again()


def test_asked_to_end_while_nobody_is_in_charge_it_ends_at_once(world):
    assert world.status()["state"] == "waiting"
    assert world.watchdog.stop() == 0
    assert "asked to end" not in world.watchdog.tail()
    world.watchdog_again()


def test_without_its_watchdog_the_controller_stops_the_robot_and_does_not_start_again(world):
    start_moving(world)
    world.watchdog.kill()
    supervisor = world.supervisor
    wait_for(lambda: supervisor.spin(0.05) or supervisor.status.get("mode") == "fault", "the fault", timeout=5.0)
    assert supervisor.report()["reason"] == "onestride_watchdog was not heard for 1 s"
    supervisor.transition("deactivate")
    supervisor.trigger("onestride_controller/rearm")
    with pytest.raises(OneStrideError, match="no watchdog: expected onestride_watchdog to be heard within 2 s"):
        supervisor.transition("activate")

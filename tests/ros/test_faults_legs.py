"""The table of faults on a robot on legs, row by row, over DDS: seen in time, damped, latched, and rearmed.

A push that no step can catch, and a killed node: test_walking. What guards of motion see on an arm, nobody claims of
legs: their drives are soft, see the robot's description.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from geometry_msgs.msg import Twist
from std_msgs.msg import Float64MultiArray

from onestride.deploy.confinement import claim_domain
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.models import robot_scene
from onestride_controller.supervisor import CONTROLLER, PLANT

from .conftest import Session
from .impedance_listener import Listener, damped
from .injection import HARMLESS, LEG_CASES, inject
from .patient import patient_robot
from .recorder import COMMAND, SENSOR, Participant, wait_for
from .touchy_policy import write_touchy_legs

PERIOD = 1 / 200.0
#: What a loaded two-core machine may add to any bound [s], and what the node takes to tell of a fault.
SLACK, TOLD = 0.3, 0.1
#: How uneasily it stands: enough for a guard that looks for commands that move.
UNEASY = 0.2
#: What has a quick test over DDS elsewhere as well, or the same way as another row: `make test-all` runs it.
SLOW = {"infinity", "wrong shape", "no names", "repeated stamps", "slowed", "delayed", "tilt"}


class World:
    """A Go1 that stands, its active controller, supervisor and listener; each test leaves them as it found them."""

    def __init__(self, session, shared, listener):
        path = patient_robot("go1", session.folder)
        path.write_text(path.read_text().replace("completes_within: 5.0", "completes_within: 0.3"))  # for short tests
        self.session, self.robot, self.listener = session, load_robot(path), listener
        model = shared / "policies" / "go1_joystick" / "go1_mjx_feetonly.xml"
        scene = robot_scene("go1", model, folder=session.folder / "scene")
        policy = write_touchy_legs(session.folder / "touchy.onnx", self.robot, UNEASY)
        self.plant = session.child("onestride_plant", "--scene", str(scene.folder), "--robot", str(path))
        parameters = {"robot": path, "policy": policy, "scene": scene.folder}
        given = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
        self.node = session.child("onestride_controller.node", "--ros-args", *given)
        self.supervisor = session.supervisor(self.node)  # the plant is killed by a test
        self.supervisor.wait_for_services()
        self.supervisor.transition("configure")

    def standing(self):
        """Without a fault, and active from the start of an episode."""
        inject(self.supervisor, "")
        with suppress(OneStrideError):  # it is idle already
            self.supervisor.transition("deactivate")
        self.supervisor.trigger(f"{CONTROLLER}/rearm")
        self.supervisor.trigger(f"{CONTROLLER}/report_reset")
        self.supervisor.trigger(f"{PLANT}/reset")
        self.listener.heard.clear()
        self.supervisor.status = {}
        self.supervisor.transition("activate")
        self.supervisor.spin(0.4)
        assert self.supervisor.status["mode"] == "active", self.supervisor.status["reason"]
        return self

    def fault_within(self, seconds):
        """Wait for a fault; how long that took."""
        supervisor, begun = self.supervisor, time.monotonic()
        wait_for(lambda: supervisor.spin(0.01) or supervisor.status.get("mode") == "fault", "a fault", seconds)
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def shared(shared_data: Path, tmp_path_factory):
    topic = load_robot("go1").commands[0].topic
    with claim_domain() as domain:
        session = Session(domain, tmp_path_factory.mktemp("legs"))
        with session.children, Listener(session, topic) as listener:
            yield World(session, shared_data, listener)


@pytest.fixture
def world(shared):
    return shared.standing()


@pytest.fixture(scope="module")
def asked(shared):
    """Asks for a velocity forwards [m/s] from now on."""
    message, node = Twist(), shared.supervisor.node
    publisher = node.create_publisher(Twist, "cmd_vel", SENSOR)
    timer = node.create_timer(0.01, lambda: publisher.publish(message))

    def ask(forward):
        message.linear.x = forward

    yield ask
    timer.cancel()


def rows():
    marks = {True: [pytest.mark.slow], False: []}
    return [pytest.param(case, id=name, marks=marks[name in SLOW]) for name, case in LEG_CASES.items()]


@pytest.mark.parametrize("case", rows())
def test_a_fault_is_seen_damped_latched_and_rearmed(world, asked, case):
    supervisor, within = world.supervisor, case.within(world.robot)
    inject(supervisor, case.fault)
    asked(case.asked)
    assert world.fault_within(within + 5.0) <= within + TOLD + SLACK
    supervisor.spin(world.robot.safe_stop.completes_within)

    report = supervisor.report()
    assert re.search(case.reason, report["reason"]), report["reason"]
    assert report["safe_stop_delay_ms"] <= (2 * PERIOD + SLACK) * 1e3
    is_damped(world)
    assert f"mode fault: {report['reason']}" in world.node.tail(100)

    inject(supervisor, "")
    asked(0.0)
    supervisor.spin(0.1)
    assert supervisor.report()["reason"] == report["reason"], "good measurements do not clear it"
    supervisor.transition("deactivate")
    with pytest.raises(OneStrideError, match="a fault is latched: "):
        supervisor.transition("activate")


def is_damped(world):
    """From the first damped command on there are no others, and they go on."""
    stops = [damped(command, world.robot) for _, _, command in list(world.listener.heard)]
    first = stops.index(True)
    assert first > 10, "it stood before"
    assert all(stops[first:]), "once it is damped, it is not made stiff again"
    assert len(stops) - first > 10, "the stop is repeated, not sent once"


@pytest.mark.parametrize("fault", HARMLESS.values(), ids=HARMLESS.keys())
def test_messages_out_of_order_or_lost_are_no_fault(world, fault):
    inject(world.supervisor, fault)
    world.supervisor.spin(0.8)
    status = world.supervisor.status
    assert (status["mode"], status["reason"]) == ("active", "")
    if fault == "disordered":
        assert status["streams"]["joints"]["stamp not newer"] > 0


def test_what_is_asked_and_is_no_number_is_not_heard(world, asked):
    asked(np.nan)
    world.supervisor.spin(0.5)
    status = world.supervisor.status
    asked(0.0)
    assert status["mode"] == "active"
    assert status["streams"]["velocity_command"]["not finite"] > 0


def test_a_second_writer_damps_it(world):
    session, topic = world.session, world.robot.commands[0].topic
    with Participant("intruder", session.namespace, session.environment) as intruder:
        intruder.node.create_publisher(Float64MultiArray, topic, COMMAND)
        world.fault_within(5.0)
    assert "a second writer of commands: " in world.supervisor.report()["reason"]
    world.supervisor.spin(0.3)
    is_damped(world)
    node = world.supervisor.node
    wait_for(lambda: len(node.get_publishers_info_by_topic(node.resolve_topic_name(topic))) == 1, "it to be gone")


def test_when_its_plant_dies_it_is_damped_for_ever(world):
    """The last of this module: nothing stands afterwards."""
    world.plant.kill()
    assert world.fault_within(5.0) <= world.robot.detection.joints_stale + TOLD + SLACK
    world.supervisor.spin(world.robot.safe_stop.completes_within)
    assert re.search(r"stream \w+ is stale", world.supervisor.status["reason"])
    is_damped(world)
    world.supervisor.transition("deactivate")
    with pytest.raises(OneStrideError, match="a fault is latched: "):
        world.supervisor.transition("activate")

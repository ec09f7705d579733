"""The controller as a process beside the plant: lifecycle, commands, faults, neighbours."""

from __future__ import annotations

import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.deploy.confinement import claim_domain
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride_controller.neighbours import UNKNOWN

from .conftest import Session
from .patient import patient_robot
from .recorder import ARM, GRIPPER, Recorder, wait_for

ROBOT = load_robot("ur5e_2f85")
PERIOD = 1 / 200.0
#: What a loaded two-core machine may add to any bound [s].
SLACK = 0.15
#: Rounding of the safe stop's double integration over a second of ticks [rad].
ROUNDING = 1e-9


class World:
    """Plant, controller, supervisor and recorder that tests share; what a test has ended is started anew.

    Not what a test has killed: DDS believes in the dead for its lease of 20 s, so a killing test comes last.
    """

    def __init__(self, session, ground, recorder, robot="ur5e_2f85"):
        self.session, self.ground, self.recorder, self.robot = session, ground, recorder, robot
        self.plant = self.node = None
        self.supervisor = session.supervisor()

    def ready(self):
        """A living plant and a configured, inactive controller without a fault."""
        if self.plant is None or not self.plant.running:
            self.plant = self.session.plant(self.ground)
        if self.node is None or not self.node.running:
            self.node = self.session.controller(self.ground, soft_start=0.0, robot=self.robot)
            self.supervisor.wait_for_services()
            self.supervisor.transition("configure")
        self.supervisor.wait_for_services()
        with suppress(OneStrideError):  # a test that failed may have left it active
            self.supervisor.transition("deactivate")
        self.supervisor.trigger("onestride_controller/rearm")
        self.supervisor.trigger("onestride_controller/report_reset")
        for heard in self.recorder.heard.values():
            heard.clear()
        self.supervisor.status = {}
        return self.plant, self.node, self.supervisor, self.recorder


@pytest.fixture(scope="module")
def world(ground, tmp_path_factory):
    with claim_domain() as domain:
        session = Session(domain, tmp_path_factory.mktemp("world"))
        patient = patient_robot("ur5e_2f85", session.folder)
        with session.children, Recorder(session.namespace, session.environment) as recorder:
            yield World(session, ground, recorder, robot=str(patient))


@pytest.fixture
def robot(world):
    """Plant and configured controller; a recorder hears the commands.

    This robot forgives stalls of half a second, so that a busy machine fails no test that is about other things.
    """
    return world.ready()


@pytest.fixture
def own_robot(session, ground):
    """The same for one test alone, with the detection bounds that are shipped."""
    with Recorder(session.namespace, session.environment) as recorder:
        yield World(session, ground, recorder).ready()


def start_episode(supervisor):
    supervisor.trigger("onestride_plant/reset")
    supervisor.transition("activate")


def within_limits(recorder):
    """Each command keeps position limits, and speed limits from the one before it."""
    for topic, group in zip((ARM, GRIPPER), ROBOT.commands, strict=True):
        joints = ROBOT.indices(group.joints)
        _, numbers, values = recorder.commands(topic)
        lower, upper = (limit[joints] for limit in ROBOT.position_limits)
        assert np.isfinite(values).all()
        assert (values >= lower).all()
        assert (values <= upper).all()
        reach = ROBOT.velocity_limits[joints] * PERIOD * np.diff(numbers)[:, None]
        assert (np.abs(np.diff(values, axis=0)) <= reach + ROUNDING).all()


def resident(pid):
    """Memory of a process that is in place [MB]."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_running_node_takes_little_memory(robot):
    _, node, supervisor, _ = robot
    start_episode(supervisor)
    supervisor.spin(1.0)
    assert supervisor.report()["ticks"] > 100
    assert 50 < resident(node.pid) <= 250
    supervisor.transition("deactivate")


def test_a_whole_life(robot):
    _, _, supervisor, recorder = robot
    start_episode(supervisor)
    begun = time.monotonic()
    supervisor.spin(2.0)
    supervisor.transition("deactivate")
    ended = time.monotonic()
    supervisor.spin(0.1)
    times, numbers, values = recorder.commands(ARM)
    assert len(times) / (ended - begun) > 100
    assert np.ptp(values, axis=0).max() > 0.05, "the policy should have moved the arm"
    within_limits(recorder)
    assert (np.diff(numbers) > 0).all()

    supervisor.spin(0.3)
    assert recorder.commands(ARM)[0][-1] <= ended + SLACK, "it went on sending after deactivation"
    resting = supervisor.trigger("onestride_plant/progress")
    assert resting["commands"] > 100

    report = supervisor.report()
    assert report["mode"] == "idle"
    assert report["control_rate_hz"] > 100
    assert report["policy_rate_hz"] == pytest.approx(20, rel=0.25)
    assert report["ticks"] == pytest.approx(len(times), abs=20)
    assert report["counters"]["ticks"] <= report["ticks"]
    assert 0 <= report["intervention_rate"] <= 1
    assert report["observation_age_ms"]["p50"] < 20
    assert report["policy_us"]["p50"] > 0
    assert report["faults"] == []

    supervisor.transition("activate")
    supervisor.transition("deactivate")
    assert supervisor.report()["activations"] == 2
    supervisor.trigger("onestride_controller/report_reset")
    assert supervisor.report()["ticks"] == 0
    supervisor.transition("cleanup")
    with pytest.raises(OneStrideError, match="cannot make transition 3 in state unconfigured"):
        supervisor.transition("activate")
    supervisor.transition("configure")


def test_an_episode_is_reset_run_and_judged(robot, ground):
    _, _, supervisor, _ = robot
    first = supervisor.run_episode(timeout=0.5)
    second = supervisor.run_episode(timeout=0.5)
    assert second.episode == first.episode + 1
    seeds = ground.seeds * 3
    assert [first.seed, second.seed] == seeds[first.episode :][:2]
    assert not (first.success or first.over or first.fault)
    assert first.time == pytest.approx(0.5, abs=0.2)
    assert second.wall - second.time < 1.5


def test_a_second_writer_while_active_is_a_fault(robot, world):
    _, _, supervisor, _ = robot
    session = world.session
    start_episode(supervisor)
    supervisor.spin(0.5)
    from std_msgs.msg import Float64MultiArray

    from .recorder import COMMAND

    with Recorder(session.namespace, session.environment, name="intruder") as intruder:
        intruder.node.create_publisher(Float64MultiArray, GRIPPER, COMMAND)
        wait_for(lambda: supervisor.spin(0.05) or supervisor.status.get("mode") == "fault", "the fault", timeout=5.0)
    report = supervisor.report()
    prefix, writer = report["reason"].split(": ", maxsplit=1)
    assert prefix == "a second writer of commands"
    assert writer in {f"{name} publishes on {GRIPPER}" for name in (f"{session.namespace}/intruder", UNKNOWN)}
    assert report["safe_stop_delay_ms"] <= (2 * PERIOD + SLACK) * 1e3
    supervisor.transition("deactivate")
    supervisor.trigger("onestride_controller/rearm")
    wait_for(lambda: not supervisor.node.get_publishers_info_by_topic(GRIPPER)[1:], "the intruder to be gone")
    supervisor.transition("activate")
    supervisor.transition("deactivate")


def test_ended_while_active_it_brings_the_robot_to_rest_first(robot):
    _, node, supervisor, recorder = robot
    start_episode(supervisor)
    supervisor.spin(1.0)
    assert node.stop() == 0
    assert "Traceback" not in node.tail(1000)
    _, _, values = recorder.commands(ARM)
    speed = np.abs(np.diff(values, axis=0)) / PERIOD
    assert speed[-1].max() <= ROBOT.safe_stop.deceleration * PERIOD * 2
    assert "mode holding" in node.tail(100)


def test_node_killed_the_plant_holds(robot):
    _, node, supervisor, recorder = robot
    start_episode(supervisor)
    supervisor.spin(1.0)
    node.kill()
    killed = time.monotonic()
    wait_for(lambda: time.monotonic() > killed + 1.0, "the arm to settle")
    from sensor_msgs.msg import JointState

    from .recorder import SENSOR

    heard = []
    recorder.node.create_subscription(JointState, "joint_states", lambda message: heard.append(message), SENSOR)
    time.sleep(1.0)
    positions = np.array([list(message.position) for message in heard])
    velocities = np.array([list(message.velocity) for message in heard])
    assert len(positions) > 100
    assert np.abs(velocities[:, :6]).max() < 1e-2
    assert np.ptp(positions[:, :6], axis=0).max() < 1e-3
    _, _, last = recorder.commands(ARM)
    np.testing.assert_allclose(positions[-1, :6], last[-1], atol=0.05)


def test_plant_killed_mid_episode(own_robot):
    plant, node, supervisor, recorder = own_robot
    start_episode(supervisor)
    supervisor.spin(1.0)
    plant.kill()
    killed = time.monotonic()
    wait_for(lambda: supervisor.spin(0.02) or supervisor.status.get("mode") == "fault", "the fault")
    supervisor.spin(1.0)

    report = supervisor.report()
    stale = re.search(r"stream (\w+) is stale: expected age <= ([\d.]+) s, got ([\d.]+) s", report["reason"])
    assert stale, report["reason"]
    bound = ROBOT.detection.joints_stale if stale[1] == "joints" else ROBOT.detection.objects_stale
    assert float(stale[2]) == bound
    assert float(stale[3]) <= bound + PERIOD + SLACK
    assert report["safe_stop_delay_ms"] <= (2 * PERIOD + SLACK) * 1e3
    times, _, values = recorder.commands(ARM)
    moving = times[1:][np.abs(np.diff(values, axis=0)).max(axis=1) > 0]
    declared = bound + 2 * PERIOD + ROBOT.safe_stop.completes_within
    assert moving[-1] - killed <= declared + SLACK, "the commands did not come to rest"
    assert times[-1] - killed > declared + SLACK, "the safe stop is repeated, not sent once"
    within_limits(recorder)
    assert f"mode fault: {report['reason']}" in node.tail(100)

    supervisor.transition("deactivate")
    with pytest.raises(OneStrideError, match="a fault is latched: stream"):
        supervisor.transition("activate")
    supervisor.transition("cleanup")
    supervisor.transition("configure")
    with pytest.raises(OneStrideError, match="a fault is latched: stream"):
        supervisor.transition("activate")
    supervisor.trigger("onestride_controller/rearm")
    with pytest.raises(OneStrideError, match=r"no sample within 2 s from: joints, gripper_contact, block_0"):
        supervisor.transition("activate")


def test_sessions_side_by_side_do_not_hear_each_other(session, ground, tmp_path):
    """Even with the same namespace and the same names: the domains keep them apart."""
    with claim_domain() as domain:
        other = Session(domain, tmp_path / "other", namespace=session.namespace)
        with other.children:
            one, two = session.plant(ground), other.plant(ground)
            here, there = session.supervisor(one), other.supervisor(two)
            for supervisor in (here, there):
                supervisor.trigger("onestride_plant/progress", timeout=20.0)
            here.trigger("onestride_plant/reset")
            assert here.trigger("onestride_plant/progress")["episode"] == 0
            assert there.trigger("onestride_plant/progress")["episode"] is None
            plant = "onestride_plant", session.namespace
            for supervisor in (here, there):
                deadline = time.monotonic() + 10.0  # names may lag behind services where the machine is busy
                while plant not in supervisor.node.get_node_names_and_namespaces():
                    assert time.monotonic() < deadline
                    supervisor.spin(0.1)
                assert supervisor.node.get_node_names_and_namespaces().count(plant) == 1

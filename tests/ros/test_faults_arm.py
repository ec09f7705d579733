"""The table of faults on an arm, row by row, over DDS: seen in time, stopped as declared, latched, and rearmed.

What comes before or beside it is held elsewhere: refusals at load (test_controller_refusals), a second writer, a killed
node and a killed plant (test_controller_node), the watchdog (test_watchdog_node), disks (test_recorder). An infeasible
program and a failed recheck cannot be brought about from outside: tests/deploy/test_fault_table.py.
"""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.deploy.confinement import claim_domain
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride_controller.supervisor import CONTROLLER, PLANT

from .conftest import Session
from .injection import ARM_CASES, HARMLESS, inject
from .patient import patient_robot
from .recorder import ARM, Recorder, wait_for
from .touchy_policy import write_touchy

PERIOD = 1 / 200.0
#: What a loaded two-core machine may add to any bound [s], and what the node takes to tell of a fault.
SLACK, TOLD = 0.3, 0.1
#: What has a quick test over DDS elsewhere as well, or the same way as another row: `make test-all` runs it.
SLOW = {"infinity", "a stream not a number", "no names", "repeated stamps", "slowed", "objects stalled"}
SLOW |= {"swapped joints", "jump", "frozen", "flipped velocity"}
TURNING = (0.3, 0.15, -0.1, 0.6, 0.4)


class World:
    """Plant, active controller, supervisor and recorder that the tests share; each leaves it as it found it."""

    def __init__(self, session, ground, recorder):
        path = patient_robot("ur5e_2f85", session.folder)
        self.robot, self.recorder = load_robot(path), recorder
        policy = write_touchy(session.folder / "touchy.onnx", TURNING)
        self.plant = session.plant(ground)
        self.node = session.controller(ground, soft_start=0.0, robot=path, policy=policy)
        self.supervisor = session.supervisor(self.plant, self.node)
        self.supervisor.wait_for_services()
        self.supervisor.transition("configure")

    def moving(self):
        """Without a fault, active from the start of an episode, and on its way."""
        inject(self.supervisor, "")
        with suppress(OneStrideError):  # it is idle already
            self.supervisor.transition("deactivate")
        self.supervisor.trigger(f"{CONTROLLER}/rearm")
        self.supervisor.trigger(f"{CONTROLLER}/report_reset")
        self.supervisor.trigger(f"{PLANT}/reset")
        for heard in self.recorder.heard.values():
            heard.clear()
        self.supervisor.status = {}
        self.supervisor.transition("activate")
        self.supervisor.spin(0.4)
        assert self.supervisor.status["mode"] == "active", self.supervisor.status["reason"]
        return self

    def fault_within(self, seconds: float) -> float:
        """Wait for a fault; how long that took."""
        supervisor, begun = self.supervisor, time.monotonic()
        wait_for(lambda: supervisor.spin(0.01) or supervisor.status.get("mode") == "fault", "a fault", seconds)
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def shared(ground, tmp_path_factory):
    with claim_domain() as domain:
        session = Session(domain, tmp_path_factory.mktemp("arm"))
        with session.children, Recorder(session.namespace, session.environment) as recorder:
            yield World(session, ground, recorder)


@pytest.fixture
def world(shared):
    return shared.moving()


def rows():
    marks = {True: [pytest.mark.slow], False: []}
    return [pytest.param(case, id=name, marks=marks[name in SLOW]) for name, case in ARM_CASES.items()]


@pytest.mark.parametrize("case", rows())
def test_a_fault_is_seen_stopped_latched_and_rearmed(world, case):
    supervisor, within = world.supervisor, case.within(world.robot)
    inject(supervisor, case.fault)
    begun = time.monotonic()
    assert world.fault_within(within + 5.0) <= within + TOLD + SLACK
    supervisor.spin(world.robot.safe_stop.completes_within)

    report = supervisor.report()
    assert re.search(case.reason, report["reason"]), report["reason"]
    assert report["safe_stop_delay_ms"] <= (2 * PERIOD + SLACK) * 1e3
    comes_to_rest(world, begun + within)
    assert f"mode fault: {report['reason']}" in world.node.tail(100)

    inject(supervisor, "")
    supervisor.spin(0.1)
    assert supervisor.report()["reason"] == report["reason"], "good measurements do not clear it"
    supervisor.transition("deactivate")
    with pytest.raises(OneStrideError, match="a fault is latched: "):
        supervisor.transition("activate")
    supervisor.trigger(f"{CONTROLLER}/rearm")
    supervisor.transition("activate")
    supervisor.transition("deactivate")


def comes_to_rest(world, seen):
    """The commands end at rest within the declared time, and go on being sent."""
    declared = seen + 2 * PERIOD + world.robot.safe_stop.completes_within
    times, numbers, values = world.recorder.commands(ARM)
    assert np.isfinite(values).all()
    moved = np.abs(np.diff(values, axis=0)).max(axis=1)
    moving = times[1:][moved > 0]
    assert len(moving), "the policy should have moved the arm"
    assert moving[-1] <= declared + SLACK
    assert len(times[times > moving[-1]]) > 10, "the stop is repeated, not sent once"
    reach = world.robot.velocity_limits[:6] * PERIOD * np.diff(numbers)[:, None]
    assert (np.abs(np.diff(values, axis=0)) <= reach + 1e-9).all()


@pytest.mark.parametrize("fault", HARMLESS.values(), ids=HARMLESS.keys())
def test_messages_out_of_order_or_lost_are_no_fault(world, fault):
    supervisor = world.supervisor
    inject(supervisor, fault)
    supervisor.spin(0.8)
    status = supervisor.status
    assert (status["mode"], status["reason"]) == ("active", "")
    if fault == "disordered":
        assert status["streams"]["joints"]["stamp not newer"] > 0
    supervisor.transition("deactivate")


def test_a_node_that_was_stopped_and_wakes_up_faults(world):
    """Its clock jumps, and what it last heard is old; which is said first is a matter of the tick."""
    os.kill(world.node.pid, signal.SIGSTOP)
    time.sleep(0.9)
    os.kill(world.node.pid, signal.SIGCONT)
    assert world.fault_within(5.0) <= TOLD + SLACK
    reason = world.supervisor.report()["reason"]
    assert re.search("the clock jumped: expected the next tick within 0.5 s|is stale", reason), reason
    world.supervisor.spin(world.robot.safe_stop.completes_within)
    comes_to_rest(world, time.monotonic())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("gremlins", "unknown fault: got 'gremlins', available: silent, "),
        ("jumped knee", "unknown joint of robot ur5e_2f85: got 'knee'"),
        ("stuck nose 1", "unknown scalar: got 'nose', available: gripper_contact"),
        ("stuck gripper_contact much", r"expected KIND \[WHERE \[VALUE\]\]"),
        ("leaning", "unknown fault: got 'leaning'"),
    ],
)
def test_a_fault_that_the_plant_does_not_know_is_refused(shared, fault, words):
    with pytest.raises(OneStrideError, match=words):
        inject(shared.supervisor, fault)

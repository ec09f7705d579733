"""The node's threads as the system schedules them, read from outside its process."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from onestride.hardware.errors import OneStrideError
from onestride.hardware.realtime import ATTENDANT_BELOW, INFERENCE_BELOW, Realtime

from .patient import patient_robot

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SCHED_FIFO is Linux's")

PRIORITY = 20


def permitted():
    """Why the system does not permit it; none where it does."""
    asked = Realtime(priority=1)
    thread = threading.Thread(target=asked.keep_deadlines)
    thread.start()
    thread.join()
    return asked.refused


def scheduled(pid):
    """Policy and priority of every thread of a process, the most urgent first."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        thread = int(task.name)
        policy = os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK
        found.append((policy, os.sched_getparam(thread).sched_priority))
    return sorted(found, key=lambda one: -one[1])


def test_control_goes_before_inference_and_that_before_the_rest(session, ground, tmp_path):
    if refused := permitted():
        pytest.skip(f"this system: {refused[0]}")
    robot, last = str(patient_robot("ur5e_2f85", tmp_path)), max(os.sched_getaffinity(0))
    plant = session.plant(ground, "--realtime-priority", "10")
    node = session.controller(ground, robot=robot, realtime_priority=PRIORITY, cpu_affinity=f"[{last}]")
    supervisor = session.supervisor(plant, node)
    supervisor.wait_for_services()
    supervisor.transition("configure")
    fifo = os.SCHED_FIFO
    follows = (fifo, PRIORITY - INFERENCE_BELOW)
    assert [one for one in scheduled(node.pid) if one[0] == fifo] == [follows], "before activation nobody controls"
    supervisor.trigger("onestride_plant/reset")
    supervisor.transition("activate")
    supervisor.spin(1.0)
    threads = scheduled(node.pid)
    assert threads[:3] == [(fifo, PRIORITY), follows, (fifo, PRIORITY - ATTENDANT_BELOW)]
    assert {policy for policy, _ in threads[3:]} == {os.SCHED_OTHER}, "what DDS runs in"
    assert scheduled(plant.pid)[:2] == [(fifo, 10), (os.SCHED_OTHER, 0)]

    report = supervisor.report()
    assert report["mode"] == "active"
    assert report["realtime"]["control"] == f"SCHED_FIFO {PRIORITY}, processors {last}"
    assert report["realtime"]["inference"] == f"SCHED_FIFO {PRIORITY - INFERENCE_BELOW}"
    assert report["control_rate_hz"] > 100, "neither starves the other"
    supervisor.transition("deactivate")
    assert [one for one in scheduled(node.pid) if one[0] == fifo] == [follows], "afterwards nobody controls"
    assert f"realtime: control SCHED_FIFO {PRIORITY}" in node.tail(100)
    assert "realtime: physics SCHED_FIFO 10" in plant.tail(100)


def test_a_processor_that_is_not_there_is_refused(session, ground):
    node = session.controller(ground, cpu_affinity="[4711]")
    plant = session.plant(ground)
    supervisor = session.supervisor(plant, node)
    supervisor.wait_for_services()
    with pytest.raises(OneStrideError, match="cpu affinity: expected processors out of"):
        supervisor.transition("configure")

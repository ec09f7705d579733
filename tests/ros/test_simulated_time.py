"""Under `use_sim_time` the loop keeps the time of `/clock`, and says nothing about this machine's."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from rosgraph_msgs.msg import Clock

from onestride.hardware.errors import OneStrideError
from onestride_controller.report import TIMING

from .patient import patient_robot
from .recorder import ARM, SENSOR, Recorder, wait_for

RATE = 200.0


@contextmanager
def clock_of(recorder, speed):
    """A `/clock` that goes at `speed` times that of the wall, from 5 s on; a call of what it gives stops it."""
    publisher = recorder.node.create_publisher(Clock, "/clock", SENSOR)
    stopped, ended, begun = threading.Event(), threading.Event(), time.monotonic()

    def go():
        message = Clock()
        while not ended.wait(0.002):
            if not stopped.is_set():
                now = 5.0 + speed * (time.monotonic() - begun)
                message.clock.sec, message.clock.nanosec = divmod(round(now * 1e9), 1_000_000_000)
                publisher.publish(message)

    thread = threading.Thread(target=go)
    thread.start()
    yield stopped.set
    ended.set()
    thread.join()


@pytest.fixture
def start(session, ground, tmp_path):
    """Starts a plant and a configured node under `use_sim_time`; what drives them, and who hears the commands."""
    robot = str(patient_robot("ur5e_2f85", tmp_path))
    with Recorder(session.namespace, session.environment) as recorder:

        def both(*options):
            node = session.controller(ground, robot=robot, use_sim_time=True)
            supervisor = session.supervisor(node, session.plant(ground, *options))
            supervisor.wait_for_services()
            supervisor.transition("configure")
            return supervisor, recorder

        yield both


def count_ticks(supervisor, recorder, duration):
    """Ticks, and commands that were heard, in `duration` of wall-clock time."""
    ticks, heard = supervisor.report()["ticks"], len(recorder.commands(ARM)[0])
    begun = time.monotonic()
    supervisor.spin(duration)
    done = supervisor.report()["ticks"] - ticks
    stretch = (time.monotonic() - begun) / duration
    return done / stretch, (len(recorder.commands(ARM)[0]) - heard) / stretch


def test_half_the_speed_half_the_ticks_and_none_while_it_stands(start):
    supervisor, recorder = start()
    with pytest.raises(OneStrideError, match="use_sim_time: expected the time on /clock within 2 s, heard nothing"):
        supervisor.transition("activate")
    with clock_of(recorder, speed=0.5) as stop:
        supervisor.trigger("onestride_plant/reset")
        supervisor.transition("activate")
        done, heard = count_ticks(supervisor, recorder, 2.0)
        assert done == pytest.approx(RATE / 2 * 2.0, rel=0.15)
        assert heard == pytest.approx(done, rel=0.1)
        report = supervisor.report()
        assert report["mode"] == "active", report["reason"]
        assert [figure for figure in TIMING if report[figure] is not None] == []
        assert report["timing"].startswith("none: the loop keeps simulated time")
        assert "tick_ms_histogram" not in report
        stop()
        supervisor.spin(0.2)
        assert count_ticks(supervisor, recorder, 0.5) == (0, 0)


def test_the_plant_can_be_the_clock_and_it_never_goes_back(start):
    supervisor, recorder = start("--clock")
    heard: list[float] = []

    def hear(message):
        heard.append(message.clock.sec + message.clock.nanosec * 1e-9)

    recorder.node.create_subscription(Clock, "/clock", hear, SENSOR)
    wait_for(lambda: heard, "the plant's time")
    for _ in range(2):
        supervisor.trigger("onestride_plant/reset")
        supervisor.transition("activate")
        done, _ = count_ticks(supervisor, recorder, 1.0)
        assert done == pytest.approx(RATE, rel=0.2)
        supervisor.transition("deactivate")
        assert supervisor.report()["mode"] == "idle"
    assert sorted(heard) == heard


@pytest.mark.parametrize("parameters", [{"teleop": "joy"}, {"simulated": False, "watchdog": "dog"}])
def test_people_and_real_robots_live_in_real_time(session, ground, parameters):
    node = session.controller(ground, use_sim_time=True, **parameters)
    supervisor = session.supervisor(session.plant(ground), node)
    supervisor.wait_for_services()
    with pytest.raises(OneStrideError, match="use_sim_time: expected a simulated run without a person"):
        supervisor.transition("configure")

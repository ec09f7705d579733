"""The control thread without ROS: it never dies silently, and it keeps to its grid."""

from __future__ import annotations

import gc
import time
import weakref
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'onestride[ros]'")

from hypothesis import assume, given
from hypothesis import strategies as st

from onestride.deploy.controller import Controller, Mode
from onestride.deploy.heartbeat import Heartbeat
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.watchdog import LOOKS, Watch, Watchdog
from onestride.hardware.description import load_robot
from onestride.hardware.plant import Plant
from onestride.hardware.scene import Scene
from onestride_controller import report as report_module
from onestride_controller import sweeping
from onestride_controller.control_thread import JITTER, ControlThread, replaced_after
from onestride_controller.messages import JointReader
from onestride_controller.report import Lateness, Rate, Report, Series

ROBOT = load_robot("ur5e_2f85")


class Streams:
    """Streams of a plant in this process that moves as time passes; they fail when told to."""

    def __init__(self, plant):
        self._plant, self.broken, self.slow = plant, None, 0.0
        self._moved = time.monotonic()

    def poll(self):
        time.sleep(self.slow)
        if self.broken:
            raise self.broken
        now, step = time.monotonic(), self._plant.scene.physics_timestep
        count = min(100, int((now - self._moved) / step))
        self._plant.step(count)
        self._moved += count * step
        return now

    def measurement(self):
        return self._plant.read()


class Commands:
    """Keeps what is sent and tells the plant; fails when told to."""

    def __init__(self, plant):
        self._plant, self.sent, self.broken = plant, [], None

    def send(self, command, *, damping=False):
        assert not damping, "an arm's drives cannot be damped"
        if self.broken:
            raise self.broken
        self.sent.append(command)
        self._plant.command(command)


@pytest.fixture
def thread(ground):
    scene = Scene.load(ground.scene)
    policy = PolicyRuntime(ground.policy)
    controller = Controller(
        policy.contract,
        ROBOT,
        ForwardKinematics.load(scene.model_path, ROBOT),
        InlineInference(policy),
        soft_start=0.0,
    )
    plant = Plant(scene, ROBOT)
    streams, commands, report = Streams(plant), Commands(plant), Report()
    controller.activate(time.monotonic(), streams.measurement())
    report.begin(controller.period)
    one = ControlThread(controller, streams, commands, report)
    one.start()
    time.sleep(0.3)
    yield one, controller, streams, commands, report
    one.stop(1.0)


def test_an_exception_becomes_a_fault_and_the_safe_stop_goes_on(thread):
    one, controller, streams, commands, report = thread
    streams.broken = RuntimeError("the middleware broke")
    time.sleep(0.7)
    assert one.running
    assert controller.mode is Mode.FAULT
    assert controller.reason == "control thread: RuntimeError: the middleware broke"
    assert list(report.events)[-1] == (Mode.FAULT, controller.reason)
    count = len(commands.sent)
    time.sleep(0.1)
    assert len(commands.sent) > count, "the safe stop is repeated"
    np.testing.assert_array_equal(commands.sent[-1], commands.sent[-2])
    assert report.summary(Counter())["safe_stop_delay_ms"] < 50


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_report_that_throws_becomes_a_fault(thread, monkeypatch):
    one, controller, _, commands, report = thread
    monkeypatch.setattr(report, "_lateness", None)
    time.sleep(0.7)
    assert one.running
    assert controller.mode is Mode.FAULT
    assert controller.reason.startswith("report: AttributeError: ")
    assert list(report.events)[-1] == (Mode.FAULT, controller.reason)
    np.testing.assert_array_equal(commands.sent[-1], commands.sent[-2])


def test_whoever_awaits_a_tick_returns_right_after_one(thread):
    one, *_, report = thread
    for _ in range(5):
        before = report.ticks
        one.await_tick()
        assert report.ticks > before
    one.stop(1.0)
    began = time.monotonic()
    one.await_tick()  # of a thread that is over
    assert time.monotonic() - began < 1.0


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self):
        self.me = self


@pytest.fixture
def collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("collector")
def test_garbage_is_collected_where_there_is_time_for_it(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(sweeping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    sweeper, knot = sweeping.Sweeper(), weakref.ref(Knot())

    def after(waited, left):
        now[0] = 100.0 + waited
        sweeper.sweep(left)
        return knot() is None

    assert not after(0.4, left=1.0), "too early"
    assert not after(0.6, left=1e-4), "it would not be done by the next tick"
    gc.enable()
    assert not after(0.6, left=1.0), "Python's own collector is at work"
    gc.disable()
    assert after(0.6, left=1.0)


@pytest.mark.usefixtures("collector")
def test_garbage_does_not_wait_for_ever(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(sweeping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    sweeper, knot = sweeping.Sweeper(), weakref.ref(Knot())
    now[0] += sweeping.OVERDUE
    sweeper.sweep(left=0.0)
    assert knot() is None


@given(
    st.floats(0.02, 0.5),
    st.floats(0.001, 0.02),
    st.floats(0, 1),
    st.lists(st.floats(0, 0.05), min_size=LOOKS, max_size=LOOKS),
)
def test_a_tick_waits_for_what_a_watchdog_may_have_said(heartbeat, period, phase, early):
    """Whenever it looks, and a little early at that, it does not take over before ticks count as stalled."""
    assume(heartbeat >= 5 * period)
    watchdog = Watchdog(
        ROBOT.model_copy(update={"detection": ROBOT.detection.model_copy(update={"heartbeat": heartbeat})})
    )
    joints = len(ROBOT.joints)
    watchdog.hear(Heartbeat(True, period, *np.zeros((3, joints))))
    looked = phase * watchdog.look_period  # the first look after the heartbeat
    for share in early:
        if watchdog.look():
            break
        looked += watchdog.look_period * (1 - share)
    assert watchdog.watch is Watch.STOPPING
    assert looked - period >= replaced_after(heartbeat, period) - 1e-9
    assert replaced_after(heartbeat, period) >= JITTER * period


def test_by_default_a_tick_waits_when_it_is_75_ms_late():
    assert replaced_after(0.1, 0.005) == pytest.approx(0.075)


def test_even_a_publisher_that_throws_does_not_end_it(thread):
    one, controller, _, commands, _ = thread
    commands.broken = OSError("no more memory")
    time.sleep(0.1)
    assert one.running
    assert controller.mode is Mode.FAULT
    commands.broken = None
    count = len(commands.sent)
    time.sleep(0.1)
    assert len(commands.sent) > count


def test_late_ticks_are_counted_and_the_grid_stays(thread):
    one, controller, streams, _, report = thread
    before, ticks = report.deadline_misses, report.ticks
    streams.slow = 3.5 * controller.period
    time.sleep(1.0)
    streams.slow = 0.0
    assert one.running
    late = report.ticks - ticks
    assert late == pytest.approx(1.0 / (4 * controller.period), rel=0.3), "one tick every four periods, no burst"
    missed = report.deadline_misses - before
    assert missed > late, "those that passed while a tick ran are counted one by one"


def test_a_stall_misses_every_deadline_that_passes():
    """0.1 s at 500 Hz: the tick's own deadline and the 50 after it, and then a late one and one in time."""
    lateness, period = Lateness(), 0.002
    for late in (0.0, 0.1001, 0.0011, 0.0, 0.0029, 0.0):
        lateness.add(late, period)
    assert (lateness.count, lateness.longest) == (51 + 1 + 2, 52)


class SetBack:
    """A clock that stands still until somebody waits for it, and is set back once to 1 s while they do, or before."""

    slowest = 10.0

    def __init__(self, waits):
        self.time, self._waits = 100.0, waits

    def now(self):
        return self.time

    def sleep_until(self, deadline, since, stopping):
        del since
        time.sleep(1e-3)
        self._waits -= 1
        if self._waits == 0:
            self.time = 1.0
        elif self.time + 1.0 > deadline:
            self.time = max(self.time, deadline)
        else:  # as the real one, for ever
            stopping.wait(10.0)


def test_a_clock_that_is_set_back_is_a_fault_and_the_stop_goes_on(thread, monkeypatch):
    one, controller, streams, commands, _ = thread
    one.stop(1.0)
    controller.deactivate()
    controller.rearm()  # whatever a busy machine has done to it
    clock, still = SetBack(waits=20), streams.measurement()

    def measurement():
        return replace(still, velocity=np.zeros(len(ROBOT.joints)), received=dict.fromkeys(still.received, clock.time))

    monkeypatch.setattr(streams, "poll", clock.now)
    monkeypatch.setattr(streams, "measurement", measurement)
    controller.activate(clock.time, measurement())
    two, before = ControlThread(controller, streams, commands, Report(timed=False), clock=clock), len(commands.sent)
    two.start()
    deadline = time.monotonic() + 5.0
    while len(commands.sent) < before + 60 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert controller.mode is Mode.FAULT
    assert controller.reason.startswith("the clock ran backwards")
    assert len(commands.sent) >= before + 60, "it goes on being sent"
    assert two.stop(1.0)


def test_stopping_brings_it_to_rest(thread):
    one, controller, _, commands, report = thread
    assert one.stop(1.0)
    assert not one.running
    assert controller.mode is Mode.HOLDING
    assert controller.at_rest
    speed = np.abs(np.diff(commands.sent[-2:], axis=0)) / controller.period
    assert speed.max() <= 2 * ROBOT.safe_stop.deceleration * controller.period
    assert (Mode.HOLDING, "") in report.events


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60), st.integers(1, 80))
def test_a_series_is_the_percentiles_of_its_latest_samples(values, last):
    kept = report_module.CAPACITY
    try:
        report_module.CAPACITY = 16
        series = Series()
        for value in values:
            series.add(value)
        found = series.summary(last)
        latest = values[-min(16, last) :]
        assert found["p50"] == pytest.approx(np.percentile(latest, 50), abs=1e-4)
        assert found["p99"] == pytest.approx(np.percentile(latest, 99), abs=1e-4)
        assert found["max"] == pytest.approx(max(values), abs=1e-4)
    finally:
        report_module.CAPACITY = kept


def test_a_rate_leaves_out_pauses():
    rate = Rate()
    for start in (0.0, 100.0):
        for step in range(11):
            rate.add(start + step * 0.01)
        rate.pause()
    assert rate.value == pytest.approx(100.0)
    assert Rate().value is None


@given(st.permutations(range(7)), st.lists(st.floats(-3, 3), min_size=7, max_size=7))
def test_joint_order_does_not_matter(order, position):
    velocity = [2 * value for value in position]
    message = SimpleNamespace(
        name=[ROBOT.joint_names[place] for place in order],
        position=[position[place] for place in order],
        velocity=[velocity[place] for place in order],
        effort=[-velocity[place] for place in order],
    )
    read, moved, pushed = JointReader(ROBOT.joint_names)(message)
    assert read.tolist() == position
    assert moved.tolist() == velocity
    assert pushed is not None
    assert pushed.tolist() == [-value for value in velocity]


@pytest.mark.parametrize("effort", [[], [0.0] * 6, [0.0] * 6 + [float("nan")]])
def test_efforts_that_a_driver_does_not_have_are_none(effort):
    names, zeros = list(ROBOT.joint_names), [0.0] * 7
    message = SimpleNamespace(name=names, position=zeros, velocity=zeros, effort=effort)
    assert JointReader(ROBOT.joint_names)(message)[2] is None


@pytest.mark.parametrize(
    ("names", "values", "words"),
    [
        ([], 0, "empty name"),
        (ROBOT.joint_names[1:], 6, "expected once each: shoulder_pan_joint"),
        ((*ROBOT.joint_names, "elbow_joint"), 8, "expected once each: elbow_joint"),
        (ROBOT.joint_names, 6, "not one position and velocity per name"),
    ],
)
def test_joint_states_that_are_not_taken(names, values, words):
    message = SimpleNamespace(name=list(names), position=[0.0] * values, velocity=[0.0] * values)
    reader = JointReader(ROBOT.joint_names)
    for _ in range(2):
        with pytest.raises(ValueError, match=words):
            reader(message)

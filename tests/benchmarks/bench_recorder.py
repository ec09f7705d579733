"""What recording costs a control loop: 60 features at 500 Hz in one process, and the node's ticks over DDS.

With and without take turns every second, so that whatever else the machine does falls on both. A tick is late when its
thread was not woken in time, busy while it works; the work is the same on both sides. Wanted: no tick delayed by more
than 1 ms by the recorder, at the median and at p99.9. Where other programs or the machine itself stall the loop for
longer, p99.9 is of those stalls: then its interval is wide and `met` is null. `--realtime` keeps other programs out.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from onestride.datasets.journal_reader import Journal
from onestride.datasets.recording import Recorder
from onestride.datasets.schema import Feature, Schema

RATE, FEATURES = 500.0, 60
TURN = 1.0  # [s]
WANTED_MS = 1.0
TICKS_IN_A_TURN = 500
REALTIME = False


class Times:
    """How late each tick was, how long it worked, and how long the recording part of that took [s]."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.busy: list[float] = []
        self.recording: list[float] = []

    def summary(self) -> dict[str, Any]:
        """Each in milliseconds."""
        done = np.array(self.late) + np.array(self.busy)
        return {
            "ticks": len(self.late),
            "late_ms": spread(self.late),
            "busy_ms": spread(self.busy),
            "done_after_deadline_ms": spread(done),
            "worst_of_a_second_ms": self._worst_of_a_second(done),
            "late_over_1_ms": int(np.sum(np.array(self.late) * 1e3 > WANTED_MS)),
            "recording_ms": spread(self.recording),
        }

    def _worst_of_a_second(self, done: Any) -> float:
        """The median, over the turns, of the slowest tick of a turn: what a second is like when nothing else runs."""
        return round(float(np.median([turn.max() for turn in turns_of(done)])) * 1e3, 4)


def spread(seconds: Any) -> dict[str, float]:
    """Percentiles in milliseconds."""
    values = np.asarray(seconds) * 1e3
    points = np.percentile(values, [50, 99, 99.9, 100]) if len(values) else np.zeros(4)
    return {name: round(float(point), 4) for name, point in zip(("p50", "p99", "p99.9", "max"), points, strict=True)}


def compared(without: Times, recorded: Times) -> dict[str, Any]:
    """Both sides, what recording adds at the median and at p99.9, and whether that is little enough."""
    one, other = without.summary(), recorded.summary()
    added = {
        point: round(other["done_after_deadline_ms"][point] - one["done_after_deadline_ms"][point], 4)
        for point in ("p50", "p99.9")
    }
    added["worst_of_a_second"] = round(other["worst_of_a_second_ms"] - one["worst_of_a_second_ms"], 4)
    low, high = p999_interval(without, recorded)
    long = [seconds for seconds in recorded.recording if seconds * 1e3 > WANTED_MS]
    return {
        "without": one,
        "with": other,
        "added_ms": added,
        "added_p99.9_ms_interval": [low, high],
        "recording_calls_over_1_ms": len(long),
        "met": added["p50"] <= WANTED_MS and verdict(low, high),
    }


def p999_interval(without: Times, recorded: Times, draws: int = 400) -> tuple[float, float]:
    """95 % interval of what recording adds at p99.9, by drawing turns anew: wide where the machine stalls."""
    chance = np.random.default_rng(0)
    sides = [turns_of(np.array(side.late) + np.array(side.busy)) for side in (without, recorded)]

    def drawn(turns: list[Any]) -> float:
        return float(
            np.percentile(np.concatenate([turns[i] for i in chance.integers(0, len(turns), len(turns))]), 99.9)
        )

    found = [(drawn(sides[1]) - drawn(sides[0])) * 1e3 for _ in range(draws)]
    low, high = np.percentile(found, [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)


def verdict(low: float, high: float) -> bool | None:
    """Whether the bound holds; None where the interval leaves it open."""
    if high <= WANTED_MS:
        return True
    return False if low > WANTED_MS else None


def turns_of(done: Any) -> list[Any]:
    """The ticks of each turn, about."""
    return np.array_split(done, max(1, len(done) // TICKS_IN_A_TURN))


# In one process


def flat_schema() -> Schema:
    """Sixty features of one number each, the last of them the action."""
    features = [Feature(name=f"f{index:02d}", role="info", shape=(), dtype="float64") for index in range(FEATURES - 1)]
    return Schema(
        features=(*features, Feature(name="action", role="action", shape=(), dtype="float64")),
        control_rate=RATE,
        label="action",
        label_source="sent",
    )


def control_loop(seconds: float, record: Callable[[int], None]) -> tuple[Times, Times]:
    """Tick at `RATE` on absolute deadlines; every other turn also record."""
    sides = Times(), Times()
    matrix, vector = np.eye(64), np.ones(64)
    start, period = time.monotonic() + 0.1, 1 / RATE
    for index in range(int(2 * seconds * RATE)):
        deadline = start + index * period
        left = deadline - time.monotonic()
        if left > 0:
            time.sleep(left)
        begun = time.monotonic()
        for _ in range(20):
            vector = matrix @ vector
        turn = int(index * period / TURN) % 2
        worked = time.monotonic()
        if turn:
            record(index)
        ended = time.monotonic()
        sides[turn].late.append(begun - deadline)
        sides[turn].busy.append(ended - begun)
        if turn:
            sides[turn].recording.append(ended - worked)
    return sides


def in_process(seconds: float, folder: Path) -> dict[str, Any]:
    """A control loop that records its own rows."""
    schema = flat_schema()
    names = [feature.name for feature in schema.features]
    with Recorder(folder, schema) as recorder:
        recorder.start()
        values = dict.fromkeys(names, 0.0)

        def record(index: int) -> None:
            values["action"] = float(index)
            recorder.step(values)

        found = quietly(lambda: control_loop(seconds, record))
        recorder.stop()
        assert recorder.wait(30)
        status = recorder.status()
    with Journal(recorder.path) as journal:
        (episode,) = journal.episodes
        rows = episode.length
    return {
        "rate_hz": RATE,
        "features": FEATURES,
        **compared(*found),
        "rows": rows,
        "rows_missing": len(found[1].late) - rows,
        "lost_rows": status["lost_rows"]["base"],
        "bytes": status["bytes"],
    }


def realtime() -> bool:
    """Have this thread and those it starts run before all ordinary ones; whether that is permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except (AttributeError, OSError):
        return False
    return True


def quietly(run: Callable[[], Any]) -> Any:
    """Run in a thread of its own, without the garbage collector, as the node does."""
    result: list[Any] = []

    def work() -> None:
        if REALTIME:
            assert realtime(), "this system does not permit SCHED_FIFO"
        result.append(run())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-4)
    gc.collect()
    gc.disable()
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        gc.enable()
        sys.setswitchinterval(interval)
    return result[0]


# Over DDS


class Turns:
    """Watches the control thread's ticks: publishes them in every other turn, and notes the times of both."""

    def __init__(self, ticks: Any) -> None:
        self._ticks, self.sides = ticks, (Times(), Times())
        self._start = time.monotonic()

    def tick(self, tick: Any, now: float, late: float, joints_received: float) -> None:
        """As `Ticks.tick`."""
        turn = int((now - self._start) / TURN) % 2
        side, worked = self.sides[turn], time.monotonic()
        self._ticks._wanted = bool(turn)
        self._ticks.tick(tick, now, late, joints_received)
        ended = time.monotonic()
        side.late.append(late)
        side.busy.append(ended - now)
        if turn:
            side.recording.append(ended - worked)


def over_dds(seconds: float, folder: Path) -> dict[str, Any]:
    """The real control thread at 200 Hz on a simulated robot, its ticks recorded by the real recorder node."""
    from onestride.deploy.confinement import claim_domain, simulated_environment, unique_namespace
    from onestride.deploy.processes import Child

    with claim_domain() as domain, contextlib.ExitStack() as stack:
        namespace, environment = unique_namespace(), simulated_environment(domain)
        arguments = ["--ros-args", "-r", f"__ns:={namespace}", "-p", f"directory:={folder / 'journals'}"]
        stack.enter_context(
            Child("onestride_recorder", arguments, log=folder / "recorder.log", environment=environment)
        )
        supervisor = stack.enter_context(_supervisor(namespace, environment))
        turns, run = stack.enter_context(_control(namespace, environment, folder))
        _until(
            lambda: (
                not {"ticks", "onestride_controller"}
                & set(supervisor.trigger("onestride_recorder/status")["waiting_for"])
            )
        )
        supervisor.trigger("onestride_recorder/start")
        quietly(lambda: run(2 * seconds))
        answer = supervisor.trigger("onestride_recorder/stop", timeout=20.0)
    (path,) = (folder / "journals").glob("*.journal")
    with Journal(path) as journal:
        (episode,) = journal.episodes
        ticks = episode.rows["ticks"]
    published = len(turns.sides[1].late)
    return {
        "rate_hz": 200.0,
        **compared(*turns.sides),
        "rows": ticks,
        "rows_missing": published - ticks,
        "on_disk": answer["on_disk"],
    }


def _supervisor(namespace: str, environment: dict[str, str]) -> Any:
    from onestride_controller.supervisor import Supervisor

    return Supervisor(namespace, environment)


@contextlib.contextmanager
def _control(namespace: str, environment: dict[str, str], folder: Path) -> Iterator[Any]:
    """A control thread in this process: the watcher of its ticks, and what runs it for some seconds."""
    import rclpy
    from rclpy.context import Context
    from rclpy.node import Node
    from ros.tiny_policy import ENVIRONMENT, write_policy

    from onestride.deploy.confinement import environment_applied
    from onestride.deploy.controller import Controller
    from onestride.deploy.kinematics import ForwardKinematics
    from onestride.deploy.runtime import PolicyRuntime, ThreadedInference
    from onestride.deploy.ticks import TickLayout
    from onestride.hardware.description import load_robot
    from onestride.hardware.plant import Plant
    from onestride.training.environments.ogbench_cube import make_cube
    from onestride.training.environments.scenes import export_scene
    from onestride_controller.commands import Commands
    from onestride_controller.control_thread import ControlThread
    from onestride_controller.report import Report
    from onestride_controller.ticks import Ticks

    made = make_cube(ENVIRONMENT)
    scene, robot = export_scene(made, folder / "scene"), load_robot("ur5e_2f85")
    made.close()
    policy, context = PolicyRuntime(write_policy(folder / "policy.onnx")), Context()
    inference = ThreadedInference(policy)
    controller = Controller(policy.contract, robot, ForwardKinematics.load(scene.model_path, robot), inference)
    with environment_applied(environment):
        rclpy.init(context=context)
        node = Node("onestride_controller", namespace=namespace, context=context)
    commands = Commands(node, robot)
    ticks = Ticks(node, TickLayout.of(controller, policy.sha256), always=False)
    streams, turns = _Still(Plant(scene, robot)), Turns(ticks)

    def run(seconds: float) -> None:
        controller.activate(time.monotonic(), streams.measurement(), 0)
        ticks.begin(0)
        thread = ControlThread(controller, streams, commands, Report(), turns)
        thread.start()
        time.sleep(seconds)
        thread.stop(1.0)

    try:
        yield turns, run
    finally:
        inference.close()
        node.destroy_node()
        context.try_shutdown()


class _Still:
    """A robot that stands still, measured anew whenever it is looked at."""

    def __init__(self, plant: Any) -> None:
        self._measurement = plant.read()

    def poll(self) -> float:
        return time.monotonic()

    def measurement(self) -> Any:
        from dataclasses import replace

        now = time.monotonic()
        return replace(self._measurement, received=dict.fromkeys(self._measurement.received, now))


def _until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the recorder never heard of the controller"
        time.sleep(0.1)


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of recording; as long again without")
    parser.add_argument("--no-ros", action="store_true", help="leave the node out")
    parser.add_argument("--realtime", action="store_true", help="control thread under SCHED_FIFO; needs permission")
    arguments = parser.parse_args()
    global REALTIME
    REALTIME = arguments.realtime
    result: dict[str, Any] = {
        "benchmark": "recorder",
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "seconds": arguments.seconds,
        "realtime": arguments.realtime,
        "wanted": {"added_ms": WANTED_MS},
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        result["in_process"] = in_process(arguments.seconds, Path(folder) / "own")
        if not arguments.no_ros:
            result["node"] = over_dds(arguments.seconds, Path(folder))
    result["load_after"] = os.getloadavg()[0]
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

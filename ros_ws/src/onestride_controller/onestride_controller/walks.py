"""Walks of a robot on legs: somebody asks for velocities, for as long as wanted, and the plant says what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from geometry_msgs.msg import Twist
from rclpy.qos import QoSProfile, ReliabilityPolicy

from onestride.hardware.walking import Velocity, command_at
from onestride_controller.simulated import RobotTrials, SimulatedRun, started
from onestride_controller.supervisor import PLANT, POLL_PERIOD, Supervisor

#: How often a velocity is asked for [s]; asked once, it would count for half a second only.
ASKING = 0.05

#: Wall-clock time that a walk may take beyond its simulated time, as a factor and in [s].
SLOWER, LATEST = 3.0, 20.0


@dataclass(frozen=True)
class Course:
    """What is asked.

    Attributes:
        commands: one after the other, each for an equal share of the time; none where somebody else asks.
        seconds: simulated time of a walk [s].
        topic: of the commands, `geometry_msgs/Twist`.
    """

    commands: tuple[Velocity, ...]
    seconds: float
    topic: str = "cmd_vel"

    def at(self, time: float) -> Velocity:
        """What is asked at simulated `time` [s]."""
        return command_at(self.commands, self.seconds, time)


@dataclass(frozen=True)
class WalkResult:
    """What came of a walk.

    Attributes:
        episode: its number on the plant.
        success: upright until the end, without a fault.
        time: simulated time when it ended [s].
        most_tilt: largest lean of the base [rad].
        stretches: of each command, the true mean velocity once it was settled, and its error [m/s] and [rad/s].
        wall: wall-clock time it took, resets and transitions included [s].
        dropped_time: simulated time the plant had to drop in it [s].
        fault: why the node faulted; empty if it did not.
    """

    episode: int
    success: bool
    time: float
    most_tilt: float
    stretches: list[Mapping[str, Any]] = field(default_factory=list)
    wall: float = 0.0
    dropped_time: float = 0.0
    fault: str = ""


class Commander:
    """Asks for velocities from the supervisor's node."""

    def __init__(self, supervisor: Supervisor, course: Course) -> None:
        self._course, self._message = course, Twist()
        if course.commands:
            qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._publisher = supervisor.node.create_publisher(Twist, course.topic, qos)
            supervisor.node.create_timer(ASKING, lambda: self._publisher.publish(self._message))

    def ask(self, time: float) -> None:
        """Ask for what is due at simulated `time` [s], from now on."""
        if self._course.commands:
            message = self._message
            message.linear.x, message.linear.y, message.angular.z = map(float, self._course.at(time))


def run_walks(
    run: SimulatedRun,
    course: Course,
    progress: Callable[[WalkResult], None],
    say: Callable[[str], None],
) -> RobotTrials[WalkResult]:
    """Start plant, watchdog and controller, walk, and stop them again, whatever happens.

    Args:
        run: what to run; its horizon is not looked at.
        course: what is asked in each episode.
        progress: called after each.
        say: told where somebody else may ask.

    Raises:
        OneStrideError: a process died, refused, or did not answer; the message says which and why.
    """
    with started(run) as stage:
        commander, walks = Commander(stage.supervisor, course), list[WalkResult]()
        if not course.commands:
            topic = stage.supervisor.node.resolve_topic_name(course.topic)
            say(f"ask on {topic} (geometry_msgs/Twist) with {stage.setting}")
        for _ in range(run.episodes):
            walks.append(walk(stage.supervisor, commander, course.seconds, record=run.record is not None))
            progress(walks[-1])
        return RobotTrials(walks, stage.supervisor.report(), stage.confined["RMW_IMPLEMENTATION"])


def walk(supervisor: Supervisor, commander: Commander, seconds: float, *, record: bool = False) -> WalkResult:
    """One walk from a standing start; afterwards the robot is damped and lies down.

    A fault ends the walk; it is reported and cleared, so that the next one can begin.

    Args:
        supervisor: drives plant and controller.
        commander: asks.
        seconds: simulated time [s].
        record: have the recorder keep it.

    Raises:
        OneStrideError: the plant, the controller or the recorder does not answer, or refuses.
    """
    begun, supervisor.status = time.monotonic(), {}
    dropped = supervisor.trigger(f"{PLANT}/progress")["dropped_time_s"]
    supervisor.trigger(f"{PLANT}/reset")
    commander.ask(0.0)
    if record:
        supervisor.start_recording()
    supervisor.transition("activate")
    found = _until(supervisor, commander, seconds)
    supervisor.transition("deactivate")
    fault = supervisor.clear_fault()
    success = found["walk"]["upright"] and found["time"] >= seconds and not fault
    if record:
        supervisor.keep_recording(success)
    return WalkResult(
        episode=found["episode"],
        success=success,
        time=found["time"],
        most_tilt=found["walk"]["most_tilt"],
        stretches=found["walk"]["stretches"],
        wall=time.monotonic() - begun,
        dropped_time=found["dropped_time_s"] - dropped,
        fault=fault,
    )


def _until(supervisor: Supervisor, commander: Commander, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + SLOWER * seconds + LATEST
    while True:
        progress = supervisor.trigger(f"{PLANT}/progress")
        faulted = supervisor.status.get("mode") == "fault"
        if progress["time"] >= seconds or faulted or time.monotonic() > deadline:
            return progress
        commander.ask(progress["time"])
        supervisor.check_alive()
        supervisor.spin(POLL_PERIOD)

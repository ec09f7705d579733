"""Episodes with a person at the controls: buttons begin and end them, the recorder keeps them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Joy

from onestride.deploy.teleop.events import Event, Events
from onestride.deploy.teleop.mapping import Mapping
from onestride.hardware.errors import OneStrideError
from onestride_controller.simulated import SimulatedRun, Stage, started
from onestride_controller.supervisor import PLANT, POLL_PERIOD, RECORDER, Supervisor

#: How often a person who is not heard is asked for [s].
REMINDER = 10.0

Say = Callable[[str], None]
Outcome = Literal["success", "end", "discard", "fault", "time", "service"]


@dataclass(frozen=True)
class Demonstration:
    """What came of an episode.

    Attributes:
        episode: its id in the journal.
        outcome: how it ended: by a button, by a fault, by time, or by one of the recorder's services.
        success: marked so, by the person or by the plant's own measure.
        kept: not discarded, complete and on the disk.
        time: simulated [s].
        fault: why the node faulted; empty if it did not.
    """

    episode: str
    outcome: Outcome
    success: bool
    kept: bool
    time: float
    fault: str = ""


class Person:
    """Hears what a person says of episodes, in the supervisor's node."""

    def __init__(self, supervisor: Supervisor, mapping: Mapping, topic: str) -> None:
        self._events, self._said = Events(mapping.episode), deque[Event](maxlen=16)
        qos = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
        supervisor.node.create_subscription(Joy, topic, self._hear, qos)

    def _hear(self, message: Any) -> None:
        self._said.extend(self._events.hear(message.buttons))

    def forget(self) -> None:
        """What was said so far does not count."""
        self._said.clear()

    def said(self) -> list[Event]:
        """What was said since the last question."""
        said, self._said = list(self._said), deque(maxlen=16)
        return said


def run_teleoperated(
    run: SimulatedRun, mapping: Mapping, say: Say, progress: Callable[[Demonstration], None]
) -> dict[str, Any]:
    """Record until `run.episodes` episodes are kept; the controller's own report.

    Args:
        run: what to run; its parameters name the device, and it records.
        mapping: the person's buttons.
        say: told what the person should do next.
        progress: called after each episode.

    Raises:
        OneStrideError: a process died, refused, or did not answer; the message says which and why.
    """
    with started(run) as stage:
        session = _Session(stage, mapping, say)
        session.wait_for_person()
        while len(session.kept) < run.episodes:
            progress(session.episode())
        return stage.supervisor.report()


class _Session:
    """Asks, listens and drives the lifecycle.

    Attributes:
        kept: ids of the episodes that nobody has discarded.
    """

    def __init__(self, stage: Stage, mapping: Mapping, say: Say) -> None:
        self._supervisor, self._buttons, self._say = stage.supervisor, mapping.episode, say
        operator = self._supervisor.report()["operator"]
        topics = ", ".join(sorted(set(operator["topics"].values())))
        say(f"publish on {topics} with {stage.setting}; services of the recorder: {stage.namespace}/{RECORDER}/...")
        self._person = Person(self._supervisor, mapping, operator["topics"]["joy"])
        self.kept: list[str] = []

    def wait_for_person(self) -> None:
        """Until every device is heard and understood."""
        reminded = float("-inf")
        while problem := self._supervisor.report()["operator"]["problem"]:
            if time.monotonic() - reminded > REMINDER:
                self._say(f"waiting for the operator: {problem}")
                reminded = time.monotonic()
            self._supervisor.spin(0.2)

    def episode(self) -> Demonstration:
        """One episode, from the start button on."""
        supervisor, buttons = self._supervisor, self._buttons
        supervisor.trigger(f"{PLANT}/reset")
        self._say(f"episode {len(self.kept) + 1}: button {buttons.start} starts")
        self._wait_for_start()
        self._look_back()
        number = len(self.kept) + 1
        self._say(
            f"episode {number}: running; button {buttons.success} success, {buttons.end} end, "
            f"{buttons.discard} discard; hold the deadman to act"
        )
        supervisor.status = {}
        episode = supervisor.trigger(f"{RECORDER}/start")["episode"]
        supervisor.transition("activate")
        outcome, progress = self._until_ended()
        supervisor.transition("deactivate")
        kept, success = self._keep(outcome, success=outcome == "success" or progress["success"])
        self.kept += [episode] if kept else []
        fault = supervisor.clear_fault()
        return Demonstration(episode, outcome, success, kept, progress["time"], fault)

    def _wait_for_start(self) -> None:
        self._person.forget()
        while "start" not in self._person.said():
            self._supervisor.check_alive()
            self._supervisor.spin(POLL_PERIOD)

    def _look_back(self) -> None:
        """One of the recorder's services may have discarded the last episode since it ended."""
        found = self._supervisor.trigger(f"{RECORDER}/status")
        if found.get("last_discarded") and found["last"] in self.kept:
            self.kept.remove(found["last"])
            self._say(f"episode {found['last']}: discarded after its end")

    def _until_ended(self) -> tuple[Outcome, dict[str, Any]]:
        supervisor = self._supervisor
        self._person.forget()
        while True:
            progress = supervisor.trigger(f"{PLANT}/progress")
            for said in self._person.said():
                if said != "start":
                    return said, progress
            if progress["over"]:
                return ("success" if progress["success"] else "time"), progress
            if supervisor.status.get("mode") == "fault":
                return "fault", progress
            if supervisor.trigger(f"{RECORDER}/status")["recording"] is None:
                return "service", progress
            supervisor.check_alive()
            supervisor.spin(POLL_PERIOD)

    def _keep(self, outcome: Outcome, *, success: bool) -> tuple[bool, bool]:
        """Tell the recorder; whether the episode is kept, and whether it is a success."""
        supervisor = self._supervisor
        if outcome == "discard":
            supervisor.trigger(f"{RECORDER}/discard")
            return False, False
        if outcome != "service":  # else whoever ended it has said the rest
            if success:
                supervisor.trigger(f"{RECORDER}/mark_success")
            with suppress(OneStrideError):  # a service was faster
                supervisor.trigger(f"{RECORDER}/stop", timeout=10.0)
        found = supervisor.trigger(f"{RECORDER}/status")
        if found["last_discarded"]:
            return False, False
        if why := lacking(found):
            self._say(f"episode {found['last']}: not kept: {'; '.join(why)}")
        return not why, found["last_success"]


def lacking(status: dict[str, Any]) -> list[str]:
    """Why the recorder's last episode cannot be counted on, in words; empty if it can."""
    return [*status["last_incomplete"], *([] if status["on_disk"] else ["it is not on the disk"])]

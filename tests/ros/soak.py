"""A soak: a node that is made to fail at random, again and again, and what becomes of it and of its memory."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from std_msgs.msg import Float64MultiArray

from onestride.deploy.processes import Child
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride_controller.supervisor import CONTROLLER, PLANT, WATCHDOG, Supervisor

from .injection import HARMLESS, Case, inject
from .recorder import COMMAND, GRIPPER, Participant

#: The kind of a fault that was provoked and not seen.
UNSEEN = "unseen"

#: What is done to the node and its neighbours, in place of the plant; how long it is stopped, and until it is seen [s].
STALLED, INTRUDED = "stalled node", "second writer"
STALL, LOOKED_AFTER = 0.4, 2.0
NEIGHBOURS = {
    STALLED: Case("", "has taken over, for want of heartbeats|the clock jumped|is stale", lambda _: STALL),
    INTRUDED: Case("", "a second writer of commands: ", lambda _: LOOKED_AFTER),
}

#: How long the node runs before something is done to it [s].
CALM = (0.5, 2.5)

#: What a fault may take to reach this process: the node tells twenty times a second, through DDS and Python [s].
TOLD = 0.15

#: How long a harmless fault lasts, and what is waited for at the most [s].
HARMLESS_FOR, PATIENCE = 0.5, 5.0

#: The first part of a run, in which interpreters and buffers fill: no slope is taken from it [1].
WARM_UP = 1 / 3

#: Spans that slopes are stated for [s].
HALF_AN_HOUR = 1800.0


@dataclass
class Event:
    """A fault, whether provoked or not.

    Attributes:
        at: since the soak's begin [s].
        kind: what was done; empty where nothing was.
        reason: that the node gave; empty where it went on.
        seen_after: how soon this process was told [s].
        within: the declared bound [s].
        during: what was being done when another fault came first.
    """

    at: float
    kind: str
    reason: str = ""
    seen_after: float = 0.0
    within: float = 0.0
    during: str = ""


class Memory:
    """Looks at processes' resident memory once a second, as a context manager.

    Attributes:
        times: of the looks, since the first [s].
        resident: by process [MB].
    """

    def __init__(self, processes: Mapping[str, Child]) -> None:
        self._pids = {name: child.pid for name, child in processes.items()}
        self.times: list[float] = []
        self.resident: dict[str, list[float]] = {name: [] for name in processes}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        begun, page = time.monotonic(), os.sysconf("SC_PAGE_SIZE") / 1e6
        while not self._stopping.wait(1.0):
            self.times.append(time.monotonic() - begun)
            for name, pid in self._pids.items():
                self.resident[name].append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=2.0)

    def summary(self) -> dict[str, dict[str, float]]:
        """Of each process [MB]: first, after the warm-up, last, and the slope since then by least squares."""
        warm = int(len(self.times) * WARM_UP)
        found = {}
        for name, resident in self.resident.items():
            slope, level = np.polyfit(self.times[warm:], resident[warm:], 1)
            scatter = np.std(np.array(resident[warm:]) - slope * np.array(self.times[warm:]) - level)
            ends = {"first": resident[0], "warm": resident[warm], "last": resident[-1]}
            found[name] = {**ends, "slope_per_half_hour": slope * HALF_AN_HOUR, "scatter": float(scatter)}
        return {name: {key: round(float(value), 3) for key, value in one.items()} for name, one in found.items()}


@dataclass
class Soak:
    """A plant, a watchdog and a configured node, and somebody who does things to them.

    Attributes:
        supervisor: drives them.
        children: `node`, `plant` and `watchdog`.
        robot: that they run.
        cases: what is done through the plant.
        environment: what confines the session.
        namespace: of every node.
        seed: of what is done, and when.
    """

    supervisor: Supervisor
    children: Mapping[str, Child]
    robot: RobotDescription
    cases: Mapping[str, Case]
    environment: Mapping[str, str]
    namespace: str
    seed: int = 0
    events: list[Event] = field(default_factory=list)

    def run(self, seconds: float) -> dict[str, Any]:
        """Do things for so long, in rounds that hold each of them once; all figures, as JSON.

        Raises:
            OneStrideError: a process died or did not answer, or a fault did not latch.
        """
        self._begun, rng = time.monotonic(), np.random.default_rng(self.seed)
        names: list[str] = []
        with Memory(self.children) as memory:
            while time.monotonic() < self._begun + seconds:
                names = names or list(rng.permutation([*self.cases, *NEIGHBOURS, *HARMLESS]))
                self._round(names.pop(), float(rng.uniform(*CALM)))
        return {"seconds": round(time.monotonic() - self._begun, 1), **self._figures(), **_memory(memory)}

    def _round(self, name: str, calm: float) -> None:
        """Start, run for a while, do it, see what comes of it, and clear up."""
        self.supervisor.trigger(f"{PLANT}/reset")
        self.supervisor.status = {}
        self.supervisor.transition("activate")
        if reason := self._fault_within(calm):
            self.events.append(Event(self._now, "", reason))
        elif name in HARMLESS:
            self._ignored(name)
        else:
            self._provoked(name)
        self._clear()

    @property
    def _now(self) -> float:
        return round(time.monotonic() - self._begun, 3)

    def _fault_within(self, seconds: float) -> str:
        """Why the node faults, as soon as it does; empty if it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.supervisor.spin(0.02)
            self.supervisor.check_alive()
            if self.supervisor.status.get("mode") == "fault":
                return str(self.supervisor.status["reason"])
        return ""

    def _ignored(self, name: str) -> None:
        inject(self.supervisor, HARMLESS[name])
        reason = self._fault_within(HARMLESS_FOR)
        kind, during = ("", name) if reason else (name, "")
        self.events.append(Event(self._now, kind, reason, during=during))

    def _provoked(self, name: str) -> None:
        case = self.cases.get(name) or NEIGHBOURS[name]
        with ExitStack() as over:
            begun = self._provoke(name, case, over)
            reason = self._fault_within(case.within(self.robot) + PATIENCE)
            seen_after = round(time.monotonic() - begun, 3)
            kind, during = (name, "") if re.search(case.reason, reason) else ("" if reason else UNSEEN, name)
            self.events.append(Event(self._now, kind, reason, seen_after, case.within(self.robot), during))

    def _provoke(self, name: str, case: Case, over: ExitStack) -> float:
        """Do it; when."""
        begun = time.monotonic()
        if name == STALLED:
            os.kill(self.children["node"].pid, signal.SIGSTOP)
            time.sleep(STALL)
            os.kill(self.children["node"].pid, signal.SIGCONT)
        elif name == INTRUDED:
            intruder = over.enter_context(Participant("intruder", self.namespace, self.environment))
            intruder.node.create_publisher(Float64MultiArray, GRIPPER, COMMAND)
        else:
            inject(self.supervisor, case.fault)
            begun = time.monotonic()
        return begun

    def _clear(self) -> None:
        """Mend it; the fault stays until it is rearmed, and then the node can be activated anew."""
        inject(self.supervisor, "")
        faulted = self.supervisor.report()["mode"] == "fault"
        self.supervisor.transition("deactivate")
        if faulted:
            self._refuses_to_start()
        self._rearm_watchdog()
        self.supervisor.trigger(f"{CONTROLLER}/rearm")
        topic = self.supervisor.node.resolve_topic_name(GRIPPER)
        self._until(lambda: len(self.supervisor.node.get_publishers_info_by_topic(topic)) == 2, "two writers")

    def _refuses_to_start(self) -> None:
        try:
            self.supervisor.transition("activate")
        except OneStrideError as error:
            if "a fault is latched" in str(error):
                return
            raise
        raise OneStrideError("expected a latched fault to forbid activation")

    def _rearm_watchdog(self) -> None:
        if self.supervisor.trigger(f"{WATCHDOG}/status")["state"] != "stopping":
            return

        def rearmed() -> bool:
            try:
                self.supervisor.trigger(f"{WATCHDOG}/rearm")
            except OneStrideError:  # it has not heard yet that the node is back
                return False
            return True

        self._until(rearmed, "the watchdog to be rearmed")

    def _until(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise OneStrideError(f"expected {what} within {PATIENCE:g} s")
            self.supervisor.spin(0.1)

    # Figures

    def logged(self) -> list[str]:
        """Reasons of the faults in the node's log, in order."""
        text = self.children["node"].log.read_text(encoding="utf-8", errors="replace")
        return re.findall(r"mode fault: (.*)", text)

    def _figures(self) -> dict[str, Any]:
        report = self.supervisor.report()
        kept = ("ticks", "late_ticks", "longest_run_late", "deadline_misses", "control_rate_hz", "activations")
        figures = {name: report[name] for name in kept}
        kinds = sorted({event.kind for event in self.events if event.kind})
        unprovoked = [event for event in self.events if not event.kind]
        return {
            **figures,
            "faults": {kind: self._kind(kind) for kind in kinds},
            "unprovoked": [asdict(event) for event in unprovoked],
            "logged": len(self.logged()),
            "tracebacks": sum("Traceback" in child.log.read_text(errors="replace") for child in self.children.values()),
            "dropped_time_s": round(self.supervisor.trigger(f"{PLANT}/progress")["dropped_time_s"], 2),
            "events": [(event.at, event.kind) for event in self.events],
        }

    def _kind(self, kind: str) -> dict[str, Any]:
        of_kind = [event for event in self.events if event.kind == kind]
        seen = [event.seen_after for event in of_kind]
        within = max(event.within for event in of_kind)
        late = sum(one > within + TOLD for one in seen)
        return {
            "count": len(of_kind),
            "within_s": round(within, 3),
            "seen_p50_s": round(float(np.median(seen)), 3),
            "seen_max_s": round(max(seen), 3),
            "later": late,
        }


def _memory(memory: Memory) -> dict[str, Any]:
    every = max(1, len(memory.times) // 360)
    curve = {name: [round(value, 2) for value in values[::every]] for name, values in memory.resident.items()}
    return {"memory_mb": memory.summary(), "curve": {"times": [round(t) for t in memory.times[::every]], **curve}}

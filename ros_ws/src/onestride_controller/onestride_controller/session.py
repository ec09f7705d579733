"""What exists between configure and cleanup: a verified policy on a robot, its topics and its control thread."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from rclpy.node import Node

from onestride.deploy.controller import Mode
from onestride.deploy.diagnostics import Glance
from onestride.deploy.gate import slowed
from onestride.deploy.kinematic_model import needs_solids
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.guards import FreshStreams
from onestride.deploy.sources import COMMAND
from onestride.deploy.ticks import TickLayout
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.realtime import Realtime
from onestride.hardware.scene import Scene
from onestride_controller.clocks import SimulatedClock, WallClock
from onestride_controller.commands import Commands
from onestride_controller.control_thread import ControlThread, Source
from onestride_controller.guardian import Guardian
from onestride_controller.leash import Leash, permitted
from onestride_controller.neighbours import Neighbours, rivals
from onestride_controller.operators import Attended, OperatorTopics
from onestride_controller.parameters import Settings
from onestride_controller.pilots import load_pilot
from onestride_controller.report import RECENT, Report
from onestride_controller.streams import Streams
from onestride_controller.ticks import Ticks
from onestride_controller.unsent import Unsent

#: How long activation waits for the first sample of every stream [s].
FIRST_SAMPLES = 2.0

#: Slack for the scheduler on top of the declared time of a safe stop [s].
STOP_SLACK = 0.2

#: Said of a stop that did not end as declared.
UNFINISHED = "the robot did not come to rest within its declared time"


class Session:
    """A policy verified against a robot, connected to its topics.

    Args:
        node: owns publishers and subscriptions.
        settings: the node's parameters.
        report: takes the figures.
        born: when the node joined the graph, on the monotonic clock [s].

    Raises:
        OneStrideError: the policy, the robot, the scene, the confinement or a neighbour is refused.
    """

    def __init__(self, node: Node, settings: Settings, report: Report, born: float) -> None:
        _confined(settings)
        self._node, self._born, self._report = node, born, report
        self._thread: ControlThread | None = None
        self._orderly = True  # nothing was sent yet, or the last that was sent came to rest
        with ExitStack() as opened:  # whatever is refused, nothing stays
            self._open(settings, opened)
            self._opened = opened.pop_all()

    def _open(self, settings: Settings, opened: ExitStack) -> None:
        node, report, born = self._node, self._report, self._born
        robot = load_robot(settings.robot)
        forward = ForwardKinematics.load(Scene.load(settings.scene).model_path, robot, solids=needs_solids(robot))
        self.realtime = Realtime(settings.realtime_priority, settings.cpu_affinity)
        self._pilot = load_pilot(settings, forward, report, self.realtime)
        opened.callback(self._pilot.inference.close)
        permit = permitted(settings, robot.id, self._pilot.sha256)
        options: dict[str, Any] = {"soft_start": settings.soft_start, "chunk_blend": settings.chunk_blend}
        if permit is not None:
            options["chain"] = build_chain(self._pilot.contract, slowed(robot, permit.speed), forward)
        self.controller = self._pilot.controller(robot, forward, **options)
        writers = (*settings.declared_writers, *filter(None, [settings.watchdog]))
        self._neighbours = Neighbours(node, robot, settings.declared_peers, writers)
        if not settings.dry_run:
            self._neighbours.refuse_foreign(born, ours=0)
        self._clock = SimulatedClock(node) if settings.use_sim_time else WallClock()
        if isinstance(self._clock, SimulatedClock):
            opened.callback(self._clock.close)
        topics = {COMMAND.name: settings.cmd_vel_topic}
        self._streams = Streams(node, robot, self._pilot.contract.streams, topics, self._clock.now)
        opened.callback(self._streams.close)
        self._source: Source = self._streams
        self._person: OperatorTopics | None = None
        if self._pilot.operator is not None:
            self._person = OperatorTopics(node, self._pilot.operator, settings.teleop_topic, settings.teleop_buttons)
            opened.callback(self._person.close)
            self._source = Attended(self._streams, self._person)
        self._leash: Leash | None = None
        if permit is not None:
            self._source = self._leash = Leash(
                node, self._source, permit, self.controller.hold, self._pilot.contract.velocity_command
            )
            opened.callback(self._leash.close)
        self._commands: Commands | Unsent = Unsent(robot) if settings.dry_run else Commands(node, robot)
        opened.callback(self._commands.close)
        pilot = self._pilot
        layout = TickLayout.of(
            self.controller,
            pilot.sha256,
            pilot.device,
            nfe=pilot.nfe,
            runtime=pilot.runtime,
            varied=_varied(settings),
            topics={name: node.resolve_topic_name(topic) for name, topic in topics.items()},
        )
        self._ticks = Ticks(node, layout, always=settings.publish_ticks, clock=self._clock.now)
        opened.callback(self._ticks.close)
        self._guardian: Guardian | None = None
        if settings.watchdog and not settings.dry_run:  # what is not sent needs no stop
            self._guardian = Guardian(node, robot, self.controller.period, settings.watchdog)
            opened.callback(self._guardian.close)
        self.realtime.lock_memory()
        self._stop_within = robot.safe_stop.completes_within + STOP_SLACK

    @property
    def policy(self) -> str:
        """Who acts, in words."""
        return str(self._pilot)

    @property
    def running(self) -> bool:
        """Whether the control thread ticks."""
        return self._thread is not None and self._thread.running

    @property
    def fault(self) -> str:
        """Why a fault is latched; empty if none is."""
        return self.controller.reason if self.controller.mode is Mode.FAULT else ""

    def activate(self, seed: int) -> None:
        """Begin from the measured pose, as soon as every stream has a sample.

        Raises:
            OneStrideError: a stream gives nothing, a stranger is on the command topics, nobody watches, or the
                measured state is refused.
        """
        if self._guardian is not None:
            self._guardian.begin()
        if isinstance(self._commands, Unsent):
            self._commands.begin()
        else:
            self._neighbours.refuse_foreign(self._born, ours=1)
            self._neighbours.recognise()
        if self._leash is not None:
            self._leash.begin()
        if isinstance(self._clock, SimulatedClock):
            self._clock.begin()
        now = self._first_samples()
        self._refuse_nonsense(now)
        self.controller.activate(now, self._streams.measurement(), seed)
        self._report.begin(self.controller.period)
        self._report.changed(Mode.ACTIVE)
        self._ticks.begin(seed)
        self._thread = ControlThread(
            self.controller,
            self._source,
            self._commands,
            self._report,
            self._ticks,
            self._guardian,
            self.realtime,
            self._clock,
        )
        self._orderly = False
        self.realtime.attend()
        self._thread.start()

    def _first_samples(self) -> float:
        self._streams.forget()
        deadline = time.monotonic() + FIRST_SAMPLES
        while True:
            now = self._streams.poll()
            if not self._streams.missing:
                return now
            if time.monotonic() > deadline:
                missing = ", ".join(self._streams.missing)
                raise OneStrideError(f"no sample within {FIRST_SAMPLES:g} s from: {missing}")
            time.sleep(0.002)

    def _refuse_nonsense(self, now: float) -> None:
        """Whoever is not heard yet will be; whoever is not understood must mend something."""
        if self._person is None or self._pilot.operator is None:
            return
        if found := rivals(self._node, self._person.topics.values()):
            raise OneStrideError(f"expected one person at the controls, but {'; '.join(found)}; end all but one")
        self._person.forget_stamps()
        self._person.poll(now)
        if self._pilot.operator.misunderstood:
            raise OneStrideError(f"the operator is not understood: {self._pilot.operator.misunderstood}")

    def deactivate(self) -> bool:
        """Bring the robot to rest and stop ticking; whether it came to rest in time."""
        at_rest = True
        if self._thread is not None:
            # A thread that died brings nothing to rest; its fault may have been rearmed since, which demands rest.
            rearmed = not self.running and self.controller.mode is Mode.IDLE
            at_rest, self._thread = self._thread.stop(self._stop_within) or rearmed, None
            self.realtime.stand_back()
            self._orderly = at_rest
            if not at_rest:
                self.controller.fault(UNFINISHED)
            elif self._guardian is not None:  # otherwise the watchdog has to do it
                self._guardian.farewell()
        self.controller.deactivate()
        self._report.absorb(self.controller.chain.counters)
        if self.controller.mode is Mode.IDLE:
            self._report.changed(Mode.IDLE)
        return at_rest

    def rearm(self) -> None:
        """Clear a latched fault.

        Raises:
            OneStrideError: the safe stop has not come to rest yet, or ended without.
        """
        if self._thread is not None and self.running:
            if not self.controller.at_rest:
                raise OneStrideError("cannot rearm: the robot is still being brought to rest")
            self._thread.post(self.controller.rearm)
        else:
            if not self._settled:
                raise OneStrideError(f"cannot rearm: {UNFINISHED}; once it stands, clean up, then rearm")
            self.controller.rearm()
            self._report.changed(Mode.IDLE)

    def await_tick(self) -> None:
        """Return right after a tick, if there are any: what takes the interpreter for long then delays none."""
        if self._thread is not None and self.running:
            self._thread.await_tick()

    def watch(self) -> None:
        """Fault if a second writer or person has appeared, or the control thread died; see who wants its ticks."""
        self.await_tick()
        self._ticks.look()
        self._say_idle()
        if self._thread is None or self.controller.mode not in (Mode.ACTIVE, Mode.HOLDING):
            return
        if not self.running:
            self.controller.fault("the control thread has died")
            self._report.changed(self.controller.mode, self.controller.reason)
            return
        writers = [] if isinstance(self._commands, Unsent) else self._neighbours.second_writers(ours=1)
        if writers:
            self._thread.fault(f"a second writer of commands: {'; '.join(writers)}")
        people = [] if self._person is None else rivals(self._node, self._person.topics.values())
        if people:
            self._thread.fault(f"a second person at the controls: {'; '.join(people)}")

    def _say_idle(self) -> None:
        """Tell the watchdog that nothing is sent; where the robot was not brought to rest, only once it does that."""
        if self._guardian is None or self.running:
            return
        if self._settled:
            self._guardian.idle()

    @property
    def _settled(self) -> bool:
        """Whether nothing that this node sent still moves the robot: it came to rest, or the watchdog sees to it."""
        return self._orderly or (self._guardian is not None and self._guardian.taken_over())

    def summary(self) -> dict[str, Any]:
        """What the streams delivered."""
        pilot = self._pilot
        found: dict[str, Any] = {"policy_sha256": pilot.sha256, "nfe": pilot.nfe, "streams": self._streams.counts()}
        found["realtime"] = dict(self.realtime.granted)
        if pilot.adaptive is not None:
            found["adaptive_nfe"] = pilot.adaptive.summary()
        if isinstance(self._commands, Unsent):
            found["unsent"] = self._commands.summary()
        if self._leash is not None:
            found["deadman"] = self._leash.released
        if self._person is None:
            return found
        now = time.monotonic()
        if not self.running:  # otherwise the control thread does
            self._person.poll(now)
        return {**found, "operator": self._person.summary(now)}

    def glance(self, status: dict[str, Any]) -> Glance:
        """Its state at a moment, with what it says of itself."""
        now = self._clock.now() if self.running else self._streams.poll()  # otherwise the control thread looks
        fresh = next((one for one in self.controller.chain.filters if isinstance(one, FreshStreams)), None)
        bounds = {} if fresh is None else fresh.bounds
        refused = tuple(self.realtime.refused)
        return Glance(now, status, self._streams.ages(now), bounds, self.controller.period, refused)

    @property
    def counters(self) -> Counter[str]:
        """The filters' counters of the running activation."""
        return Counter(self.controller.chain.counters)

    def close(self) -> None:
        """Free the threads and the topics."""
        with self._opened:
            self.deactivate()


def status(session: Session | None, report: Report, latched: str, *, recent: bool) -> dict[str, Any]:
    """What the node says of itself, as JSON.

    Args:
        session: None while unconfigured.
        report: its figures.
        latched: reason of a fault that outlived its session.
        recent: percentiles look back on the last ticks only.
    """
    mode, reason, running = Mode.IDLE, "", Counter[str]()
    found: dict[str, Any] = {}
    if session is not None:
        controller = session.controller
        mode, reason, running, found = controller.mode, controller.reason, session.counters, session.summary()
    if latched:
        mode, reason = Mode.FAULT, latched
    figures = report.summary(running, RECENT) if recent else report.summary(running)
    if not recent and report.timed:
        figures["tick_ms_histogram"] = report.tick_ms.histogram()
    return {"mode": mode.value, "reason": reason, **figures, **found}


def _varied(settings: Settings) -> str:
    """Parameters by which the time that an inference takes decides over actions."""
    varied = {"chunk_blend": settings.chunk_blend, "adaptive_nfe": settings.adaptive_nfe}
    return ", ".join(name for name, value in varied.items() if value)


def _confined(settings: Settings) -> None:
    if settings.use_sim_time and (settings.teleop or not settings.simulated):
        raise OneStrideError("use_sim_time: expected a simulated run without a person; they live in real time")
    if not settings.simulated:
        if not settings.watchdog and not settings.dry_run:
            raise OneStrideError("watchdog: expected the node that stops a real robot when this one dies, got none")
        return
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if reach.upper() not in ("LOCALHOST", "OFF") and os.environ.get("ROS_LOCALHOST_ONLY") != "1":
        raise OneStrideError(
            "a simulated run stays on this machine: expected ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "
            f"(Humble: ROS_LOCALHOST_ONLY=1), got {reach or 'nothing'}"
        )

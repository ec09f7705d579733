"""Measures a robot's delays: moves one joint a little through the safety chain, and listens to what comes back."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from onestride.deploy.confinement import (
    claim_domain,
    environment_applied,
    simulated_environment,
    unique_namespace,
)
from onestride.deploy.controller import Controller, Mode, Tick
from onestride.deploy.gate import remapping_arguments, slowed
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.latency import Excitation, calibration_contract, default_joint, delays_of, home_side
from onestride.deploy.processes import Child
from onestride.deploy.safety.build import build_chain
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.latency import Latency
from onestride.hardware.scene import Scene
from onestride.hardware.state import Array
from onestride_controller.commands import Commands
from onestride_controller.control_thread import ControlThread, Source
from onestride_controller.guardian import Guardian
from onestride_controller.leash import Leash
from onestride_controller.listening import Ear
from onestride_controller.neighbours import Neighbours
from onestride_controller.parameters import READERS
from onestride_controller.real import Ask, Passed, Say, Terms, ending, pass_gate
from onestride_controller.report import Report
from onestride_controller.simulated import ros_arguments
from onestride_controller.streams import JOINTS, Streams
from onestride_controller.supervisor import PLANT, WATCHDOG, Supervisor

NODE_NAME = "onestride_calibration"

#: How long to wait for the robot's first joint state [s].
FIRST_SAMPLES = 10.0

#: How often the joint states are drained while the joint moves, and how often somebody looks who else commands [s].
DRAIN, WATCH = 0.02, 0.5


@dataclass(frozen=True)
class Calibration:
    """What to measure.

    Attributes:
        robot: robot description, by id or file.
        scene: folder of a scene with its model.
        logs: folder for the plant's log.
        joint: which moves; None takes the last one with a speed limit.
        amplitude: how far [rad].
        seconds: how long it goes to and fro before it goes home [s].
        plant: further arguments of the plant, such as its latency.
    """

    robot: str
    scene: Path
    logs: Path
    joint: str | None = None
    amplitude: float = 0.02
    seconds: float = 10.0
    plant: tuple[str, ...] = ()


def calibrate(wanted: Calibration) -> Latency:
    """Start a plant, move a joint of it, and measure.

    Raises:
        OneStrideError: the robot, the joint or the amplitude is refused, the controller faults, or the joint does not
            follow.
    """
    robot, joint = _asked(wanted)
    with ExitStack() as stack:
        namespace = unique_namespace()
        confined = simulated_environment(stack.enter_context(claim_domain()))
        arguments = ["--scene", str(wanted.scene), "--robot", wanted.robot, *wanted.plant]
        log = wanted.logs / "plant.log"
        log.unlink(missing_ok=True)
        plant = Child("onestride_plant", [*arguments, *ros_arguments(namespace, {})], log=log, environment=confined)
        stack.enter_context(plant)
        supervisor = stack.enter_context(Supervisor(namespace, confined, plant.check))
        supervisor.trigger(f"{PLANT}/reset", timeout=20.0)
        node = stack.enter_context(_node(namespace, confined, {}))
        return _measure(node, robot, joint, wanted, plant)


def calibrate_real(wanted: Calibration, terms: Terms, say: Say, ask: Ask) -> Latency:
    """The same of a real robot, behind the gate that every real run passes.

    Raises:
        OneStrideError: as `calibrate`, and where the gate is not passed or the deadman is let go.
    """
    robot, joint = _asked(wanted)
    default = robot.joints[robot.indices((joint,))[0]].default
    contract = calibration_contract(robot, joint, default, wanted.amplitude)
    say(f"{joint} will go {wanted.amplitude:g} rad to and fro for {wanted.seconds:g} s")
    passed = pass_gate(terms, robot, contract, "none: a calibration", lambda _: (), say, ask)
    with ExitStack() as stack:
        arguments = ros_arguments(terms.namespace, {"robot": wanted.robot, "controller": NODE_NAME})
        arguments += remapping_arguments(passed.driven.remappings)
        watchdog = stack.enter_context(
            Child(WATCHDOG, arguments, log=wanted.logs / "watchdog.log", patience=ending(robot))
        )
        node = stack.enter_context(_node(terms.namespace, {}, passed.driven.remappings))
        return _measure(node, robot, joint, wanted, watchdog, passed)


def _asked(wanted: Calibration) -> tuple[RobotDescription, str]:
    """The robot and the joint; refused before anything is started."""
    robot = load_robot(wanted.robot)
    joint = wanted.joint or default_joint(robot)
    calibration_contract(robot, joint, robot.joints[robot.indices((joint,))[0]].default, wanted.amplitude)
    return robot, joint


@contextmanager
def _node(namespace: str, environment: dict[str, str], remappings: Mapping[str, str]) -> Iterator[Node]:
    context, arguments = Context(), remapping_arguments(remappings)
    with environment_applied(environment):
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        given = ["--ros-args", *arguments] if arguments else None
        node = Node(NODE_NAME, namespace=namespace or None, context=context, cli_args=given)
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-4)  # the control thread must not wait for this one
    try:
        yield node
    finally:
        sys.setswitchinterval(before)
        node.destroy_node()
        context.try_shutdown()


def _measure(
    node: Node, robot: RobotDescription, joint: str, wanted: Calibration, beside: Child, passed: Passed | None = None
) -> Latency:
    """Move the joint and measure; `beside` must stay alive, and with a passed gate a watchdog and a person watch."""
    readers, writers = (READERS, ()) if passed is None else (passed.readers, (WATCHDOG,))
    neighbours, born = Neighbours(node, robot, readers, writers), time.monotonic()
    neighbours.refuse_foreign(born, ours=0)
    streams = Streams(node, robot, ())
    _wait_for_samples(streams)
    start = float(streams.measurement().position[robot.indices((joint,))[0]])
    contract = calibration_contract(robot, joint, start, wanted.amplitude)
    excitation = Excitation(wanted.seconds, home_side(robot, joint, start))
    forward = ForwardKinematics.load(Scene.load(wanted.scene).model_path, robot)
    slower = robot if passed is None else slowed(robot, passed.permit.speed)
    controller = Controller(contract, robot, forward, excitation, chain=build_chain(contract, slower, forward))
    source, guard = _watched(node, controller, streams, passed)
    commands, trace = Commands(node, robot), Trace(node, robot, joint, streams)
    neighbours.refuse_foreign(born, ours=1)
    neighbours.recognise()
    controller.activate(streams.poll(), streams.measurement())  # anew: a person took their time
    thread = ControlThread(controller, source, commands, Report(), trace, guard)
    thread.start()
    try:
        _until_home(thread, controller, excitation, trace, beside, neighbours)
    finally:
        at_rest = thread.stop(robot.safe_stop.completes_within + 0.2)
        if at_rest and guard is not None:  # otherwise the watchdog has to do it
            guard.farewell()
        trace.drain()
    if not excitation.done:
        released = source.released if isinstance(source, Leash) else ""
        raise OneStrideError(f"ended early: {controller.reason or released or controller.mode.value}")
    return trace.latency(wanted.amplitude, 1.0 / controller.period, simulated=passed is None)


def _until_home(
    thread: ControlThread,
    controller: Controller,
    excitation: Excitation,
    trace: Trace,
    beside: Child,
    neighbours: Neighbours,
) -> None:
    """Until the joint is back where it stood, or something ends the motion: a second writer of commands, too."""
    look = time.monotonic()
    while controller.mode is Mode.ACTIVE and thread.running and not excitation.done:
        beside.check()
        trace.drain()
        if time.monotonic() >= look:
            look = time.monotonic() + WATCH
            thread.await_tick()
            if writers := neighbours.second_writers(ours=1):
                thread.fault(f"a second writer of commands: {'; '.join(writers)}")
        time.sleep(DRAIN)


def _watched(
    node: Node, controller: Controller, streams: Streams, passed: Passed | None
) -> tuple[Source, Guardian | None]:
    """Who may hold the controller back: nobody for a plant, a deadman and a watchdog for a real robot."""
    if passed is None:
        return streams, None
    leash, guard = (
        Leash(node, streams, passed.permit, controller.hold),
        Guardian(node, controller.robot, controller.period, WATCHDOG),
    )
    guard.begin()
    leash.begin()
    return leash, guard


def _wait_for_samples(streams: Streams) -> None:
    deadline = time.monotonic() + FIRST_SAMPLES
    streams.forget()
    while streams.missing:
        if time.monotonic() > deadline:
            raise OneStrideError(f"no sample within {FIRST_SAMPLES:g} s from: {', '.join(streams.missing)}")
        time.sleep(0.01)
        streams.poll()


class Trace:
    """What was sent and what was measured of one joint; told of every tick by the control thread."""

    def __init__(self, node: Node, robot: RobotDescription, joint: str, streams: Streams) -> None:
        self._joint, self._index = joint, robot.indices((joint,))[0]
        self._ear = Ear(node, JOINTS, streams.all[JOINTS], keep=True)
        self._sent: list[tuple[float, float, float]] = []
        """When a command was sent, the joint's target, and how old the joint state was that it was made from."""

    def tick(self, tick: Tick, now: float, late: float, joints_received: float) -> None:
        """One tick that has sent its command."""
        del now, late
        if tick.command is not None and tick.mode is Mode.ACTIVE:
            sent = time.monotonic()
            self._sent.append((sent, float(tick.command[self._index]), sent - joints_received))

    def drain(self) -> None:
        """Note the joint states that have come."""
        self._ear.drain()

    def latency(self, amplitude: float, rate: float, *, simulated: bool) -> Latency:
        """The delays.

        Raises:
            OneStrideError: the joint does not follow, or too little was heard.
        """
        heard = self._ear.heard(required=True)
        sent = np.array(self._sent).reshape(-1, 3)
        if not len(sent) or not len(heard.arrivals):
            raise OneStrideError(f"expected commands and joint states, got {len(sent)} and {len(heard.arrivals)}")
        steps = delays_of(sent[:, 0], sent[:, 1], heard.arrivals, self._positions())
        ages = sent[:, 2] + float(heard.ages.min())  # how long the quickest was under way; the rest is in theirs
        return Latency(
            sensor_to_command=max(0.0, float(np.median(ages))),
            sensor_to_command_p99=max(0.0, float(np.percentile(ages, 99))),
            command_to_motion=steps.median,
            command_to_motion_spread=steps.spread,
            drive_lag=steps.lag,
            explained=steps.explained,
            joint=self._joint,
            amplitude=amplitude,
            control_rate=rate,
            simulated=simulated,
            measured=datetime.now(timezone.utc).replace(microsecond=0),
        )

    def _positions(self) -> Array:
        place = list(self._ear.kept[0].name).index(self._joint)
        return np.array([message.position[place] for message in self._ear.kept])

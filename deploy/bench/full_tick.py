"""The control tick of the real controller, in closed loop with a plant, stage by stage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onestride.deploy.bench.report import TICK_STAGES, FullTick
from onestride.deploy.bench.series import Stopwatch, figures, paced
from onestride.deploy.contract import Contract
from onestride.deploy.controller import Controller, Mode
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant
from onestride.hardware.scene import Scene, load_starts
from onestride.hardware.state import Array, Measurement

Send = Callable[[Array], None]

WARM_UP = 50


@dataclass(frozen=True)
class Cell:
    """The robot that a control tick is measured on.

    Attributes:
        robot: the robot found.
        scene: its plant.
        send: takes the joint targets of every tick; None keeps them in memory.
    """

    robot: RobotDescription
    scene: Scene
    send: Send | None = None


def measure_ticks(policy: PolicyRuntime, cell: Cell, seconds: float, rate: float | None = None) -> FullTick:
    """Run controller and plant in turns, on the control rate's deadlines.

    Inference runs within the tick that asks for it, so that a tick is all that a command waits for. Reading the
    robot's topics is not part of it: the node reports that itself.

    Args:
        policy: asked when a chunk is due.
        cell: robot, plant and sink.
        seconds: how long [s].
        rate: of the deadlines [Hz]; default the contract's control rate. The plant's time goes by the contract's.

    Raises:
        OneStrideError: the policy does not fit the robot, or the controller refuses to activate.
    """
    loop = _Loop(policy, cell)
    rate = rate or 1.0 / loop.controller.period
    turns = max(1, round(rate * seconds))
    watch = Stopwatch(TICK_STAGES, max(turns, WARM_UP))
    loop.watched_by(watch)
    for index in range(WARM_UP):
        watch.begin(index)
        loop.tick(index)
        loop.world(index)
    watch.clear(turns)
    loop.faults.clear()
    series = paced(loop.tick, watch, turns, rate, between=loop.world)
    inferring = watch.durations("tick", when="infer")
    if not len(inferring):
        raise OneStrideError(f"no inference was due within {seconds:g} s: expected more --seconds")
    return FullTick(
        robot=cell.robot.id,
        scene=cell.scene.description.environment,
        sink="memory" if cell.send is None else "dds",
        n_inferences=len(inferring),
        inferring=figures(inferring),
        paced=series,
        faults=dict(loop.faults),
    )


class _Loop:
    """A controller and the plant that it drives, turn by turn; simulated time goes by the controller's period."""

    def __init__(self, policy: PolicyRuntime, cell: Cell) -> None:
        contract, robot, scene = policy.contract, cell.robot, cell.scene
        forward = ForwardKinematics.load(scene.model_path, robot)
        self.controller = Controller(contract, robot, forward, InlineInference(policy))
        self.faults: Counter[str] = Counter()
        self._policy, self._plant = policy, Plant(scene, robot)
        self._sent = np.zeros(len(robot.joints))
        self._send = cell.send or self._keep
        self._starts = load_starts(scene.starts_path)[1] if scene.starts_path else [self._plant.state]
        self._command = _command_of(contract)
        self._ticks = self._steps = self._episodes = 0
        self._faulted = False
        self._measurement = self._begin()

    def watched_by(self, watch: Stopwatch) -> None:
        """Have every stage of a tick timed from now on."""
        self._watch = watch
        watch.watch("observe", self.controller.observer, "build")
        for stage, method in (("copy_in", "copy_in"), ("infer", "evaluate"), ("copy_out", "copy_out")):
            watch.watch(stage, self._policy, method)
        for method in ("observe", "certify", "sent"):
            watch.watch("filters", self.controller.chain, method)

    def tick(self, index: int) -> None:
        """One control tick: what is timed."""
        del index
        start = time.perf_counter_ns()
        self._last = self.controller.tick(self._now, self._measurement)
        decided = time.perf_counter_ns()
        if self._last.command is not None:
            self._send(self._last.command)
        ended = time.perf_counter_ns()
        self._watch.add("publish", ended - decided)
        self._watch.add("tick", ended - start)
        self._watch.remainder("rest", "tick")

    def world(self, index: int) -> None:
        """What the robot makes of it until the next tick."""
        del index
        if self._last.damping:
            self._plant.damp()
        elif self._last.command is not None:
            self._plant.command(self._last.command)
        self._ticks += 1
        due = round(self._ticks * self.controller.period / self._plant.scene.physics_timestep)
        self._plant.step(due - self._steps)
        self._steps = due
        self._measurement = self._read(self._plant.read())
        faulted = self.controller.mode is Mode.FAULT
        if faulted and not self._faulted:
            self.faults[self.controller.reason] += 1
        self._faulted = faulted
        if self.controller.at_rest or (self._plant.progress.over and not faulted):
            self._measurement = self._begin()

    def _begin(self) -> Measurement:
        """From the next start; a latched fault is cleared once the robot rests, as a person would."""
        self._faulted = False
        self.controller.deactivate()
        self.controller.rearm()
        measurement = self._read(self._plant.reset(self._starts[self._episodes % len(self._starts)]))
        self.controller.activate(self._now, measurement, self._episodes)
        self._episodes += 1
        return measurement

    @property
    def _now(self) -> float:
        return self._ticks * self.controller.period

    def _read(self, measurement: Measurement) -> Measurement:
        """The measurement as received now, with the velocity that a person would ask for."""
        vectors = {**self._command, **measurement.vectors}
        received = dict.fromkeys((*measurement.received, *self._command), self._now)
        return replace(measurement, received=received, vectors=vectors)

    def _keep(self, command: Array) -> None:
        self._sent[:] = command


def _command_of(contract: Contract) -> dict[str, Array]:
    """Half of the velocity that the policy may be asked for, if it can be asked for any."""
    sources = (term.source for term in contract.observations)
    limits = [np.array(source.high) for source in sources if source.kind == "velocity_command"]
    return {"velocity_command": limits[0] / 2} if limits else {}

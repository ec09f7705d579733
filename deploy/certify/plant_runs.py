"""The closed loop on the simulated plant: the policy as it is, with noise on what it sees, and an adversary instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from onestride.deploy.certify.attacks import Target, outward
from onestride.deploy.certify.report import Played
from onestride.deploy.certify.trace import Judge, Trace
from onestride.deploy.controller import Controller, Inference, Tick
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import InlineInference, PolicyRuntime, Prediction
from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.types import Certified, ControlState
from onestride.deploy.simulation import simulate_episode
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant, Progress
from onestride.hardware.scene import Scene, load_starts
from onestride.hardware.state import Array, Measurement

POLICY, NOISY, OUTWARD = "policy", "noisy observation", "outward at full speed"


class NoisyInference:
    """Asks a policy about observations with Gaussian noise on them."""

    def __init__(self, inner: Inference, deviation: Array, rng: np.random.Generator) -> None:
        self._inner, self._deviation, self._rng = inner, deviation, rng

    def request(self, observation: Array, at: int) -> None:
        """Ask for a chunk."""
        self._inner.request(observation + self._deviation * self._rng.standard_normal(len(observation)), at)

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        """The finished prediction, once."""
        return self._inner.poll(timeout)

    def reset(self, seed: int | None = None) -> None:
        """Drop what is pending."""
        self._inner.reset(seed)


class Adversary:
    """First in a chain, it puts its own command in the policy's place, once a tick."""

    name = "adversary"

    def __init__(self, target: Target, rng: np.random.Generator) -> None:
        self._target, self._rng = target, rng
        self.reset()

    def reset(self) -> None:
        """Choose other ways, at an activation."""
        self._attack = outward(self._target, self._rng)
        self._state: ControlState | None = None

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        """Its own command; what it is asked about again is passed on."""
        if state is self._state:
            return Certified(nominal)
        self._state = state
        return Certified(self._attack(0, state.last_sent))


class MeteredPlant(Plant):
    """A plant that also counts what its drives deliver: force times way of every physics step."""

    _delivered: Array | None = None

    @property
    def delivered(self) -> Array:
        """By each joint since the last reset (n,) [J]."""
        return np.zeros(len(self._qpos)) if self._delivered is None else self._delivered

    def reset(self, state: ArrayLike | None = None) -> Measurement:
        """As any plant; nothing has been delivered yet."""
        self._delivered = None
        return super().reset(state)

    def step(self, count: int = 1) -> None:
        """As any plant."""
        for _ in range(count):
            before = self.data.qpos[self._qpos].copy()
            super().step(1)
            way = self.data.qpos[self._qpos] - before
            self._delivered = self.delivered + self.data.qfrc_actuator[self._qvel] * way


@dataclass
class Watch:
    """Sees one episode, tick by tick."""

    trace: Trace
    bounds: tuple[Array, Array]
    fastest: Array
    plant: MeteredPlant
    ports: Mapping[str, list[int]]
    excess: float = -np.inf
    speed: float = 0.0

    def __post_init__(self) -> None:
        self.energy: dict[str, list[float]] = {name: [] for name in self.ports}

    def __call__(self, tick: Tick, measurement: Measurement) -> None:
        """One tick, and the measurement that it saw."""
        if tick.command is None:
            return
        self.trace.note(tick.command, tick.certified)
        if tick.reason:
            self.trace.reasons.append(tick.reason)
        lower, upper = self.bounds
        limited = np.isfinite(self.fastest)
        outside = np.maximum(lower - measurement.position, measurement.position - upper)[limited]
        self.excess = max(self.excess, float(outside.max()))
        self.speed = max(self.speed, float((np.abs(measurement.velocity) / self.fastest).max()))
        for name, joints in self.ports.items():
            self.energy[name].append(float(self.plant.delivered[joints].sum()))


@dataclass(frozen=True)
class ClosedLoop:
    """What episodes are played with.

    Attributes:
        policy: the exported file.
        robot: the robot.
        scene: its plant.
        target: whom the adversary attacks.
        judge: of what was sent.
        ports: joints of each tank's port.
        noise: deviation, in halves of each element's range in the training data.
        seed: of everything random.
    """

    policy: Path
    robot: RobotDescription
    scene: Scene
    target: Target
    judge: Judge
    ports: Mapping[str, list[int]]
    noise: float
    seed: int

    def play(self, name: str, episodes: int, advance: Callable[[], None]) -> Played:
        """Some episodes of one way to drive the plant."""
        controller, plant = self._controller(name), MeteredPlant(self.scene, self.robot)
        starts = load_starts(self.scene.starts_path)[1] if self.scene.starts_path else [plant.state]
        watched, outcomes = list[Watch](), list[tuple[Progress, str]]()
        for index in range(episodes):
            watch = self._watch(plant, controller, starts[index % len(starts)])
            outcomes.append(self._episode(controller, plant, starts[index % len(starts)], index, watch))
            watched.append(watch)
            advance()
        return self._played(name, watched, outcomes)

    def _controller(self, name: str) -> Controller:
        runtime = PolicyRuntime(self.policy)
        contract, forward = runtime.contract, ForwardKinematics.load(self.scene.model_path, self.robot)
        rng = np.random.default_rng([self.seed, len(name)])
        chain, inference = build_chain(contract, self.robot, forward), InlineInference(runtime)
        if name == OUTWARD:
            chain = Chain([Adversary(self.target, rng), *chain.filters])
        if name == NOISY:
            reach = 0.5 * (np.array(contract.dataset.maximum) - np.array(contract.dataset.minimum))
            noisy = NoisyInference(inference, np.tile(self.noise * reach, contract.history), rng)
            return Controller(contract, self.robot, forward, noisy, chain=chain)
        return Controller(contract, self.robot, forward, inference, chain=chain)

    def _watch(self, plant: MeteredPlant, controller: Controller, start: Array) -> Watch:
        limits = self.robot.position_limits
        trace = Trace(controller.period, [np.clip(plant.reset(start).position, *limits)])
        return Watch(trace, limits, self.robot.velocity_limits, plant, self.ports)

    def _episode(
        self, controller: Controller, plant: Plant, start: Array, index: int, watch: Watch
    ) -> tuple[Progress, str]:
        try:
            progress = simulate_episode(controller, plant, start, self.seed + index, watch)
        except OneStrideError as error:  # it refuses to activate
            return plant.progress, str(error)
        reason = controller.reason
        controller.rearm()
        return progress, reason

    def _played(self, name: str, watched: list[Watch], outcomes: list[tuple[Progress, str]]) -> Played:
        first = watched[0]
        further = {f"delivered by {port}": np.array(values) for port, values in first.energy.items()}
        return Played(
            name=name,
            episodes=len(outcomes),
            solved=sum(progress.success for progress, _ in outcomes),
            faults=dict(Counter(reason for _, reason in outcomes if reason)),
            commands=self.judge.attacked(name, [watch.trace for watch in watched]),
            joint_excess=max(max(watch.excess for watch in watched), -1e9),
            speed=max(watch.speed for watch in watched),
            energy={port: max(max([0.0, *watch.energy[port]]) for watch in watched) for port in self.ports},
            trail=self.judge.trail(first.trace, further if first.trace.answers else None),
        )

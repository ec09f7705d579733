"""Joints whose drives follow commands as they declare, integrated in small steps, and seen through poor sensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onestride.deploy.safety.types import ControlState, Filter
from onestride.hardware.description import RobotDescription
from onestride.hardware.state import Array, Measurement

SUBSTEPS = 10


@dataclass(frozen=True)
class Run:
    """What a controller has seen and sent; one row for each tick.

    Attributes:
        time: of the ticks (T,) [s].
        sent: the command that was in force when each sample was taken (T, n) [rad].
        position: measured (T, n) [rad].
        velocity: measured (T, n) [rad/s].
        received: when each sample came (T,) [s].
    """

    time: Array
    sent: Array
    position: Array
    velocity: Array
    received: Array

    def states(self) -> list[ControlState]:
        """As the filters see them."""
        period = float(self.time[1] - self.time[0])
        return [
            ControlState(float(now), period, Measurement(q, v, received={"joints": float(at)}), sent)
            for now, sent, q, v, at in zip(
                self.time, self.sent, self.position, self.velocity, self.received, strict=True
            )
        ]

    def sampled_late(self, ages: Array) -> Run:
        """The same, each tick seeing a sample received earlier by an age (T,) [s]; nothing comes out of order."""
        received = np.maximum.accumulate(self.time - ages)
        return replace(self, received=received)

    def rounded(self, quantum: float) -> Run:
        """The same through encoders that count in steps of `quantum` [rad]."""
        return replace(self, position=np.round(self.position / quantum) * quantum) if quantum else self


def wander(robot: RobotDescription, rate: float, seconds: float, seed: int, share: float = 0.9) -> Array:
    """Commands (T, n) that turn as they like every 50 ms, and rest now and then.

    Joints with a largest speed stay below `share` of it; the others jump, as a gripper is told to.
    """
    rng, count = np.random.default_rng(seed), round(seconds * rate)
    speeds = np.repeat(rng.uniform(-1, 1, (count, len(robot.joints))), max(1, round(0.05 * rate)), axis=0)[:count]
    speeds *= np.repeat(rng.random(count) < 0.7, max(1, round(0.3 * rate)))[:count, None]
    limits = robot.velocity_limits
    home = np.array([joint.default for joint in robot.joints])
    steps = speeds * np.where(np.isfinite(limits), share * limits, 0.0) / rate
    commands = home + np.cumsum(steps, axis=0)
    commands[:, ~np.isfinite(limits)] = 0.8 * (speeds[:, ~np.isfinite(limits)] > 0)
    return commands


def ramp(robot: RobotDescription, rate: float, seconds: float, speed: float) -> Array:
    """Commands (T, n) of all joints at one speed [rad/s]."""
    home = np.array([joint.default for joint in robot.joints])
    return home + speed * np.arange(round(seconds * rate))[:, None] / rate * np.ones(len(home))


def follow(robot: RobotDescription, commands: Array, rate: float, latency: float = 0.0, slower: float = 1.0) -> Run:
    """A run in which the drives follow `commands` (T, n), with a lag `slower` than theirs and heard of late [s]."""
    count, n = commands.shape
    lag = slower * np.array([joint.damping / joint.stiffness for joint in robot.joints])
    before = np.vstack([commands[:1], commands[:-1]])  # in force when the tick's sample is taken
    late = round(latency * rate)
    position, velocity = np.empty((count, n)), np.zeros((count, n))
    q = commands[0].copy()
    for tick in range(count):
        position[tick], velocity[tick] = q, (commands[max(0, tick - late)] - q) / lag
        for _ in range(SUBSTEPS):
            q = q + (commands[max(0, tick - late)] - q) / lag / (rate * SUBSTEPS)
    time = 10.0 + np.arange(count) / rate
    return Run(time, before, position, velocity, time)


def first_refusal(guard: Filter, states: Sequence[ControlState]) -> tuple[int | None, str]:
    """The tick in which a guard first refuses, and why; each tick asks twice, as a chain does."""
    for tick, state in enumerate(states):
        answer, again = guard.certify(state, state.last_sent), guard.certify(state, state.last_sent + 1.0)
        assert (again.feasible, again.reason) == (answer.feasible, answer.reason), "a recheck must change nothing"
        if not answer.feasible:
            return tick, answer.reason
    return None, ""

"""Our own walker on a Go2, as exported: through the controller, on a robot that is late, noisy and never the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onestride.deploy.controller import Controller, Mode, Tick
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.safety.tilt import tilt_of
from onestride.deploy.simulation import simulate_episode
from onestride.hardware.description import load_robot
from onestride.hardware.models import robot_scene
from onestride.hardware.readings import BaseReadings
from onestride.hardware.realism import Noise, Realism
from onestride.hardware.realistic_plant import RealisticPlant
from onestride.hardware.state import Array, Measurement

ROBOT = load_robot("go2")

#: 5 to 20 ms from a motion to the answer to it, sensors that are not new, floors of all kinds; unlike in training,
#: measurements are late and get lost as well.
REAL = Realism(
    measurement_latency=(0.002, 0.008),
    command_latency=(0.003, 0.010),
    jitter=0.001,
    dropped=0.01,
    noise=Noise(position=0.005, velocity=0.2, orientation=0.01, angular_velocity=0.05, acceleration=0.3),
    friction=(0.6, 1.0),
    mass=(0.95, 1.05),
    gains=(0.95, 1.05),
)

#: A new command every so often [s], a stride [s].
PERIOD, STRIDE = 4.0, 0.5


@dataclass(frozen=True)
class Walk:
    """What one walk came to.

    Attributes:
        velocity: true velocity vx, vy [m/s] of the base and wz [rad/s], by ticks (T, 3).
        command: what was asked for (T, 3).
        tilt: largest lean [rad].
        reason: why it ended early; empty if it did not.
        time: simulated [s].
        period: of a tick [s].
        changed: ticks in which a filter changed the policy's targets.
    """

    velocity: Array
    command: Array
    tilt: float
    reason: str
    time: float
    period: float
    changed: int

    @property
    def error(self) -> float:
        """Mean distance of the planar velocity from the command, starts and changes of command included [m/s]."""
        return float(np.linalg.norm(self.velocity[:, :2] - self.command[:, :2], axis=1).mean())

    @property
    def stride_error(self) -> float:
        """The same for the velocity averaged over a stride, which is what a commander sees [m/s]."""
        count = round(STRIDE / self.period)
        smooth = np.stack([np.convolve(row, np.ones(count) / count, "valid") for row in self.velocity[:, :2].T], axis=1)
        return float(np.linalg.norm(smooth - self.command[count - 1 :, :2], axis=1).mean())

    @property
    def turning_error(self) -> float:
        """Mean distance of the turning from the command [rad/s]."""
        return float(np.abs(self.velocity[:, 2] - self.command[:, 2]).mean())


def commands(seed: int, duration: float) -> Array:
    """A command for each period (K, 3): every direction, up to 0.5 m/s and 0.5 rad/s; one of them is to stay."""
    rng, count = np.random.default_rng(seed), int(np.ceil(duration / PERIOD))
    heading, speed = rng.uniform(-np.pi, np.pi, count), rng.uniform(0.1, 0.5, count)
    turning = rng.uniform(-0.5, 0.5, count) * rng.integers(2, size=count)
    asked = np.stack([speed * np.cos(heading), speed * np.sin(heading), turning], axis=1)
    asked[rng.integers(count)] = 0.0
    return asked


def walker(policy: Path, nfe: int | None = None) -> Controller:
    """The policy's controller."""
    runtime = PolicyRuntime(policy, nfe=nfe)
    forward = ForwardKinematics.load(robot_scene(ROBOT).model_path, ROBOT)
    return Controller(runtime.contract, ROBOT, forward, InlineInference(runtime))


def walk(controller: Controller, seed: int, duration: float, realism: Realism = REAL) -> Walk:
    """One walk by the commands of a seed, on the robot of that seed."""
    assert ROBOT.base is not None
    plant = RealisticPlant(robot_scene(ROBOT), ROBOT, realism, seed)
    truth, asked = BaseReadings(plant.model, plant.data, ROBOT.base), commands(seed, duration)
    rows, tilts, reasons, changed = list[Array](), [0.0], list[str](), [0]

    def command(now: float) -> Array:
        return asked[min(int(now / PERIOD), len(asked) - 1)]

    def watch(tick: Tick, measurement: Measurement) -> None:
        base, imu = truth.velocity(), truth.inertial()
        rows.append(np.array([base[0], base[1], imu.angular_velocity[2], *measurement.vectors["velocity_command"]]))
        tilts.append(tilt_of(imu))
        changed[0] += bool(tick.certified and tick.certified.active)
        if tick.mode is Mode.FAULT:
            reasons.append(tick.reason)

    progress = simulate_episode(controller, plant, None, seed, watch, velocity=command, duration=duration)
    table = np.array(rows)
    reason = reasons[0] if reasons else ""
    return Walk(table[:, :3], table[:, 3:], max(tilts), reason, progress.time, controller.period, changed[0])

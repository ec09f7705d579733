"""A third-party walking policy on a Go1, through a contract file: how fast the robot goes that is asked to walk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from legged_samples import ROBOT, legged_content

from onestride.deploy.controller import Controller, Mode, Tick
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.safety.tilt import tilt_of
from onestride.deploy.simulation import simulate_episode
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.readings import BaseReadings
from onestride.hardware.realism import Noise, Realism
from onestride.hardware.realistic_plant import RealisticPlant
from onestride.hardware.scene import Scene
from onestride.hardware.state import Array, Measurement

Origin = Literal["odometry", "estimator"]

assert ROBOT.base is not None
BASE = ROBOT.base

#: Where the policy's README drove it, with the true velocity: command and what came out, along the commanded axis.
FIGURES = {"vx": ((1.0, 0.0, 0.0), 1.019), "vy": ((0.0, 0.5, 0.0), 0.464), "wz": ((0.0, 0.0, 1.0), 0.859)}
STILL = (0.0, 0.0, 0.0)

#: The largest commands that the policy was trained with.
FASTEST = [1.5, 0.8, 1.2]

#: A robot as they are: 5 to 20 ms from a motion to the answer to it, sensors that are not new, floors of all kinds.
REAL = Realism(
    measurement_latency=(0.002, 0.008),
    command_latency=(0.003, 0.010),
    jitter=0.001,
    dropped=0.01,
    noise=Noise(
        position=0.005,
        velocity=0.2,
        effort=0.5,
        orientation=0.01,
        angular_velocity=0.05,
        acceleration=0.3,
        vectors={"foot_forces": 3.0, "base_velocity": 0.02},
    ),
    friction=(0.6, 1.0),
    mass=(0.95, 1.05),
    gains=(0.95, 1.05),
)

#: How long a walk takes to become steady [s].
STEADY = 2.0


def contract(policy: Path, origin: Origin, control_rate: float) -> dict[str, Any]:
    """The content of the contract file, by what the policy's README says."""
    content = legged_content()
    velocity, *others, command = content["observations"]
    velocity = {**velocity, "source": {"kind": "base_velocity", "origin": origin}}
    command = {**command, "source": {**command["source"], "low": [-x for x in FASTEST], "high": FASTEST}}
    return {
        **content,
        "observations": [velocity, *others, command],
        "execution": {**content["execution"], "control_rate": control_rate},
        "graph": {
            "input": "obs",
            "output": "continuous_actions",
            "sha256": hashlib.sha256(policy.read_bytes()).hexdigest(),
        },
    }


@dataclass(frozen=True)
class Course:
    """What a walk is driven with.

    Attributes:
        policy: the ONNX file.
        contract: the contract file beside it.
        scene: the robot on a floor.
    """

    policy: Path
    contract: Path
    scene: Scene

    @classmethod
    def lay(cls, shared: Path, folder: Path, origin: Origin, control_rate: float = 200.0) -> Course:
        """From the shared files, with a contract and a scene in `folder`."""
        files = shared / "policies" / "go1_joystick"
        policy, path = files / "go1_policy.onnx", folder / f"{origin}_{control_rate:g}.yaml"
        path.write_text(yaml.safe_dump(contract(policy, origin, control_rate)), encoding="utf-8")
        scene = robot_scene("go1", files / "go1_mjx_feetonly.xml", folder=folder / "scene")
        return cls(policy, path, scene)

    def controller(self) -> Controller:
        """The policy's controller."""
        runtime = PolicyRuntime(self.policy, contract=self.contract)
        forward = ForwardKinematics.load(self.scene.model_path, ROBOT)
        return Controller(runtime.contract, ROBOT, forward, InlineInference(runtime))

    def plant(self, seed: int, realism: Realism = REAL) -> RealisticPlant:
        """A robot as it might be."""
        return RealisticPlant(self.scene, ROBOT, realism, seed, odometry=True)


@dataclass(frozen=True)
class Walk:
    """What one walk came to.

    Attributes:
        velocity: true velocity, vx, vy [m/s] of the base and wz [rad/s], by ticks (T, 3).
        estimate: what the estimator said at the same time (T, 3) [m/s]; empty without one.
        truth: the true base velocity (T, 3) [m/s].
        tilt: largest lean [rad].
        reason: why it ended early; empty if it did not.
        time: simulated [s].
        period: of a tick [s].
    """

    velocity: Array
    estimate: Array
    truth: Array
    tilt: float
    reason: str
    time: float
    period: float

    @property
    def mean(self) -> Array:
        """Mean velocity vx, vy, wz once the walk is steady."""
        mean: Array = self.velocity[int(STEADY / self.period) :].mean(axis=0)
        return mean

    @property
    def speed(self) -> float:
        """Mean horizontal speed once the walk is steady [m/s]."""
        return float(np.linalg.norm(self.velocity[int(STEADY / self.period) :, :2], axis=1).mean())

    @property
    def turn(self) -> float:
        """Mean rate of turning once the walk is steady, whichever way [rad/s]."""
        return float(np.abs(self.velocity[int(STEADY / self.period) :, 2]).mean())

    @property
    def error(self) -> float:
        """Root of the mean square of the estimate's error, of each element, over the whole walk [m/s]."""
        return float(np.sqrt(((self.estimate - self.truth) ** 2).mean()))


def walk(controller: Controller, plant: Plant, command: tuple[float, float, float], duration: float) -> Walk:
    """Ask for one velocity, for a while."""
    truth = BaseReadings(plant.model, plant.data, BASE)
    velocities, estimates, truths, tilts = list[Array](), list[Array](), list[Array](), [0.0]
    reasons = list[str]()

    def watch(tick: Tick, measurement: Measurement) -> None:
        base, imu = truth.velocity(), truth.inertial()
        velocities.append(np.array([base[0], base[1], imu.angular_velocity[2]]))
        truths.append(base)
        tilts.append(tilt_of(imu))
        if controller.estimator is not None:
            estimates.append(controller.estimator.velocity(measurement))
        if tick.mode is Mode.FAULT:
            reasons.append(tick.reason)

    progress = simulate_episode(controller, plant, None, 0, watch, velocity=lambda _: command, duration=duration)
    return Walk(
        np.array(velocities),
        np.array(estimates),
        np.array(truths),
        max(tilts),
        reasons[0] if reasons else "",
        progress.time,
        controller.period,
    )

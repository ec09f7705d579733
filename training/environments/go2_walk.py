"""Walk a Go2 on flat ground as a velocity command asks, seeing only what the robot itself measures.

The robot is the simulated plant that the controller drives as well, with messages that take time, pushes, and ground,
masses and drives that differ from episode to episode. What is seen and done goes through the controller's own observer
and action mapper, by the terms of `go2_interface`.
"""

from __future__ import annotations

from importlib.metadata import version

import mujoco
import numpy as np

from onestride.deploy.actions import ActionMapper
from onestride.deploy.contract import Contract, DatasetTerms, ExecutionTerms, PolicyTerms, RobotTerms
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.observe import Observer
from onestride.deploy.safety.tilt import tilt_of
from onestride.deploy.sources import COMMAND
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.realistic_plant import RealisticPlant
from onestride.hardware.state import Array, Inertial, Measurement
from onestride.training.environments.go2_interface import FASTEST, QUICKEST, ROBOT, go2_interface
from onestride.training.environments.interface import Array as Floats
from onestride.training.environments.interface import Interface, Step
from onestride.training.environments.quadruped import Legs
from onestride.training.environments.trot import BaseState, Trot
from onestride.training.environments.walk_settings import WalkSettings

TRACKED = 0.15
"""Mean error of the base's velocity [m/s] with which an episode counts as a success."""
LOWEST = 0.15
"""Height of the base [m] below which it has fallen."""


class Go2Walk:
    """The walking task.

    Attributes:
        name: canonical id.
        settings: what makes it difficult.
        plant: the simulated robot.
        horizon: steps before an episode is cut, 20 s.
        policy_rate: steps per second [Hz].
        observation_dim: size of an observation.
        action_dim: a target for each joint.
        interface: observation and action in robot terms.
        packages: whose versions decide what an episode is.
        command: what is asked for: vx, vy [m/s], wz [rad/s] (3,).
    """

    horizon = 1000
    packages = ("robosuite-models", "mujoco")

    def __init__(self, name: str, settings: WalkSettings) -> None:
        self.name, self.settings = name, settings
        self.interface: Interface = go2_interface()
        self.policy_rate = self.interface.policy_rate
        robot = load_robot(ROBOT)
        self.plant = RealisticPlant(robot_scene(robot), robot, settings.realism, odometry=True)
        contract, forward = self._contract(), ForwardKinematics(self.plant.model, robot)
        self._observer, self._mapper = Observer(contract, forward), ActionMapper(contract, forward)
        self.observation_dim, self.action_dim = contract.observation_size, contract.action_size
        self._substeps = round(1.0 / (self.policy_rate * self.plant.scene.physics_timestep))
        self._default = np.array([joint.default for joint in robot.joints])
        assert robot.base is not None
        self._base, self._tilt = self.plant.model.body(robot.base.body), robot.base.tilt

    @property
    def source(self) -> str:
        """Package and version that define the environment, and the robot's model."""
        return f"onestride {version('onestride')}, {self.plant.scene.source}"

    @property
    def physics(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The simulation."""
        return self.plant.model, self.plant.data

    def reset(self, seed: int) -> Array:
        """Start the episode of `seed`, standing, and return its first observation (Do,)."""
        self._rng = np.random.default_rng(seed)
        self.plant.reseed(seed)
        self.plant.reset()
        self._observer.reset()
        self._steps = 0
        self._errors, self._last = np.zeros(2), np.zeros(self.action_dim)
        self._ask()
        return self._observe()

    def step(self, action: Floats) -> Step:
        """Take one action (Da,) in [-1, 1]; a fall ends the episode."""
        taken = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        self._drive(self._mapper.target(self._measured, taken, self._default))
        self._observer.acted(taken)
        self._steps += 1
        fallen, cut = self.fallen, self._steps >= self.horizon
        reward = self._judge(taken, fallen)
        success = cut and not fallen and self.tracking_error <= TRACKED
        self._disturb()
        return Step(self._observe(), reward, fallen, cut and not fallen, success)

    def close(self) -> None:
        """Free the simulation: nothing is held."""

    def oracle(self, name: str, seed: int) -> TrotOracle:
        """The scripted expert for the running episode; it draws nothing from `seed`.

        Raises:
            OneStrideError: there is no such expert.
        """
        del seed
        if name != "trot":
            raise OneStrideError(f"unknown oracle of {self.name}: got {name!r}, available: trot")
        return TrotOracle(self)

    @property
    def truth(self) -> Measurement:
        """The state as it is, without noise or latency."""
        return Plant.read(self.plant)

    @property
    def fallen(self) -> bool:
        """Whether the base is tilted as far as trips the controller, or lies low."""
        imu = self.truth.imu
        assert imu is not None
        return bool(tilt_of(imu) > self._tilt or self.plant.data.xpos[self._base.id, 2] < LOWEST)

    @property
    def tracking_error(self) -> float:
        """Mean distance of the base's planar velocity from what is asked for, in this episode [m/s]."""
        return float(self._errors[0]) / max(1, self._steps)

    @property
    def turning_error(self) -> float:
        """Mean distance of its turning from what is asked for [rad/s]."""
        return float(self._errors[1]) / max(1, self._steps)

    def _drive(self, target: Array) -> None:
        """Command joint targets (n,) for a step: tick by tick at the start, as the controller does, then at once."""
        rate, soft = self.interface.control_rate, self.settings.soft_start
        begun, ticks = self._steps / self.policy_rate, round(rate / self.policy_rate)
        if begun >= soft:
            self.plant.command(target)
            self.plant.step(self._substeps)
            return
        before = self._steps * self._substeps
        for tick in range(self._steps * ticks + 1, (self._steps + 1) * ticks + 1):
            share = min(1.0, tick / (rate * soft))
            self.plant.command(self._default + share * (target - self._default))
            due = round(tick / (rate * self.plant.scene.physics_timestep))
            self.plant.step(due - before)
            before = due

    def _judge(self, action: Array, fallen: bool) -> float:
        """The reward: up to 1 for going and up to 0.5 for turning as asked, less for haste, and 10 for a fall."""
        truth = self.truth
        assert truth.imu is not None
        off = float(np.hypot(*(truth.vectors["base_velocity"][:2] - self.command[:2])))
        turned = abs(float(truth.imu.angular_velocity[2] - self.command[2]))
        haste = float(np.square(action - self._last).sum())
        self._errors, self._last = self._errors + np.array([off, turned]), action
        tracked = np.exp(-((off / 0.2) ** 2)) + 0.5 * np.exp(-((turned / 0.4) ** 2))
        return float(tracked) - 0.02 * haste - 10.0 * fallen

    def _ask(self) -> None:
        """Another velocity: any direction at any speed, with or without turning, or none."""
        rng = self._rng
        heading, speed = rng.uniform(-np.pi, np.pi), rng.uniform(0.0, FASTEST)
        turning = rng.uniform(-QUICKEST, QUICKEST) * rng.integers(2)
        moves = rng.random() >= self.settings.standing
        self.command = moves * np.array([speed * np.cos(heading), speed * np.sin(heading), turning])

    def _disturb(self) -> None:
        """What happens between two steps: pushes and new commands, each in its time."""
        if self._every(self.settings.push_period) and self.settings.push:
            heading = self._rng.uniform(-np.pi, np.pi)
            dof = int(self._base.dofadr[0])
            self.plant.data.qvel[dof : dof + 2] += self.settings.push * np.array([np.cos(heading), np.sin(heading)])
        if self._every(self.settings.command_period):
            self._ask()

    def _every(self, period: float) -> bool:
        return self._steps % round(period * self.policy_rate) == 0

    def _observe(self) -> Array:
        measured = self.plant.read()
        vectors = {**measured.vectors, COMMAND.name: self.command}
        received = dict.fromkeys([*measured.received, COMMAND.name], self._steps / self.policy_rate)
        self._measured = Measurement(
            measured.position, measured.velocity, received=received, imu=measured.imu, vectors=vectors
        )
        return self._observer.step(self._measured)

    def _contract(self) -> Contract:
        """The terms as observer and mapper want them, of no policy in particular."""
        known = self.interface
        return Contract(
            schema_version=1,
            policy=PolicyTerms(name=self.name, algorithm="none", nfe=(1,), seed=0, steps=0, config={}),
            environment=self.name,
            robot=RobotTerms.of(load_robot(known.robot)),
            history=1,
            observations=known.observations,
            actions=known.actions,
            execution=ExecutionTerms(
                control_rate=known.control_rate, policy_rate=known.policy_rate, horizon=1, n_action_steps=1
            ),
            dataset=DatasetTerms.unknown(known.observation_names, known.observation_units, known.action_names),
        )


class TrotOracle:
    """The trot as an expert of the running episode, in the task's actions."""

    def __init__(self, environment: Go2Walk) -> None:
        self._environment, plant = environment, environment.plant
        legs = Legs.of(plant.model, plant.robot)
        mass = float(plant.model.body_mass.sum())
        self.trot = Trot(plant.robot, legs, mass, 1.0 / environment.policy_rate)
        (term,) = environment.interface.actions
        self._offset, self._scale = np.array(term.offset), np.array(term.scale)

    def act(self) -> Array:
        """The expert's action (Da,) in [-1, 1] for the current state; asked once for every step."""
        truth, environment = self._environment.truth, self._environment
        assert truth.imu is not None
        velocity, turning = truth.vectors["base_velocity"], truth.imu.angular_velocity
        rotation = rotation_of(truth.imu)
        state = BaseState.of(rotation, velocity, turning, truth.position, truth.velocity)
        targets = self.trot.targets(state, environment.command)
        action: Array = np.clip((targets - self._offset) / self._scale, -1.0, 1.0)
        return action


def rotation_of(imu: Inertial) -> Array:
    """`R_WB` (3, 3) of the base, whose axes are the sensor's."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, imu.orientation)
    return matrix.reshape(3, 3)

"""A robot as data: joints, limits, gains, rates, frames, detection bounds, safe stop and drivers, read from YAML."""

from __future__ import annotations

import math
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from onestride.hardware.drivers import DriverProfile
from onestride.hardware.errors import OneStrideError, unknown
from onestride.hardware.legs import Base
from onestride.hardware.model import Interval, Model, Positive, explain
from onestride.hardware.safety.chain import USUAL_CHAIN, FilterTerms, checked
from onestride.hardware.sources import GivenModel, ModelSource
from onestride.hardware.state import Array

__all__ = [
    "Interval",
    "Model",
    "Positive",
    "available_robots",
    "explain",
    "load_robot",
    "parse_robot",
]


class Joint(Model):
    """One commanded joint.

    Attributes:
        name: the joint's name on ROS topics and in contracts.
        model_joint: its name in the MuJoCo model.
        actuator: the MuJoCo actuator that drives it.
        command_scale: actuator control per radian of target (the 2F-85 model wants 0 to 255).
        position: limits [rad].
        velocity: largest commanded speed [rad/s]; none where the drive takes position requests and
            limits its own speed, as grippers do.
        acceleration: largest change of the commanded speed [rad/s^2]; none where it is not limited.
        jerk: largest change of the commanded acceleration [rad/s^3]; none where it is not limited.
        effort: largest effort of the drive [Nm]; none where it is not declared.
        stiffness: position gain of the joint's own controller [Nm/rad].
        damping: velocity gain of the joint's own controller [Nm s/rad].
        default: position of the default pose [rad].
    """

    name: str
    model_joint: str
    actuator: str
    command_scale: Positive = 1.0
    position: Interval
    velocity: Positive | None
    acceleration: Positive | None = None
    jerk: Positive | None = None
    effort: Positive | None = None
    stiffness: Positive
    damping: Positive
    default: float

    @model_validator(mode="after")
    def _limits_agree(self) -> Joint:
        low, high = self.position
        if not low <= self.default <= high:
            raise ValueError(f"joint {self.name}: expected default within [{low}, {high}], got {self.default}")
        for limit, of in (("acceleration", "velocity"), ("jerk", "acceleration")):
            if getattr(self, limit) is not None and getattr(self, of) is None:
                raise ValueError(f"joint {self.name}: expected no {limit} limit without one of {of}")
        return self

    def stopping_time(self, deceleration: float) -> float:
        """The longest time a stop may take that brakes with `deceleration` [rad/s^2], from any permitted motion [s]."""
        ramps = 0.0 if self.jerk is None else ((self.acceleration or 0.0) + deceleration) / self.jerk
        return (self.velocity or 0.0) / deceleration + ramps


class CommandGroup(Model):
    """Joints that one ROS command topic carries, in the topic's order."""

    topic: str
    joints: tuple[str, ...]


class Detection(Model):
    """How long each fault may go unseen [s]; the guards use these bounds and the tests hold them.

    Attributes:
        joints_stale: age of the newest joint state.
        objects_stale: age of the newest reading of any other stream: object poses, scalars, vectors, inertial sensor.
        policy_stall: time without a new chunk once one is due.
        heartbeat: time without a sign of life from the controller, after which the watchdog stops the robot.
    """

    joints_stale: Positive
    objects_stale: Positive
    policy_stall: Positive
    heartbeat: Positive = 0.1


class HoldingStop(Model):
    """Control is lost: the last sent command is brought to rest and held.

    Attributes:
        deceleration: of every joint's command, reached as its jerk limit allows [rad/s^2].
        completes_within: the longest time the stop may take [s].
    """

    kind: Literal["decelerate_and_hold"]
    deceleration: Positive
    completes_within: Positive


class DampingStop(Model):
    """Control is lost: every joint's stiffness goes to zero and its motion is damped, so that a robot on legs sinks.

    Attributes:
        damping: of every joint [Nm s/rad].
        completes_within: the longest time until the robot lies still [s].
    """

    kind: Literal["damping"]
    damping: Positive
    completes_within: Positive

    @property
    def deceleration(self) -> float:
        """Of the commands [rad/s^2]: without limit, because this stop asks for no position."""
        return math.inf


SafeStop = Annotated[HoldingStop | DampingStop, Field(discriminator="kind")]


class RobotDescription(Model):
    """Everything the controller must know about a robot. All units are SI and radians.

    Attributes:
        schema_version: version of this format.
        id: short name, used in contracts.
        title: name for people.
        joints: commanded joints; their order is the order of every joint array.
        commands: the command topics and their joints.
        frames: controller frame -> site of the MuJoCo model.
        control_rates: rates at which the driver accepts commands, lowest and highest [Hz].
        detection: fault detection bounds.
        safe_stop: the declared safe stop.
        safety: the filters that every command goes through, in order.
        base: the floating base; none for a robot that is bolted down.
        command_mode: what the drives take: a `position` per joint, or position, velocity, effort, stiffness and
            damping of every joint in one message (`impedance`).
        drivers: how its ROS 2 drivers are talked to, by the driver's name.
        model: where its MuJoCo model comes from.
    """

    schema_version: Literal[1]
    id: str
    title: str
    joints: tuple[Joint, ...] = Field(min_length=1)
    commands: tuple[CommandGroup, ...] = Field(min_length=1)
    frames: dict[str, str]
    control_rates: Interval
    detection: Detection
    safe_stop: SafeStop
    safety: tuple[FilterTerms, ...] = USUAL_CHAIN
    base: Base | None = None
    command_mode: Literal["position", "impedance"] = "position"
    drivers: dict[str, DriverProfile] = Field(default_factory=dict)
    model: ModelSource = GivenModel()

    @model_validator(mode="after")
    def _names_agree(self) -> RobotDescription:
        names = [joint.name for joint in self.joints]
        if len(set(names)) != len(names):
            raise ValueError(f"expected every joint once, got {names}")
        commanded = [name for group in self.commands for name in group.joints]
        if sorted(commanded) != sorted(names):
            raise ValueError(f"expected command topics for exactly the joints {names}, got {commanded}")
        checked(self.safety, self.frames, impedance=self.command_mode == "impedance")
        return self

    @model_validator(mode="after")
    def _parts_name_its_joints(self) -> RobotDescription:
        named = {
            f"driver {driver}, {name}": command.joints
            for driver, profile in self.drivers.items()
            for name, command in profile.commands.items()
        }
        if self.base is not None:
            named["base"] = self.base.joints
        for where, names in named.items():
            strange = [name for name in names if name not in self.joint_names]
            if strange:
                raise ValueError(f"{where}: expected joints of {self.joint_names}, got {strange[0]!r}")
        return self

    @model_validator(mode="after")
    def _impedance_is_whole(self) -> RobotDescription:
        if self.command_mode == "position":
            if isinstance(self.safe_stop, DampingStop):
                raise ValueError("safe stop: expected decelerate_and_hold from drives that take positions, got damping")
            return self
        if len(self.commands) != 1:
            raise ValueError(f"commands: expected one impedance topic for all joints, got {len(self.commands)}")
        weak = [joint.name for joint in self.joints if joint.effort is None]
        if weak:
            raise ValueError(f"joint {weak[0]}: expected an effort limit, because its drive takes efforts, got none")
        return self

    @model_validator(mode="after")
    def _stops_in_time(self) -> RobotDescription:
        stop = self.safe_stop
        if isinstance(stop, DampingStop):
            return self
        for joint in self.joints:
            if joint.acceleration is not None and joint.acceleration < stop.deceleration:
                raise ValueError(
                    f"safe stop: expected a deceleration that joint {joint.name} may brake with, "
                    f"at most {joint.acceleration} rad/s^2, got {stop.deceleration}"
                )
        slowest = max(joint.stopping_time(stop.deceleration) for joint in self.joints)
        if slowest > stop.completes_within:
            raise ValueError(
                f"safe stop: expected to complete within {stop.completes_within} s, "
                f"but braking from the highest speed takes {slowest:.3f} s"
            )
        return self

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        """Joint names in the order of every joint array."""
        return tuple(joint.name for joint in self.joints)

    @cached_property
    def position_limits(self) -> tuple[Array, Array]:
        """Lower and upper joint limits (n,) [rad]."""
        limits = np.array([joint.position for joint in self.joints])
        return limits[:, 0], limits[:, 1]

    @cached_property
    def velocity_limits(self) -> Array:
        """Largest commanded joint speeds (n,) [rad/s]; infinite where the drive limits its own speed."""
        return np.array([np.inf if joint.velocity is None else joint.velocity for joint in self.joints])

    @cached_property
    def acceleration_limits(self) -> Array:
        """Largest changes of commanded joint speeds (n,) [rad/s^2]; infinite where there is no limit."""
        return np.array([np.inf if joint.acceleration is None else joint.acceleration for joint in self.joints])

    @cached_property
    def jerk_limits(self) -> Array:
        """Largest changes of commanded joint accelerations (n,) [rad/s^3]; infinite where there is no limit."""
        return np.array([np.inf if joint.jerk is None else joint.jerk for joint in self.joints])

    def indices(self, names: tuple[str, ...]) -> list[int]:
        """Positions of `names` in the robot's joint order.

        Raises:
            OneStrideError: a name is not one of the robot's joints.
        """
        for name in names:
            if name not in self.joint_names:
                raise unknown(f"joint of robot {self.id}", name, self.joint_names)
        return [self.joint_names.index(name) for name in names]


def available_robots() -> tuple[str, ...]:
    """Ids of the robots described in this package."""
    folder = resources.files("onestride.hardware") / "robots"
    return tuple(sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml")))


def load_robot(name: str | Path) -> RobotDescription:
    """Read a robot description by id (`ur5e_2f85`) or from a YAML file.

    Raises:
        OneStrideError: no such robot or file, unreadable YAML, or a contradictory description.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise OneStrideError(f"robot description not found: {path}")
        return parse_robot(path.read_bytes(), source=str(path))
    if str(name) not in available_robots():
        raise unknown("robot", str(name), available_robots())
    text = (resources.files("onestride.hardware") / "robots" / f"{name}.yaml").read_text(encoding="utf-8")
    return parse_robot(text, source=f"{name}.yaml")


def parse_robot(text: str | bytes, source: str) -> RobotDescription:
    """Parse YAML text into a robot description; errors name `source` and the field."""
    try:
        return RobotDescription.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise OneStrideError(f"{source}: not readable as YAML: {error}") from None
    except ValidationError as error:
        raise OneStrideError(f"{source}: {explain(error)}") from None

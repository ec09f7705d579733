"""Which plant: the robot as its description says, or with what is wrong with real ones."""

from __future__ import annotations

import argparse
from typing import Any

from pydantic import ValidationError

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import explain
from onestride.hardware.plant import Plant
from onestride.hardware.realism import Noise, Realism
from onestride.hardware.realistic_plant import RealisticPlant
from onestride.hardware.scene import Scene

#: Sensors that are not new, `--noise 1`.
NOISE = {
    "position": 0.001,
    "velocity": 0.02,
    "effort": 0.2,
    "orientation": 0.01,
    "angular_velocity": 0.05,
    "acceleration": 0.2,
    "objects": 0.001,
}
VECTORS = {"foot_forces": 3.0, "base_velocity": 0.02}


def add_realism(parser: argparse.ArgumentParser) -> None:
    """What can be wrong with the robot."""
    parser.add_argument("--odometry", action="store_true", help="publish the base's true velocity, odometry/twist")
    span: dict[str, Any] = {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    parser.add_argument("--latency", default=(0.0, 0.0), help="from a state to the answer to it [s]", **span)
    parser.add_argument("--jitter", type=float, default=0.0, help="largest further delay of a message [s]")
    parser.add_argument("--noise", type=float, default=0.0, help="on all readings; 1 is that of usual sensors")
    parser.add_argument("--drop", type=float, default=0.0, help="share of messages that get lost, both ways")
    parser.add_argument("--friction", help="sliding friction of floor and feet", **span)
    parser.add_argument("--seed", type=int, default=0, help="of everything random")


def make_plant(options: argparse.Namespace, scene: Scene, robot: RobotDescription) -> Plant:
    """The plant that the options ask for.

    Raises:
        OneStrideError: the scene, the robot or an option is refused.
    """
    wrong = any(options.latency) or options.jitter or options.noise or options.drop or options.friction
    if not wrong:
        return Plant(scene, robot, odometry=options.odometry)
    return RealisticPlant(scene, robot, realism(options), options.seed, odometry=options.odometry)


def realism(options: argparse.Namespace) -> Realism:
    """What is wrong with the robot.

    Raises:
        OneStrideError: that cannot be.
    """
    low, high = options.latency
    each_way = (0.5 * low, 0.5 * high)
    try:
        return Realism(
            measurement_latency=each_way,
            command_latency=each_way,
            jitter=options.jitter,
            dropped=options.drop,
            rate=options.publish_rate,
            noise=_noise(options.noise),
            friction=None if options.friction is None else tuple(options.friction),
        )
    except ValidationError as error:
        raise OneStrideError(f"cannot simulate that: {explain(error)}") from None


def _noise(factor: float) -> Noise:
    vectors = {name: factor * deviation for name, deviation in VECTORS.items()}
    return Noise(**{name: factor * deviation for name, deviation in NOISE.items()}, vectors=vectors)

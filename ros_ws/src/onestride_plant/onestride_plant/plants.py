"""Which plant: the robot as its description says, or with what is wrong with real ones."""

from __future__ import annotations

import argparse
from typing import Any

from onestride.hardware.description import RobotDescription
from onestride.hardware.plant import Plant
from onestride.hardware.realism import Realism, usual_realism
from onestride.hardware.realistic_plant import RealisticPlant
from onestride.hardware.scene import Scene


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
    return usual_realism(
        options.latency,
        noise=options.noise,
        jitter=options.jitter,
        dropped=options.drop,
        rate=options.publish_rate,
        friction=None if options.friction is None else tuple(options.friction),
    )

"""What was measured of a robot's delays, in a file of its own beside the robot's description."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError

from onestride.hardware.durable import write_atomic
from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import Model, Positive, explain

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Latency(Model):
    """Delays of a robot, and how they were measured.

    Attributes:
        sensor_to_command: from a joint state's stamp until the command that was made from it is sent, median [s].
        sensor_to_command_p99: the same, of which one in a hundred is longer [s].
        command_to_motion: from a command until its motion is heard of, median over stretches of the motion [s].
        command_to_motion_spread: half the range that the middle half of the stretches has [s].
        drive_lag: time constant with which the joint then follows [s].
        explained: share of the measured motion that delay and lag explain [1].
        joint: which was moved.
        amplitude: how far [rad].
        control_rate: of the commands [Hz].
        simulated: whether it was a plant.
        measured: when.
    """

    sensor_to_command: Seconds
    sensor_to_command_p99: Seconds
    command_to_motion: Seconds
    command_to_motion_spread: Seconds
    drive_lag: Seconds
    explained: Annotated[float, Field(ge=0, le=1)]
    joint: str
    amplitude: Positive
    control_rate: Positive
    simulated: bool
    measured: datetime


class RobotOverlay(Model):
    """What is known of one robot beyond its description.

    Attributes:
        schema_version: version of this format.
        overlay_of: id of the robot description.
        latency: measured delays.
    """

    schema_version: Literal[1] = 1
    overlay_of: str
    latency: Latency


def read_overlay(path: Path) -> RobotOverlay:
    """Read an overlay.

    Raises:
        OneStrideError: missing, unreadable, or another file, such as a robot description.
    """
    try:
        return RobotOverlay.model_validate(yaml.safe_load(path.read_bytes()))
    except OSError as error:
        raise OneStrideError(f"cannot read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise OneStrideError(f"{path}: not readable as YAML: {error}") from None
    except ValidationError as error:
        raise OneStrideError(f"{path}: expected a robot's overlay: {explain(error)}") from None


def write_overlay(path: Path, overlay: RobotOverlay) -> None:
    """Write an overlay, over an older one of the same robot and nothing else.

    Raises:
        OneStrideError: another file is there, or the place cannot be written.
    """
    if path.exists() and (found := read_overlay(path).overlay_of) != overlay.overlay_of:
        raise OneStrideError(f"{path}: expected an overlay of {overlay.overlay_of}, it is one of {found}")
    content = yaml.safe_dump(overlay.model_dump(mode="json"), sort_keys=False)
    try:
        write_atomic(path, f"# Measured by `onestride calibrate-latency`.\n{content}".encode(), path.parent)
    except OSError as error:
        raise OneStrideError(f"expected a writable place, got {path}: {error.strerror}") from error

"""The UR5e as if its drives' limits of acceleration and jerk were known: for tests of rows that need some."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

from onestride.hardware.description import RobotDescription

ACCELERATION, JERK = 40.0, 4000.0


def limited_content() -> dict[str, Any]:
    """Its YAML, with both limits for the six joints of the arm."""
    content: dict[str, Any] = yaml.safe_load(
        (resources.files("onestride.hardware") / "robots" / "ur5e_2f85.yaml").read_text(encoding="utf-8")
    )
    for joint in content["joints"][:6]:
        joint.update(acceleration=ACCELERATION, jerk=JERK)
    return content


def limited_ur5e() -> RobotDescription:
    """It, described."""
    return RobotDescription.model_validate(limited_content())

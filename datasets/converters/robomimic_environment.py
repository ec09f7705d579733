"""`env_args`: the environment a robomimic file was recorded in, and its form for robosuite 1.5."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import JsonValue

from onestride.datasets.converters import Report

PARTS = ("JOINT_VELOCITY", "JOINT_TORQUE", "JOINT_POSITION", "OSC_POSITION", "OSC_POSE", "IK_POSE")
"""Controllers of a single arm: up to robosuite 1.4 the whole of `controller_configs`."""

TWO_ARMS = ("Baxter", "GR1", "Tiago")
"""Beginnings of the names of robots with two arms of their own."""

_RENAMED = {"damping": "damping_ratio", "damping_limits": "damping_ratio_limits"}


def upgraded(arguments: dict[str, JsonValue], report: Report) -> dict[str, JsonValue]:
    """`env_args` in the form that robosuite 1.5 takes; unchanged where it has that form already.

    Reference: robosuite 1.5, `refactor_composite_controller_config`.
    """
    settings = arguments.get("env_kwargs")
    configs = settings.get("controller_configs") if isinstance(settings, dict) else None
    each: list[JsonValue] = configs if isinstance(configs, list) else [configs]
    if not isinstance(settings, dict) or not any(_is_old(one) for one in each):
        if arguments:
            report.kept.append("env_args: as recorded")
        return arguments
    refactor = _refactor()
    if refactor is None:
        report.changed.append(
            "env_args: as recorded, in the form before robosuite 1.5; with robosuite installed they are upgraded"
        )
        return arguments
    robots = _robots(settings.get("robots"))
    if not isinstance(configs, list):
        each = [configs] * max(1, len(set(robots)))
    new = [refactor(_renamed(one), robot, _arms(robot)) for one, robot in zip(each, _padded(robots, each), strict=True)]
    report.changed.append("env_args: controller_configs upgraded by robosuite's own function for robosuite 1.5")
    kwargs = {**settings, "controller_configs": new[0] if len(new) == 1 else new}
    return {**arguments, "env_kwargs": kwargs}


def _is_old(config: object) -> bool:
    return isinstance(config, dict) and "body_parts" not in config and config.get("type") in PARTS


def _renamed(config: JsonValue) -> Any:
    """The arm's part with the keys of robosuite 1.5: what it does not know it ignores without a word."""
    if not isinstance(config, dict) or not _is_old(config):
        return config
    part = {_RENAMED.get(key, key): value for key, value in config.items()}
    if "control_delta" in part and "input_type" not in part:
        part["input_type"] = "delta" if part["control_delta"] else "absolute"
    part.pop("control_delta", None)
    return part


def _robots(named: JsonValue) -> list[str]:
    return [str(one) for one in named] if isinstance(named, list) else [str(named)]


def _padded(robots: list[str], configs: list[JsonValue]) -> list[str]:
    return [*robots, *robots[-1:] * len(configs)][: len(configs)]


def _arms(robot: str) -> list[str]:
    return ["right", "left"] if robot.startswith(TWO_ARMS) else ["right"]


def _refactor() -> Any | None:
    """Robosuite's function; None where it is not installed or older than 1.5."""
    try:
        with quiet():
            from robosuite.controllers.composite.composite_controller_factory import (
                refactor_composite_controller_config,
            )
    except ImportError:
        return None

    def refactor(config: Any, robot: str, arms: list[str]) -> Any:
        with quiet():
            return copy.deepcopy(refactor_composite_controller_config(config, robot, arms))

    return refactor


@contextmanager
def quiet() -> Iterator[None]:
    """Robosuite greets every import with advice, and tells of every file it reads."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

"""The project's own tasks by name; MuJoCo is imported only when one is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from onestride.hardware.errors import unknown
from onestride.training.environments.energy_port import EnergySettings
from onestride.training.environments.interface import Interface

if TYPE_CHECKING:
    from onestride.training.environments.wall_push import WallPush

PATTERNS = ("onestride/wall-push[-aware][-filtered]-v0",)
_NAME = re.compile(r"onestride/wall-push(?P<aware>-aware)?(?P<filtered>-filtered)?-v0")

FREE, PENALTY = 0.8, 10.0
"""Of the aware variants: the share of the bound that is free, and the reward taken per joule beyond it."""


def canonical(name: str) -> str | None:
    """The name itself; None where there is no such task."""
    return name if _NAME.fullmatch(name) else None


def create(name: str, settings: Mapping[str, Any] | None) -> WallPush:
    """The environment of a canonical name.

    Args:
        name: of the task.
        settings: fields of `EnergySettings`, which override what the name says, and `energy` [J].

    Raises:
        OneStrideError: there is no such setting, or its value is refused.
    """
    from onestride.training.environments.wall_push import ENERGY, WallPush

    stated = dict(settings or {})
    energy = float(stated.pop("energy", ENERGY))
    known = [field.name for field in fields(EnergySettings)]
    for key in stated:
        if key not in known:
            raise unknown(f"setting of {name}", key, [*known, "energy"])
    return WallPush(name, replace(_by_name(name), **stated), energy)


def _by_name(name: str) -> EnergySettings:
    found = _NAME.fullmatch(name)
    if found is None:
        raise unknown("environment", name, PATTERNS)
    filtered = found["filtered"] is not None
    if not found["aware"]:
        return EnergySettings(filtered)
    return EnergySettings(filtered, observed=True, free=FREE, penalty=PENALTY)


def interface(_name: str) -> Interface | None:
    """None: no real robot is stated in these terms."""
    return None

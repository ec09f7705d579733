"""The project's own tasks by name; MuJoCo is imported only when one is made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from onestride.hardware.errors import unknown
from onestride.training.environments.energy_port import EnergySettings
from onestride.training.environments.interface import Interface

if TYPE_CHECKING:
    from onestride.training.environments.go2_walk import Go2Walk
    from onestride.training.environments.wall_push import WallPush

WALK = "onestride/go2-walk-v0"
PATTERNS = ("onestride/wall-push[-aware][-filtered]-v0", WALK)
_NAME = re.compile(r"onestride/wall-push(?P<aware>-aware)?(?P<filtered>-filtered)?-v0")

FREE, PENALTY = 0.8, 10.0
"""Of the aware variants: the share of the bound that is free, and the reward taken per joule beyond it."""


def canonical(name: str) -> str | None:
    """The name itself; None where there is no such task."""
    return name if name == WALK or _NAME.fullmatch(name) else None


def create(name: str, settings: Mapping[str, Any] | None) -> WallPush | Go2Walk:
    """The environment of a canonical name.

    Args:
        name: of the task.
        settings: of the walk, fields of `WalkSettings`; of the wall, fields of `EnergySettings`, which override what
            the name says, and `energy` [J].

    Raises:
        OneStrideError: there is no such setting, or its value is refused.
    """
    return _walk(settings or {}) if name == WALK else _wall_push(name, settings)


def _walk(settings: Mapping[str, Any]) -> Go2Walk:
    from onestride.training.environments.go2_walk import Go2Walk
    from onestride.training.environments.walk_settings import WalkSettings

    _known(WALK, settings, [field.name for field in fields(WalkSettings)])
    return Go2Walk(WALK, WalkSettings(**settings))


def _wall_push(name: str, settings: Mapping[str, Any] | None) -> WallPush:
    from onestride.training.environments.wall_push import ENERGY, WallPush

    stated = dict(settings or {})
    energy = float(stated.pop("energy", ENERGY))
    _known(name, stated, [field.name for field in fields(EnergySettings)], "energy")
    return WallPush(name, replace(_by_name(name), **stated), energy)


def _known(name: str, stated: Iterable[str], settings: list[str], *taken: str) -> None:
    """Refuse a setting that there is not; `taken` are those that were taken out before."""
    for key in stated:
        if key not in settings:
            raise unknown(f"setting of {name}", key, [*settings, *taken])


def _by_name(name: str) -> EnergySettings:
    found = _NAME.fullmatch(name)
    if found is None:
        raise unknown("environment", name, PATTERNS)
    filtered = found["filtered"] is not None
    if not found["aware"]:
        return EnergySettings(filtered)
    return EnergySettings(filtered, observed=True, free=FREE, penalty=PENALTY)


def interface(name: str) -> Interface | None:
    """The walk in robot terms; the pusher is no real robot."""
    if name != WALK:
        return None
    from onestride.training.environments.go2_interface import go2_interface

    return go2_interface()

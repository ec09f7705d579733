"""Your own environments: `python/MODULE:NAME` is a class or function of yours that makes one.

It takes the settings as keyword arguments and gives what `interface.Environment` asks for. The module is imported in
every process that acts or evaluates, so it must be on Python's path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from onestride.hardware.errors import OneStrideError, unknown
from onestride.training.environments.interface import Environment, Interface

PATTERNS = ("python/MODULE:NAME",)
_NAME = re.compile(r"python/(?P<module>[\w.]+):(?P<name>\w+)")


def canonical(name: str) -> str | None:
    """The name itself; None where it is not of this form."""
    return name if _NAME.fullmatch(name) else None


def create(name: str, settings: Mapping[str, Any] | None) -> Environment:
    """The environment that a function or class makes.

    Raises:
        OneStrideError: There is no such module or name in it.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise unknown("environment", name, PATTERNS)
    try:
        module = import_module(found["module"])
    except ModuleNotFoundError as error:
        raise OneStrideError(f"{name}: expected a module on Python's path, got: {error}") from None
    if not hasattr(module, found["name"]):
        known = [one for one in vars(module) if not one.startswith("_")]
        raise unknown(f"environment of {found['module']}", found["name"], known)
    return cast(Environment, getattr(module, found["name"])(**(settings or {})))


def interface(_name: str) -> Interface | None:
    """None: robot terms are stated in this package only."""
    return None

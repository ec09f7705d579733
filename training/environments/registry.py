"""Environments by name."""

from __future__ import annotations

from onestride.hardware.errors import OneStrideError, unknown
from onestride.training.environments.interface import Interface
from onestride.training.environments.ogbench_cube import CUBES, NAMES, CubeEnvironment
from onestride.training.environments.ogbench_interface import cube_interface

AVAILABLE: tuple[str, ...] = NAMES


def make(name: str) -> CubeEnvironment:
    """Create an environment by id.

    Raises:
        OneStrideError: no such environment, or its package is not installed.
    """
    if name not in AVAILABLE:
        raise unknown("environment", name, AVAILABLE)
    try:
        return CubeEnvironment(name)
    except ModuleNotFoundError as error:
        raise OneStrideError(f"{name} needs {error.name}: pip install 'onestride[sim]'") from None


def interface(name: str) -> Interface | None:
    """What a policy sees and does in an environment, without creating it; None where that is not stated."""
    if name not in NAMES:
        return None
    return cube_interface(CUBES[name.split("-")[1]])

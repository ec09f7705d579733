"""Environments that come with a scripted expert."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from onestride.hardware.errors import OneStrideError
from onestride.training.environments.interface import Array, Environment, Interface
from onestride.training.environments.registry import make


class Oracle(Protocol):
    """A scripted expert in a running episode."""

    def act(self) -> Array:
        """The expert's action (Da,) in [-1, 1] for the current state; asked once before every step."""
        ...


@runtime_checkable
class Demonstrable(Environment, Protocol):
    """An environment with an expert."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Whose versions decide what an episode is."""
        ...

    @property
    def interface(self) -> Interface | None:
        """Observation and action in robot terms; None where that is not stated."""
        ...

    @property
    def physics(self) -> tuple[Any, Any]:
        """The simulation: MuJoCo model and data."""
        ...

    def oracle(self, name: str, seed: int) -> Oracle:
        """An expert for the running episode."""
        ...


def demonstrable(name: str) -> Demonstrable:
    """The environment of a name.

    Raises:
        OneStrideError: no such environment, its package is not installed, or nobody has scripted an expert for it.
    """
    environment = make(name)
    if isinstance(environment, Demonstrable):
        return environment
    environment.close()
    raise OneStrideError(
        f"{name}: expected an environment with a scripted expert, available: "
        "ogbench/cube-*-singletask-*-v0, onestride/go2-walk-v0, onestride/wall-push[-aware][-filtered]-v0"
    )

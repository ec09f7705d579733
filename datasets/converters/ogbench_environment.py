"""What an OGBench dataset's name says: the environment, its control rate, and the rewards of a single task."""

from __future__ import annotations

import re
from typing import Any, Protocol

import numpy as np

from onestride.datasets.schema import Array, LabelSource
from onestride.hardware.errors import OneStrideError

PREFIX = "ogbench/"

RATES = {
    "cube": 20.0,
    "scene": 20.0,
    "puzzle": 20.0,
    "pointmaze": 10.0,
    "antmaze": 10.0,
    "antsoccer": 10.0,
    "humanoidmaze": 40.0,
}
"""First word of an environment -> control rate [Hz] (ogbench 1.2: control_timestep, or frame_skip x timestep)."""

_TYPES = ("play", "noisy", "navigate", "stitch", "explore")
"""Words that say how a dataset was collected, and are no part of the environment's name."""


def environment_of(stem: str) -> str | None:
    """The environment of a file named `cube-double-play-v0`; None where the name is no dataset's of OGBench."""
    words = stem.removesuffix("-val").split("-")
    if len(words) < 3 or not re.fullmatch(r"v\d+", words[-1]) or words[0] not in (*RATES, "visual", "powderworld"):
        return None
    return PREFIX + "-".join([*words[:-2], words[-1]] if words[-2] in _TYPES else words)


def rate_of(environment: str | None) -> float | None:
    """Control rate [Hz]; None where unknown."""
    words = (environment or "").removeprefix(PREFIX).split("-")
    return RATES.get(words[1] if words[0] == "visual" and len(words) > 1 else words[0])


def label_source_of(environment: str | None) -> LabelSource:
    """Manipulation was collected by scripted oracles, locomotion by trained policies."""
    return "oracle" if re.search(r"cube|scene|puzzle", environment or "") else "unknown"


def is_single_task(environment: str | None) -> bool:
    """Whether the environment has a reward of its own."""
    return environment is not None and "singletask" in environment.split("-")


class Relabel(Protocol):
    """Gives an episode's rows their rewards and masks."""

    def __call__(self, info: dict[str, Array]) -> tuple[Array, Array]:
        """Rewards and masks (T,) float32 from `qpos` (T, nq) and, where there are buttons, `button_states`."""
        ...


class Relabeller:
    """The package's own relabelling for a single task, with the goal of one reset as the package does it.

    Raises:
        OneStrideError: the package is missing, or has no such environment.
    """

    def __init__(self, environment: str) -> None:
        gymnasium, self._relabel = _packages()
        self._name = _registered(environment.removeprefix(PREFIX), gymnasium.registry)
        self._environment = gymnasium.make(self._name)
        self._environment.reset()
        self.unwrapped = self._environment.unwrapped

    @property
    def environment(self) -> str:
        """The environment as the package names it."""
        return PREFIX + self._name

    def reset(self) -> None:
        """The package resets before every call: here the goal stays that of the first reset."""

    def __call__(self, info: dict[str, Array]) -> tuple[Array, Array]:
        """See `Relabel`.

        Raises:
            OneStrideError: the rows do not fit the environment.
        """
        rows = dict(info)
        try:
            self._relabel(self._name, self, rows)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            has = ", ".join(f"{key} {value.shape}" for key, value in info.items()) or "nothing"
            raise OneStrideError(f"{self._name}: expected the state of this environment, got {has}") from error
        return np.asarray(rows["rewards"], np.float32), np.asarray(rows["masks"], np.float32)

    def close(self) -> None:
        """Release the environment."""
        self._environment.close()


def _packages() -> tuple[Any, Any]:
    try:
        import gymnasium
        import ogbench  # noqa: F401
        from ogbench.relabel_utils import relabel_dataset
    except ImportError as error:
        raise OneStrideError(
            "expected the package ogbench for the rewards of a single task, got none: pip install 'onestride[sim]'"
        ) from error
    return gymnasium, relabel_dataset


def _registered(name: str, registry: Any) -> str:
    """The name the package knows: as given, or without the word for the way of collecting."""
    words = name.split("-")
    place = words.index("singletask")
    for candidate in (name, "-".join(words[: place - 1] + words[place:])):
        if candidate in registry:
            return candidate
    known = sorted(one for one in registry if one.startswith(words[0]) and "singletask" in one)
    raise OneStrideError(f"unknown environment: got {name!r}, available: {', '.join(known) or 'none of this name'}")

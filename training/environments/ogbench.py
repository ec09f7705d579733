"""OGBench's single tasks by name.

The package names an environment `cube-double-singletask-task3-v0`, and a dataset's task with one word more,
`cube-double-play-singletask-task3-v0`. Both make the same environment; its canonical name is the package's own.
Without `-taskN` it is the task that the package calls the default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from onestride.hardware.errors import OneStrideError
from onestride.training.environments.interface import Environment, Interface
from onestride.training.environments.ogbench_interface import cube_interface

PREFIX = "ogbench/"
CUBES = {"single": 1, "double": 2, "triple": 3, "quadruple": 4}
MAZES = ("medium", "large", "giant", "teleport")

KINDS: dict[str, tuple[str, ...]] = {
    **{f"cube-{kind}": ("play", "noisy") for kind in CUBES},
    "scene": ("play", "noisy"),
    **{f"puzzle-{size}": ("play", "noisy") for size in ("3x3", "4x4", "4x5", "4x6")},
    **{f"{body}-{maze}": ("navigate", "stitch", "explore") for body in ("antmaze", "pointmaze") for maze in MAZES},
}
"""Kind -> words that a dataset's name may put after it."""

PATTERNS = (
    "ogbench/cube-{single,double,triple,quadruple}[-play]-singletask[-task{1..5}]-v0",
    "ogbench/scene[-play]-singletask[-task{1..5}]-v0",
    "ogbench/puzzle-{3x3,4x4,4x5,4x6}[-play]-singletask[-task{1..5}]-v0",
    "ogbench/{antmaze,pointmaze}-{medium,large,giant,teleport}[-navigate]-singletask[-task{1..5}]-v0",
)

_NAME = re.compile(r"(?P<kind>[a-z0-9-]+?)(?:-(?P<way>[a-z]+))?-singletask(?P<task>-task[1-5])?-v0")


def canonical(name: str) -> str | None:
    """The package's own name, for it or for a dataset's; None where there is no such task."""
    match = _NAME.fullmatch(name.removeprefix(PREFIX))
    if match is None or not name.startswith(PREFIX):
        return None
    kind, way = match["kind"], match["way"]
    if way is not None and way not in KINDS.get(kind, ()):
        kind, way = f"{kind}-{way}", None
    return f"{PREFIX}{kind}-singletask{match['task'] or ''}-v0" if kind in KINDS else None


def create(name: str, settings: Mapping[str, Any] | None) -> Environment:
    """The environment of a canonical name.

    Raises:
        OneStrideError: settings, of which OGBench has none.
    """
    if settings:
        raise OneStrideError(f"{name}: expected no settings, its name says all, got {', '.join(settings)}")
    kind = kind_of(name)
    if kind.startswith("cube"):
        from onestride.training.environments.ogbench_cube import CubeEnvironment

        return CubeEnvironment(name)
    if "maze" in kind:
        from onestride.training.environments.ogbench_maze import MazeEnvironment

        return MazeEnvironment(name)
    from onestride.training.environments.ogbench_manipulation import ManipulationEnvironment

    return ManipulationEnvironment(name)


def interface(name: str) -> Interface | None:
    """The cube tasks in robot terms; no other task's objects are stated there."""
    kind = kind_of(name)
    return cube_interface(CUBES[kind.removeprefix("cube-")]) if kind.startswith("cube-") else None


def play_kind(name: str) -> str | None:
    """`cube-double` of `ogbench/cube-double-play` or `ogbench/cube-double-play-v0`; None where nobody can play."""
    if not name.startswith(PREFIX):
        return None
    kind = name.removeprefix(PREFIX).removesuffix("-v0").removesuffix("-play")
    return kind if name.removesuffix("-v0").endswith("-play") and "play" in KINDS.get(kind, ()) else None


def play_names() -> list[str]:
    """All that there are to play in."""
    return [f"{PREFIX}{kind}-play" for kind, ways in KINDS.items() if "play" in ways]


def kind_of(name: str) -> str:
    """`cube-double` of `ogbench/cube-double-singletask-task3-v0`."""
    return name.removeprefix(PREFIX).split("-singletask")[0]

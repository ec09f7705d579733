"""Looking through a robomimic file before a byte is converted: which columns all demonstrations share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from onestride.datasets.converters import Report
from onestride.datasets.converters.robomimic_features import (
    STANDARD_OBSERVATIONS,
    EnvironmentFacts,
    describe_action,
    describe_observation,
)
from onestride.datasets.schema import Feature, Role
from onestride.hardware.errors import OneStrideError

Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Path of a data set within its demonstration -> shape of a row, dtype."""

_SCALARS: dict[str, tuple[str, Role]] = {"rewards": ("reward", "reward"), "dones": ("terminal", "terminal")}


@dataclass(frozen=True)
class Column:
    """A data set, at `path` within every demonstration, that becomes a feature."""

    path: str
    feature: Feature


@dataclass(frozen=True)
class Survey:
    """What will be read."""

    demos: tuple[str, ...]
    columns: tuple[Column, ...]
    finals: tuple[str, ...]
    """Observation keys whose value after the last action is known."""


def survey(data: Any, facts: EnvironmentFacts, report: Report) -> Survey:
    """Look through the group `data` without converting anything.

    Raises:
        OneStrideError: no demonstrations, or one without actions, of unequal lengths, or unlike the others.
    """
    demos = tuple(sorted((name for name in data if isinstance(data[name], h5py.Group)), key=_natural))
    if not demos:
        raise OneStrideError("expected groups data/demo_<i>, got none")
    shapes = _common(data, demos, report)
    columns = _columns(shapes, facts, report)
    finals = _survey_next(data, demos, shapes, columns, report)
    return Survey(demos, tuple(columns), finals)


def _natural(name: str) -> tuple[object, ...]:
    """Sort key that puts `demo_2` before `demo_10`."""
    return tuple((part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", name))


def _common(data: Any, demos: tuple[str, ...], report: Report) -> Shapes:
    """The data sets that every demonstration has, alike in all of them."""
    each = {demo: _shapes(data[demo], demo) for demo in demos}
    first = each[demos[0]]
    counts: dict[str, int] = {}
    for shapes in each.values():
        for path in shapes:
            counts[path] = counts.get(path, 0) + 1
    for path, count in counts.items():
        if count < len(demos):
            report.left_out.append(f"{path}: only in {count} of {len(demos)} demonstrations")
    common = {path: row for path, row in first.items() if counts[path] == len(demos)}
    for demo, shapes in each.items():
        for path, row in common.items():
            if shapes[path] != row:
                raise OneStrideError(f"data/{demo}/{path}: expected rows of {row}, got {shapes[path]}")
    return common


def _shapes(demo: Any, name: str) -> Shapes:
    found: dict[str, Any] = {}
    demo.visititems(lambda path, node: found.update({path: node}) if isinstance(node, h5py.Dataset) else None)
    if "actions" not in found or found["actions"].ndim != 2 or len(found["actions"]) == 0:
        got = found["actions"].shape if "actions" in found else "none"
        raise OneStrideError(f"data/{name}/actions: expected actions of shape (T, D), got {got}")
    length = len(found["actions"])
    for path, node in found.items():
        if node.ndim == 0 or len(node) != length:
            raise OneStrideError(f"data/{name}/{path}: expected {length} rows as in actions, got {node.shape}")
    return {path: (tuple(node.shape[1:]), node.dtype) for path, node in found.items()}


def _columns(shapes: Shapes, facts: EnvironmentFacts, report: Report) -> list[Column]:
    """One column for each data set of numbers with at most one axis per step; observations first."""
    columns = []
    for path in sorted(shapes, key=_rank):
        shape, dtype = shapes[path]
        if len(shape) > 1 or dtype.kind not in "biuf":
            report.left_out.append(f"{path}: rows of {shape} {dtype.name}, not low-dimensional")
        elif not _is_next_of(path, shapes):
            columns.append(Column(path, _feature(path, shape, dtype, facts)))
    return columns


def _is_next_of(path: str, shapes: Shapes) -> bool:
    """Whether it is the `next_obs` of a key in `obs`, which `_survey_next` decides on."""
    return path.startswith("next_obs/") and path.removeprefix("next_") in shapes


def _rank(path: str) -> tuple[int, int, str]:
    standard = [f"obs/{key}" for key in STANDARD_OBSERVATIONS]
    groups = ("obs", "actions", "rewards", "dones", "states")
    head = path.split("/")[0]
    group = groups.index(head) if head in groups else len(groups)
    return group, standard.index(path) if path in standard else len(standard), path


def _feature(path: str, shape: tuple[int, ...], dtype: np.dtype[Any], facts: EnvironmentFacts) -> Feature:
    head, _, rest = path.partition("/")
    size = int(np.prod(shape))
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    role: Role = "info"
    name = path.replace("/", ".")
    if path in _SCALARS:
        name, role = _SCALARS[path]
    elif path == "actions":
        name, role = "action", "action"
        names, units = describe_action(size, facts)
    elif head == "obs":
        name, role = rest.replace("/", "."), "observation"
        names, units = describe_observation(rest, size, facts)
    elif head == "states":
        name, role = f"state.{rest.replace('/', '.') or 'flat'}", "state"
    return Feature(name=name, role=role, shape=shape, dtype=dtype.name, names=names, units=units)


def _survey_next(
    data: Any, demos: tuple[str, ...], shapes: Shapes, columns: list[Column], report: Report
) -> tuple[str, ...]:
    """Keys of `next_obs` whose last row is a final value; those that tell more become columns of their own."""
    finals = []
    for path in [column.path for column in columns if column.path.startswith("obs/")]:
        key = path.removeprefix("obs/")
        if f"next_{path}" not in shapes:
            continue
        if shapes[f"next_{path}"] == shapes[path]:
            finals.append(key)
        broken = [demo for demo in demos if not _chains(data[demo], path)]
        if broken:
            columns.append(Column(f"next_{path}", _next_feature(key, shapes[f"next_{path}"])))
            report.changed.append(
                f"next_{path}: differs from the following {path} in {len(broken)} demonstrations "
                f"(first: {broken[0]}), kept as feature next_{key}"
            )
    if finals:
        report.kept.append(
            f"next_obs: last row of {len(finals)} keys, as final values; the other rows repeat obs, or are told below"
        )
    return tuple(finals)


def _chains(demo: Any, path: str) -> bool:
    """Whether next_obs[t] is obs[t+1] to the bit."""
    now, following = demo[path][1:], demo[f"next_{path}"][:-1]
    return bool(now.dtype == following.dtype and now.tobytes() == following.tobytes())


def _next_feature(key: str, row: tuple[tuple[int, ...], np.dtype[Any]]) -> Feature:
    name = f"next_{key.replace('/', '.')}"
    return Feature(name=name, role="info", shape=row[0], dtype=row[1].name)

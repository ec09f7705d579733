"""Looking through a robomimic file before a byte is converted: which columns all demonstrations share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from onestride.datasets.converters import Report
from onestride.datasets.converters.passport import Passport
from onestride.datasets.converters.robomimic_features import (
    STANDARD_OBSERVATIONS,
    EnvironmentFacts,
    describe_action,
    describe_observation,
)
from onestride.datasets.schema import Array, Feature, Role
from onestride.hardware.errors import OneStrideError, unknown

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
    lengths: dict[str, int]
    """Steps of each demonstration."""


@dataclass(frozen=True)
class _Look:
    """What one demonstration holds; each of its data sets is opened once, which is what takes the time."""

    shapes: Shapes
    length: int
    broken: frozenset[str]
    """Observations whose `next_obs` is not the following row."""


def survey(
    data: Any, facts: EnvironmentFacts, passport: Passport | None, leave_out: tuple[str, ...], report: Report
) -> Survey:
    """Look through the group `data` without converting anything.

    Args:
        data: the group.
        facts: what `env_args` says.
        passport: what our own export said about the data.
        leave_out: paths within a demonstration that are not read, or names of features.
        report: told what is left out.

    Raises:
        OneStrideError: no demonstrations, or one without actions, of unequal lengths, or unlike the others.
    """
    demos = tuple(sorted((name for name in data if isinstance(data[name], h5py.Group)), key=_natural))
    if not demos:
        raise OneStrideError("expected groups data/demo_<i>, got none")
    own = (str(passport.notes.get("timestamps")),) if passport else ()
    looks = {demo: _look(data[demo], demo, leave_out) for demo in demos}
    shapes = _common(looks, own, report)
    columns = _columns(shapes, facts, passport, report)
    columns = _wanted(columns, leave_out, report)
    finals = _survey_next(looks, shapes, columns, report)
    return Survey(demos, tuple(columns), finals, {demo: look.length for demo, look in looks.items()})


def _natural(name: str) -> tuple[object, ...]:
    """Sort key that puts `demo_2` before `demo_10`."""
    return tuple((part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", name))


def _common(looks: dict[str, _Look], own: tuple[str, ...], report: Report) -> Shapes:
    """The data sets that every demonstration has, alike in all of them, but our own."""
    counts: dict[str, int] = {}
    for look in looks.values():
        for path in (path for path in look.shapes if path not in own):
            counts[path] = counts.get(path, 0) + 1
    for path, count in counts.items():
        if count < len(looks):
            report.left_out.append(f"{path}: only in {count} of {len(looks)} demonstrations")
    first = next(iter(looks.values()))
    common = {path: row for path, row in first.shapes.items() if counts.get(path) == len(looks)}
    for demo, look in looks.items():
        for path, row in common.items():
            if look.shapes[path] != row:
                raise OneStrideError(f"data/{demo}/{path}: expected rows of {row}, got {look.shapes[path]}")
    return common


def _look(demo: Any, name: str, leave_out: tuple[str, ...]) -> _Look:
    found: dict[str, Any] = {}
    demo.visititems(lambda path, node: found.update({path: node}) if isinstance(node, h5py.Dataset) else None)
    if "actions" not in found or found["actions"].ndim != 2 or len(found["actions"]) == 0:
        got = found["actions"].shape if "actions" in found else "none"
        raise OneStrideError(f"data/{name}/actions: expected actions of shape (T, D), got {got}")
    length = len(found["actions"])
    shapes: Shapes = {}
    for path, node in found.items():
        shape = node.shape
        if shape is None or shape[:1] != (length,):
            raise OneStrideError(f"data/{name}/{path}: expected {length} rows as in actions, got {shape}")
        shapes[path] = (tuple(shape[1:]), node.dtype)
    skipped = {name for path in leave_out for name in (path, f"obs/{path}")}
    chained = [path for path in found if path.startswith("obs/") and f"next_{path}" in found and path not in skipped]
    broken = frozenset(path for path in chained if not _chains(found[path], found[f"next_{path}"], shapes, path))
    return _Look(shapes, length, broken)


def _columns(shapes: Shapes, facts: EnvironmentFacts, passport: Passport | None, report: Report) -> list[Column]:
    """One column for each data set of numbers; observations first, or in the order they once had."""
    columns = []
    for path in sorted(shapes, key=_rank):
        shape, dtype = shapes[path]
        known = passport.feature_at(path, shape, dtype.name) if passport else None
        if known is not None:
            columns.append(Column(path, known))
        elif dtype.kind not in "biuf":
            report.left_out.append(f"{path}: rows of {shape} {dtype.name}, no numbers")
        elif not _is_next_of(path, shapes):
            columns.append(Column(path, _feature(path, shape, dtype, facts)))
    if passport is not None:
        order = [feature.name for feature in passport.schema.features]
        columns.sort(key=lambda one: order.index(one.feature.name) if one.feature.name in order else len(order))
    return columns


def _wanted(columns: list[Column], leave_out: tuple[str, ...], report: Report) -> list[Column]:
    """The columns that are not left out on demand.

    Raises:
        OneStrideError: something to leave out is not there, or is the action.
    """
    names = {name: column for column in columns for name in (column.path, column.feature.name)}
    for name in leave_out:
        if name not in names or names[name].path == "actions":
            raise unknown("data set to leave out", name, [one.path for one in columns if one.path != "actions"])
    unwanted = {names[name].path for name in leave_out}
    report.left_out += [f"{path}: as asked for" for path in sorted(unwanted)]
    return [column for column in columns if column.path not in unwanted]


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


def _survey_next(looks: dict[str, _Look], shapes: Shapes, columns: list[Column], report: Report) -> tuple[str, ...]:
    """Keys of `next_obs` whose last row is a final value; those that tell more become columns of their own."""
    finals = []
    taken = {column.path for column in columns}
    for path in sorted(path for path in taken if path.startswith("obs/") and f"next_{path}" in shapes):
        key = path.removeprefix("obs/")
        if shapes[f"next_{path}"] == shapes[path]:
            finals.append(key)
        if f"next_{path}" in taken:
            continue
        broken = [demo for demo, look in looks.items() if path in look.broken]
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


def _chains(observed: Any, following: Any, shapes: Shapes, path: str) -> bool:
    """Whether next_obs[t] is obs[t+1] to the bit."""
    if shapes[path] != shapes[f"next_{path}"]:
        return False
    return bool(np.array_equal(_as_bytes(observed[...][1:]), _as_bytes(following[...][:-1])))


def _as_bytes(rows: Array) -> Array:
    """Bits, so that -0.0 is not 0.0, without a copy."""
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8)


def _next_feature(key: str, row: tuple[tuple[int, ...], np.dtype[Any]]) -> Feature:
    name = f"next_{key.replace('/', '.')}"
    return Feature(name=name, role="info", shape=row[0], dtype=row[1].name)

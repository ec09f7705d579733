"""Looking through an OGBench file before a row is converted: its arrays, its trajectories, our note if it has one."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from onestride.datasets.converters import Options, Report
from onestride.datasets.converters.npz_rows import Rows, keys_of, opened, read_note
from onestride.datasets.converters.passport import Passport, read_passport
from onestride.datasets.converters.streaming import wanted
from onestride.datasets.schema import BASE, Array, Feature, Role
from onestride.hardware.errors import OneStrideError, unknown

NOTE = "onestride.json"
"""Member of the archive that holds the passport; `numpy.load` leaves it alone."""

OBSERVATIONS, ACTIONS, TERMINALS = "observations", "actions", "terminals"

_REQUIRED = (OBSERVATIONS, ACTIONS, TERMINALS)
_BLOCK = 1 << 20
_ROLES: dict[str, tuple[str, Role]] = {
    OBSERVATIONS: ("observation", "observation"),
    ACTIONS: ("action", "action"),
    TERMINALS: ("terminal", "terminal"),
    "rewards": ("reward", "reward"),
    "masks": ("mask", "mask"),
}


@dataclass(frozen=True)
class Column:
    """An array, or some columns of one, that becomes a feature."""

    key: str
    feature: Feature
    span: tuple[int, int] | None = None
    """First and last column (exclusive) of the array's flattened rows; None = the whole array as it is."""

    def of(self, rows: Array) -> Array:
        """The feature's part of the array's rows (n, *shape)."""
        if self.span is None:
            return rows
        part = rows.reshape(len(rows), -1)[:, slice(*self.span)]
        return np.ascontiguousarray(part.reshape(len(rows), *self.feature.shape), self.feature.dtype)


@dataclass(frozen=True)
class Note:
    """What our own export said of a file, beyond its arrays."""

    passport: Passport
    attributes: list[dict[str, JsonValue]]
    """Of each trajectory."""
    finals: list[list[str]]
    """Features whose last row is a final value, for each trajectory."""
    clock: str | None
    """Array of measured timestamps."""


@dataclass(frozen=True)
class Surveyed:
    """One npz file that was looked through."""

    path: Path
    split: str
    columns: tuple[Column, ...]
    ends: NDArray[np.int64]
    """Row after each trajectory's last (E,)."""
    note: Note | None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Rows of each trajectory (E,)."""
        return np.diff(self.ends, prepend=0)

    @property
    def keys(self) -> tuple[str, ...]:
        """Arrays that are read."""
        clock = (self.note.clock,) if self.note and self.note.clock else ()
        return tuple(dict.fromkeys((*(column.key for column in self.columns), *clock)))


def survey(path: Path, split: str, options: Options, report: Report) -> Surveyed:
    """Look through one file without converting anything.

    Raises:
        OneStrideError: damaged, a key missing, arrays of unequal lengths, or an end that is none.
    """
    with opened(path) as archive:
        keys = keys_of(archive)
        missing = [key for key in _REQUIRED if key not in keys]
        if missing:
            raise OneStrideError(f"expected {', '.join(_REQUIRED)}, got no {', '.join(missing)}")
        rows = {key: Rows(archive, key) for key in keys}
        _check_lengths(rows)
        ends = _ends(rows[TERMINALS])
        note, quiet = _note(archive, rows, len(ends), report), split == "val"
        if note is not None:
            columns = _columns_of_note(note, options, Report() if quiet else report)
        else:
            columns = _columns(rows, options, report, quiet=quiet)
    return Surveyed(path, split, tuple(columns), ends, note)


def _check_lengths(rows: dict[str, Rows]) -> None:
    length = rows[ACTIONS].length
    for key in _REQUIRED:
        if rows[key].length != length:
            raise OneStrideError(f"{key}: expected {length} rows as in actions, got {rows[key].length}")


def _ends(terminals: Rows) -> NDArray[np.int64]:
    """Row after each trajectory's last (E,), of a file whose last row ends one."""
    if terminals.shape or terminals.dtype.kind not in "biuf":
        raise OneStrideError(f"terminals: expected (N,) numbers, got {terminals.shape} {terminals.dtype}")
    found, start = [np.zeros(1, np.int64)], 0
    while start < terminals.length:
        block = terminals.read(min(_BLOCK, terminals.length - start))
        strange = np.flatnonzero((block != 0) & (block != 1))
        if len(strange):
            raise OneStrideError(f"terminals: expected 0 or 1, got {block[strange[0]]} in row {start + strange[0]}")
        found.append(np.flatnonzero(block) + start + 1)
        start += len(block)
    ends = np.concatenate(found).astype(np.int64)
    if ends[-1] != terminals.length or len(ends) == 1:
        rest = terminals.length - int(ends[-1])
        raise OneStrideError(
            f"terminals: expected the last row to end a trajectory, got {rest} rows after the last end"
        )
    return ends[1:]


def _columns(rows: dict[str, Rows], options: Options, report: Report, *, quiet: bool) -> list[Column]:
    for name in options.leave_out:
        if name not in rows or name in _REQUIRED:
            raise unknown("array to leave out", name, [key for key in rows if key not in _REQUIRED])
    columns = []
    for key, array in rows.items():
        reason = _unfit(key, array, rows[ACTIONS].length, options)
        if reason is None:
            columns.append(Column(key, _feature(key, array)))
        elif not quiet:
            report.left_out.append(f"{key}: {reason}")
    return columns


def _unfit(key: str, array: Rows, length: int, options: Options) -> str | None:
    """Why an array is not brought over."""
    if key in options.leave_out:
        return "as asked for"
    if array.length != length:
        return f"{array.length} rows, not {length}"
    if array.dtype.kind not in "biuf":
        return f"{array.dtype}, no numbers"
    return None if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", key) else "not a usable name"


def _feature(key: str, array: Rows) -> Feature:
    name, role = _ROLES.get(key, (f"state.{key}", "state"))
    try:
        return Feature(name=name, role=role, shape=array.shape, dtype=array.dtype.name)
    except ValidationError as error:
        raise OneStrideError(f"{key}: expected a usable array, got: {error.errors()[0]['msg']}") from error


def _note(archive: zipfile.ZipFile, rows: dict[str, Rows], count: int, report: Report) -> Note | None:
    """Our note, where there is one and it fits the arrays."""
    passport = read_passport(read_note(archive, NOTE))
    if passport is None:
        return None
    attributes, finals, clock = (passport.notes.get(name) for name in ("attributes", "finals", "clock"))
    fits = isinstance(attributes, list) and isinstance(finals, list) and len(attributes) == len(finals) == count
    keys = [*passport.paths.values(), *([clock] if clock else [])]
    if not fits or any(str(key) not in rows or rows[str(key)].length != rows[ACTIONS].length for key in keys):
        report.changed.append(f"{NOTE}: does not fit the arrays, which were changed since; read as any other file")
        return None
    return Note(
        passport,
        [dict(one) for one in attributes if isinstance(one, dict)] if isinstance(attributes, list) else [],
        [[str(name) for name in one] for one in finals if isinstance(one, list)] if isinstance(finals, list) else [],
        str(clock) if clock else None,
    )


def _columns_of_note(note: Note, options: Options, report: Report) -> list[Column]:
    """The features as they were."""
    spans = note.passport.notes.get("spans")
    spans = spans if isinstance(spans, dict) else {}
    columns = []
    for feature in wanted(note.passport.schema, options.leave_out, report):
        key = note.passport.paths.get(feature.name)
        if key is None:
            continue
        span = spans.get(feature.name)
        plain = feature.model_copy(update={"stream": BASE, "codec": "lossless"})
        columns.append(Column(key, plain, (int(span[0]), int(span[1])) if isinstance(span, list) else None))  # type: ignore[arg-type]
    return columns

"""Reading OGBench's npz datasets: flat arrays of whole trajectories, and the `-val.npz` beside them.

A trajectory of n rows holds n - 1 transitions: its last row is the state after the last action, and the action in it
was never answered. So the last row becomes the final values, as `ogbench.utils.load_dataset` makes of it the last
next observation. One trajectory at a time is in memory.

Reference: ogbench 1.2, `utils.load_dataset` and `relabel_utils.relabel_dataset`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from onestride.datasets.converters import Options, Report, Source
from onestride.datasets.converters.npz_rows import Rows, is_npz, opened
from onestride.datasets.converters.ogbench_environment import (
    PREFIX,
    Relabel,
    Relabeller,
    environment_of,
    is_single_task,
    label_source_of,
    rate_of,
)
from onestride.datasets.converters.ogbench_survey import ACTIONS, TERMINALS, Surveyed, survey
from onestride.datasets.converters.passport import origin
from onestride.datasets.provenance import Provenance
from onestride.datasets.provenance import Source as SourceFile
from onestride.datasets.schema import BASE, Array, Episode, Feature, Schema, synthetic_clock
from onestride.hardware.errors import OneStrideError

VERSION = 1
OPTIONS = ("environment", "control_rate", "leave_out")

UNKNOWN_RATE = 1.0
"""Of the clock of a dataset whose rate nobody knows: steps count as seconds [Hz]."""

recognises = is_npz


def read(path: Path, report: Report, options: Options) -> Source:
    """Look through a dataset and its validation part, and make the trajectories available one by one.

    Raises:
        OneStrideError: damaged, a key missing, arrays of unequal lengths, or an unknown environment.
    """
    files = [survey(one, split, options, report) for one, split in _parts(path, report)]
    for file in files[1:]:
        if file.columns != files[0].columns:
            raise OneStrideError(f"{file.path}: expected arrays like those of {path.name}, got others")
    environment = _environment(files[0], options)
    relabel = Relabeller(environment) if environment and _is_to_relabel(files[0], environment) else None
    schema = _schema(files[0], relabel.environment if relabel else environment, relabel is not None, options)
    _report(files, schema, relabel is not None, report)
    count = sum(int((file.lengths > 1).sum()) for file in files)
    provenance = partial(_provenance, files, schema, relabel is not None)
    return Source(schema, provenance, count, _episodes(files, schema, relabel))


def _parts(path: Path, report: Report) -> list[tuple[Path, str]]:
    """The file, and the validation part beside it."""
    if path.stem.endswith("-val"):
        return [(path, "val")]
    beside = path.with_name(f"{path.stem}-val{path.suffix}")
    if beside.is_file():
        return [(path, "train"), (beside, "val")]
    report.left_out.append(f"{beside.name}: not there")
    return [(path, "train")]


def _environment(file: Surveyed, options: Options) -> str | None:
    if options.environment is not None:
        return options.environment if options.environment.startswith(PREFIX) else PREFIX + options.environment
    return file.note.passport.schema.environment if file.note else environment_of(file.path.stem)


def _is_to_relabel(file: Surveyed, environment: str) -> bool:
    rewarded = any(column.feature.role in ("reward", "mask") for column in file.columns)
    return is_single_task(environment) and not rewarded


def _schema(file: Surveyed, environment: str | None, relabelled: bool, options: Options) -> Schema:
    features = [column.feature for column in file.columns]
    if relabelled:
        features += [Feature(name=name, role=name, shape=(), dtype="float32") for name in ("reward", "mask")]
    known: dict[str, Any] = {
        "control_rate": rate_of(environment),
        "label": "action",
        "label_source": label_source_of(environment),
    }
    if file.note is not None:
        known = file.note.passport.schema.model_dump()
        features = file.note.passport.ordered(features)
    known |= {"features": tuple(features), "environment": environment}
    known |= {"control_rate": options.control_rate} if options.control_rate else {}
    try:
        return Schema.model_validate(known)
    except ValidationError as error:
        raise OneStrideError(f"{file.path}: expected usable features, got: {error.errors()[0]['msg']}") from error


def _provenance(files: list[Surveyed], schema: Schema, relabelled: bool) -> Provenance:
    before = origin(files[0].note.passport if files[0].note else None)
    keys = {column.feature.name: column.key for column in files[0].columns if column.span is None}
    return Provenance.now(
        "convert ogbench",
        command_version=VERSION,
        packages=("ogbench",) if relabelled else (),
        sources=tuple(SourceFile.of(file.path) for file in files),
        parents=before["parents"],
        environment=schema.environment,
        extra={"keys": keys, "relabelled": relabelled, **before["extra"]},
    )


def _report(files: list[Surveyed], schema: Schema, relabelled: bool, report: Report) -> None:
    for column in files[0].columns:
        feature = column.feature
        report.kept.append(f"{column.key}: {feature.name} {feature.shape or 'scalar'} {feature.dtype}")
    for file in files:
        report.kept.append(f"{file.path.name}: {len(file.ends)} trajectories, attribute 'split' says {file.split!r}")
        if empty := int((file.lengths == 1).sum()):
            report.left_out.append(f"{file.path.name}: {empty} trajectories of a single row, without a transition")
    report.changed.append("terminals: moved to the last transition; the row after it holds the final values")
    if relabelled:
        report.changed.append(f"rewards and masks: computed by ogbench's own relabelling for {schema.environment}")
    if files[0].note is not None:
        dataset = files[0].note.passport.dataset_id
        report.kept.append(f"names, units, roles, timestamps and attributes of dataset {dataset}")
    else:
        rate = f"{schema.control_rate:g} Hz" if schema.control_rate else "1 Hz for want of a rate (--rate says it)"
        report.changed.append(f"time: none was measured, timestamps are synthetic at {rate}")


def _episodes(files: list[Surveyed], schema: Schema, relabel: Relabeller | None) -> Iterator[Episode]:
    try:
        for file in files:
            yield from _episodes_of(file, schema, relabel)
    finally:
        if relabel is not None:
            relabel.close()


def _episodes_of(file: Surveyed, schema: Schema, relabel: Relabel | None) -> Iterator[Episode]:
    with opened(file.path) as archive, ExitStack() as stack:
        rows = {key: Rows(archive, key) for key in file.keys}
        for one in rows.values():
            stack.callback(one.close)
        for number, length in enumerate(file.lengths.tolist()):
            read = {key: one.read(length) for key, one in rows.items()}
            if length > 1:
                yield _episode(read, file, number, schema, relabel)
        for one in rows.values():
            one.finish()


def _episode(read: dict[str, Array], file: Surveyed, number: int, schema: Schema, relabel: Relabel | None) -> Episode:
    """A trajectory of n rows as n - 1 transitions and the values after them."""
    data, final = {}, {}
    for column in file.columns:
        rows = column.of(read[column.key])
        data[column.feature.name] = rows[1:] if column.key == TERMINALS else rows[:-1]
        if _is_final(column.feature, file, number):
            final[column.feature.name] = rows[-1]
    attributes = file.note.attributes[number] if file.note else _attributes(read, file, number)
    if relabel is not None:
        data["reward"], data["mask"] = relabel({key: rows[:-1] for key, rows in read.items()})
        attributes = {**attributes, "success": bool((data["mask"] == 0).any())}
    return Episode(data, {BASE: _clock(read, file, schema)}, final, attributes)


def _is_final(feature: Feature, file: Surveyed, number: int) -> bool:
    if file.note is not None:
        return feature.name in file.note.finals[number]
    return feature.role in ("observation", "state")


def _attributes(read: dict[str, Array], file: Surveyed, number: int) -> dict[str, JsonValue]:
    """The split, and the last row of what no final value can hold: the export needs it."""
    last: dict[str, JsonValue] = {}
    for column in file.columns:
        if column.key != TERMINALS and column.feature.role not in ("observation", "state"):
            row = read[column.key][-1]
            if row.dtype.kind == "f" and not np.isfinite(row).all():
                where = f"row {int(file.ends[number]) - 1}"
                raise OneStrideError(f"{column.key}: expected finite numbers, got {row.tolist()} in {where}")
            last[column.key] = row.tolist()
    return {"split": [file.split], "last": last}


def _clock(read: dict[str, Array], file: Surveyed, schema: Schema) -> NDArray[np.int64]:
    if file.note is not None and file.note.clock is not None:
        return np.asarray(read[file.note.clock][:-1], np.int64)
    return synthetic_clock(len(read[ACTIONS]) - 1, schema.control_rate or UNKNOWN_RATE)

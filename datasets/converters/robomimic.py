"""Reading robomimic's HDF5 demonstrations: `data/demo_<i>/{obs,next_obs,actions,rewards,dones,states}`.

Traps that this reader knows: `data.attrs["total"]` is often wrong, demonstration numbers may have gaps, `states`
may be a group, `rewards`, `dones` and `next_obs` may be missing, and nothing carries a measured time.

Reference: https://robomimic.github.io/docs/datasets/overview.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from onestride.datasets.converters import Options, Report, Source
from onestride.datasets.converters.passport import NAME, Passport, origin, read_passport
from onestride.datasets.converters.robomimic_attributes import plain_attributes, read_attributes, read_masks
from onestride.datasets.converters.robomimic_features import EnvironmentFacts, environment_facts
from onestride.datasets.converters.robomimic_survey import Survey, survey
from onestride.datasets.provenance import Provenance
from onestride.datasets.provenance import Source as SourceFile
from onestride.datasets.schema import BASE, Array, Episode, Feature, Schema, synthetic_clock
from onestride.hardware.errors import OneStrideError

VERSION = 2
"""Of what this reader makes of a file, see `Provenance.command_version`."""

OPTIONS = ("leave_out",)

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class _Opened:
    """A file that was looked through."""

    path: Path
    survey: Survey
    facts: EnvironmentFacts
    splits: dict[str, list[str]]
    """Demonstration -> names of the masks that list it."""
    attributes: dict[str, JsonValue]
    """Attributes of `data` besides those that are read."""
    passport: Passport | None
    """What our own export said, where it was one."""

    @property
    def rate(self) -> float | None:
        """Control rate [Hz]; None = irregular, with measured timestamps."""
        return self.passport.schema.control_rate if self.passport else self.facts.control_rate


def recognises(path: Path) -> bool:
    """Whether the file begins as an HDF5 file does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def read(path: Path, report: Report, options: Options) -> Source:
    """Look through a file, and make its demonstrations available one by one.

    Raises:
        OneStrideError: truncated or damaged, no `data` group, or demonstrations unlike each other.
    """
    with _file(path) as file:
        if not isinstance(file.get("data"), h5py.Group):
            raise OneStrideError(f"expected a group 'data', got: {', '.join(file) or 'an empty file'}")
        data = file["data"]
        facts, passport = environment_facts(data.attrs.get("env_args")), read_passport(data.attrs.get(NAME))
        found = survey(data, facts, passport, options.leave_out, report)
        about = plain_attributes(data, ("env_args", "total", NAME), report)
        opened = _Opened(path, found, facts, read_masks(file, found.demos, report), about, passport)
        report.left_out += [f"{name}: not a part this reader knows" for name in file if name not in ("data", "mask")]
        schema = _schema(opened)
        _report(data, opened, report)
    return Source(schema, partial(_provenance, opened), len(found.demos), _episodes(opened, schema, report))


@contextmanager
def _file(path: Path) -> Iterator[Any]:
    """The open file; whatever is wrong inside is told with the file's name."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OneStrideError as error:
        raise OneStrideError(f"{path}: {error}") from error
    except ValidationError as error:
        raise OneStrideError(f"{path}: expected usable feature names, got: {error.errors()[0]['msg']}") from error
    # HDF5 meets damage with any of these, names that are no text among them.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise OneStrideError(f"{path}: expected a readable HDF5 file, got: {reason}") from error


def _schema(opened: _Opened) -> Schema:
    features = [column.feature for column in opened.survey.columns]
    derived = _derived_mask(opened, features)
    features += [derived] if derived else []
    if opened.passport is not None:
        before = opened.passport.schema.model_dump()
        return Schema.model_validate({**before, "features": tuple(opened.passport.ordered(features))})
    return Schema(
        features=tuple(features),
        control_rate=opened.rate,
        label="action",
        label_source="human",
        environment=f"robomimic/{opened.facts.name}" if opened.facts.name else None,
    )


def _derived_mask(opened: _Opened, features: list[Feature]) -> Feature | None:
    """The mask that follows from `dones`; None where there are none, or the mask was recorded itself."""
    roles = {feature.role for feature in features}
    if "terminal" not in roles or "mask" in roles:
        return None
    if opened.passport is None:
        return Feature(name="mask", role="mask", shape=(), dtype="float32")
    return next(iter(opened.passport.schema.by_role("mask")), None)


def _provenance(opened: _Opened) -> Provenance:
    known = "control_freq" if opened.facts.rate_known else "robosuite's default"
    before = origin(opened.passport)
    return Provenance.now(
        "convert robomimic",
        command_version=VERSION,
        packages=("h5py",),
        sources=(SourceFile.of(opened.path),),
        parents=before["parents"],
        environment=f"robomimic/{opened.facts.name}" if opened.facts.name else None,
        extra={
            "env_args": opened.facts.arguments,
            "attributes": opened.attributes,
            "paths": {column.feature.name: column.path for column in opened.survey.columns},
            "timestamps": f"synthetic: {opened.facts.control_rate:g} Hz from {known}"
            if not opened.passport
            else "kept",
            **before["extra"],
        },
    )


def _report(data: Any, opened: _Opened, report: Report) -> None:
    for column in opened.survey.columns:
        report.kept.append(f"{column.path}: {column.feature.name} {column.feature.shape} {column.feature.dtype}")
    if opened.passport is not None:
        report.kept.append(f"names, units, roles, timestamps and attributes of dataset {opened.passport.dataset_id}")
    else:
        _report_derived(opened, report)
    if opened.facts.arguments:
        report.kept.append("env_args: in the provenance")
    else:
        report.left_out.append("env_args: missing or not a JSON object")
    if any("model_file" in data[demo].attrs for demo in opened.survey.demos):
        report.kept.append("model_file: the XML, compressed, as an attribute of each episode")
    _report_counts(data, opened.survey.lengths, report)


def _report_derived(opened: _Opened, report: Report) -> None:
    if any(column.path == "dones" for column in opened.survey.columns):
        report.changed.append("dones: terminal as recorded, and mask = 1 - dones")
    known = "from env_args" if opened.facts.rate_known else "assumed, env_args does not say"
    rate = f"{opened.facts.control_rate:g} Hz {known}"
    report.changed.append(f"time: none was measured, timestamps are synthetic at {rate}")


def _report_counts(data: Any, lengths: dict[str, int], report: Report) -> None:
    total = data.attrs.get("total")
    if total is not None and not np.array_equal(total, sum(lengths.values())):
        report.changed.append(f"data.attrs['total']: says {total}, counted {sum(lengths.values())} steps")
    said = {demo: data[demo].attrs.get("num_samples", length) for demo, length in lengths.items()}
    wrong = [demo for demo, length in lengths.items() if not np.array_equal(said[demo], length)]
    if wrong:
        report.changed.append(f"num_samples: wrong in {len(wrong)} demonstrations (first: {wrong[0]}), counted")


def _episodes(opened: _Opened, schema: Schema, report: Report) -> Iterator[Episode]:
    with _file(opened.path) as file:
        for name in opened.survey.demos:
            yield _episode(file["data"][name], name, opened, schema, report)


def _episode(demo: Any, name: str, opened: _Opened, schema: Schema, report: Report) -> Episode:
    data = {column.feature.name: _rows(demo, name, column.path, column.feature) for column in opened.survey.columns}
    for mask in schema.by_role("mask"):
        if mask.name not in data:
            terminal = data[schema.by_role("terminal")[0].name]
            data[mask.name] = (1 - terminal.astype(np.float32)).astype(mask.dtype)
    final = {}
    for column in opened.survey.columns:
        if column.path.removeprefix("obs/") in opened.survey.finals:
            final[column.feature.name] = _last_row(demo, name, f"next_{column.path}", column.feature)
    success = _success(data, schema, opened)
    return Episode(
        data=data,
        timestamps={BASE: _clock(demo, len(data[schema.label]), opened)},
        final=final,
        attributes=read_attributes(demo, name, opened.splits[name], success, report),
    )


def _success(data: dict[str, Array], schema: Schema, opened: _Opened) -> bool | None:
    """Whether the sparse reward was ever given; None where the reward means something else."""
    rewards = schema.by_role("reward")
    if not opened.facts.sparse_reward or not rewards:
        return None
    return bool(data[rewards[0].name].max() > 0)


def _clock(demo: Any, length: int, opened: _Opened) -> NDArray[np.int64]:
    """Timestamps (T,) [ns]: as measured where our export has them, else of an ideal clock."""
    path = opened.passport.notes.get("timestamps") if opened.passport else None
    if isinstance(path, str) and path in demo:
        return np.asarray(demo[path][...], np.int64)
    if opened.rate is None:
        raise OneStrideError(f"{demo.name}: expected timestamps in {path!r}, got none")
    return synthetic_clock(length, opened.rate)


def _rows(demo: Any, name: str, path: str, feature: Feature) -> Array:
    """One data set (T, *shape) as recorded, every number finite."""
    rows: Array = np.asarray(demo[path][...]).astype(feature.dtype, copy=False)
    _check_finite(rows, f"data/{name}/{path}", feature)
    return rows


def _last_row(demo: Any, name: str, path: str, feature: Feature) -> Array:
    """The last row (*shape) of a data set; all of them finite."""
    node = demo[path]
    row: Array = np.asarray(node[-1:]).astype(feature.dtype, copy=False)
    _check_finite(row, f"data/{name}/{path}", feature, node.shape[0] - 1)
    last: Array = row[0]
    return last


def _check_finite(rows: Array, where: str, feature: Feature, first: int = 0) -> None:
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        flat = rows.reshape(len(rows), -1)
        step, element = (int(number) for number in np.argwhere(~np.isfinite(flat))[0])
        raise OneStrideError(
            f"{where}: expected finite numbers, got {flat[step, element]} at step {first + step}, "
            f"{feature.element(element)}"
        )

"""Reading robomimic's HDF5 demonstrations, low-dimensional part: `data/demo_<i>/{obs,next_obs,actions,...}`.

Traps that this reader knows: `data.attrs["total"]` is often wrong, demonstration numbers may have gaps, `states`
may be a group, `rewards`, `dones` and `next_obs` may be missing, and nothing carries a measured time.

Reference: https://robomimic.github.io/docs/datasets/overview.html
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pydantic import JsonValue, ValidationError

from onestride.datasets.converters import Report, Source
from onestride.datasets.converters.robomimic_features import EnvironmentFacts, environment_facts
from onestride.datasets.converters.robomimic_survey import Survey, survey
from onestride.datasets.provenance import Provenance
from onestride.datasets.provenance import Source as SourceFile
from onestride.datasets.schema import BASE, Array, Episode, Feature, Schema, synthetic_clock
from onestride.hardware.errors import OneStrideError

VERSION = 1
"""Of what this reader makes of a file, see `Provenance.command_version`."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LONG_ATTRIBUTE = 1 << 16


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


def recognises(path: Path) -> bool:
    """Whether the file begins as an HDF5 file does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def read(path: Path, report: Report) -> Source:
    """Look through a file, and make its demonstrations available one by one.

    Raises:
        OneStrideError: truncated or damaged, no `data` group, or demonstrations unlike each other.
    """
    with _file(path) as file:
        if not isinstance(file.get("data"), h5py.Group):
            raise OneStrideError(f"expected a group 'data', got: {', '.join(file) or 'an empty file'}")
        facts = environment_facts(file["data"].attrs.get("env_args"))
        found = survey(file["data"], facts, report)
        about = _plain(file["data"], ("env_args", "total"), report)
        opened = _Opened(path, found, facts, _splits(file, found.demos, report), about)
        report.left_out += [f"{name}: not a part this reader knows" for name in file if name not in ("data", "mask")]
        schema = _schema(opened)
        _report(file["data"], opened, report)
    return Source(schema, _provenance(opened), len(found.demos), _episodes(opened, report))


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
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise OneStrideError(f"{path}: expected a readable HDF5 file, got: {reason}") from error


def _schema(opened: _Opened) -> Schema:
    features = [column.feature for column in opened.survey.columns]
    if any(feature.name == "terminal" for feature in features):
        features.append(Feature(name="mask", role="mask", shape=(), dtype="float32"))
    return Schema(
        features=tuple(features),
        control_rate=opened.facts.control_rate,
        label="action",
        label_source="human",
        environment=f"robomimic/{opened.facts.name}" if opened.facts.name else None,
    )


def _provenance(opened: _Opened) -> Provenance:
    origin = "control_freq" if opened.facts.rate_known else "robosuite's default"
    return Provenance.now(
        "convert robomimic",
        command_version=VERSION,
        packages=("h5py",),
        sources=(SourceFile.of(opened.path),),
        environment=f"robomimic/{opened.facts.name}" if opened.facts.name else None,
        extra={
            "env_args": opened.facts.arguments,
            "attributes": opened.attributes,
            "timestamps": f"synthetic: {opened.facts.control_rate:g} Hz from {origin}",
        },
    )


def _splits(file: Any, demos: tuple[str, ...], report: Report) -> dict[str, list[str]]:
    """Masks by demonstration; names in a mask that no demonstration bears are reported."""
    splits: dict[str, list[str]] = {demo: [] for demo in demos}
    masks: Any = file.get("mask")
    for name in list(masks) if isinstance(masks, h5py.Group) else []:
        mask: Any = masks[name]
        if not isinstance(mask, h5py.Dataset):
            report.left_out.append(f"mask/{name}: not a list of demonstrations")
            continue
        listed = [one.decode() if isinstance(one, bytes) else str(one) for one in np.ravel(mask[()])]
        for demo in listed:
            if demo in splits:
                splits[demo].append(name)
        absent = [demo for demo in listed if demo not in splits]
        if absent:
            report.left_out.append(f"mask/{name}: {len(absent)} names without a demonstration, as {absent[0]}")
        report.kept.append(f"mask/{name}: as attribute 'split' of {len(listed) - len(absent)} episodes")
    return splits


def _report(data: Any, opened: _Opened, report: Report) -> None:
    for column in opened.survey.columns:
        report.kept.append(f"{column.path}: {column.feature.name} {column.feature.shape} {column.feature.dtype}")
    if any(column.path == "dones" for column in opened.survey.columns):
        report.changed.append("dones: terminal as recorded, and mask = 1 - dones")
    known = "from env_args" if opened.facts.rate_known else "assumed, env_args does not say"
    rate = f"{opened.facts.control_rate:g} Hz {known}"
    report.changed.append(f"time: none was measured, timestamps are synthetic at {rate}")
    if opened.facts.arguments:
        report.kept.append("env_args: in the provenance")
    else:
        report.left_out.append("env_args: missing or not a JSON object")
    _report_counts(data, opened.survey.demos, report)


def _report_counts(data: Any, demos: tuple[str, ...], report: Report) -> None:
    lengths = {demo: len(data[demo]["actions"]) for demo in demos}
    total = data.attrs.get("total")
    if total is not None and not np.array_equal(total, sum(lengths.values())):
        report.changed.append(f"data.attrs['total']: says {total}, counted {sum(lengths.values())} steps")
    said = {demo: data[demo].attrs.get("num_samples", lengths[demo]) for demo in demos}
    wrong = [demo for demo in demos if not np.array_equal(said[demo], lengths[demo])]
    if wrong:
        report.changed.append(f"num_samples: wrong in {len(wrong)} demonstrations (first: {wrong[0]}), counted")
    if any("model_file" in data[demo].attrs for demo in demos):
        report.left_out.append("model_file: the XML; its SHA-256 is an attribute of each episode")


def _episodes(opened: _Opened, report: Report) -> Iterator[Episode]:
    with _file(opened.path) as file:
        for name in opened.survey.demos:
            yield _episode(file["data"][name], name, opened, report)


def _episode(demo: Any, name: str, opened: _Opened, report: Report) -> Episode:
    data = {column.feature.name: _rows(demo, name, column.path, column.feature) for column in opened.survey.columns}
    if "terminal" in data:
        data["mask"] = (1 - data["terminal"].astype(np.float32)).astype(np.float32)
    final = {}
    for column in opened.survey.columns:
        if column.path.removeprefix("obs/") in opened.survey.finals:
            final[column.feature.name] = _rows(demo, name, f"next_{column.path}", column.feature)[-1]
    return Episode(
        data=data,
        timestamps={BASE: synthetic_clock(len(data["action"]), opened.facts.control_rate)},
        final=final,
        attributes=_attributes(demo, name, data, opened, report),
    )


def _rows(demo: Any, name: str, path: str, feature: Feature) -> Array:
    """One data set (T, *shape) as recorded, every number finite."""
    rows: Array = np.asarray(demo[path][...]).astype(feature.dtype, copy=False)
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        flat = rows.reshape(len(rows), -1)
        step, element = (int(number) for number in np.argwhere(~np.isfinite(flat))[0])
        raise OneStrideError(
            f"data/{name}/{path}: expected finite numbers, got {flat[step, element]} at step {step}, "
            f"{feature.element(element)}"
        )
    return rows


def _attributes(demo: Any, name: str, data: dict[str, Array], opened: _Opened, report: Report) -> dict[str, JsonValue]:
    """The demonstration's own attributes and what follows from its data."""
    attributes: dict[str, JsonValue] = {"demo": name, "split": list(opened.splits[name])}
    if opened.facts.sparse_reward and "reward" in data:
        attributes["success"] = bool(data["reward"].max() > 0)
    if "model_file" in demo.attrs:
        attributes["model_file_sha256"] = hashlib.sha256(str(demo.attrs["model_file"]).encode()).hexdigest()
    # num_samples is often wrong, and the length is known.
    return {**_plain(demo, ("model_file", "num_samples"), report), **attributes}


def _plain(group: Any, known: tuple[str, ...], report: Report) -> dict[str, JsonValue]:
    """Attributes of a group besides the known ones; what is no short scalar is reported, once for all groups."""
    kept: dict[str, JsonValue] = {}
    for key in (key for key in group.attrs if key not in known):
        value = group.attrs[key]
        value = value.item() if isinstance(value, np.generic) else value
        if _is_plain(value):
            kept[key] = value
        elif (line := f"attribute {key}: {type(value).__name__}, not a short scalar") not in report.left_out:
            report.left_out.append(line)
    return kept


def _is_plain(value: object) -> bool:
    """Whether an attribute is a short JSON scalar."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int) or (isinstance(value, str) and len(value) < _LONG_ATTRIBUTE)

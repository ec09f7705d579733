"""Reading Diffusion Policy's replay buffers: a Zarr v2 group of `data/*` and `meta/episode_ends`.

Pictures may be float32 that hold integers from 0 to 255 (the published Push-T file): their bits are kept, unless they
are asked for as uint8, which holds them as well.

Reference: https://github.com/real-stanford/diffusion_policy, `common/replay_buffer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from onestride.datasets.converters import Options, Report, Source
from onestride.datasets.converters.diffusion_policy_arrays import ArrayReader, missing_chunks, opened
from onestride.datasets.converters.passport import NAME, Passport, is_plain, origin, read_passport
from onestride.datasets.provenance import Provenance
from onestride.datasets.provenance import Source as SourceFile
from onestride.datasets.schema import BASE, Array, Episode, Feature, Role, Schema, synthetic_clock
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError, unknown

VERSION = 1
OPTIONS = ("environment", "control_rate", "leave_out", "as_uint8")

DEFAULT_RATE = 10.0
"""Control rate of Diffusion Policy's simulated and real tasks [Hz], where nothing says otherwise."""
PUSHT = "diffusion_policy/pusht"

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("reward", "rewards"), "reward"),
    **dict.fromkeys(("done", "dones", "terminal", "terminals"), "terminal"),
}
_INFORMATION = ("timestamp", "n_contacts", "stage")
"""Arrays that say something about the episode and are nothing a policy sees."""
_PUSHT_NAMES = {
    "state": (("agent_x", "agent_y", "block_x", "block_y", "block_angle"), ("px", "px", "px", "px", "rad")),
    "action": (("x", "y"), ("px", "px")),
}


@dataclass(frozen=True)
class _Opened:
    """A group that was looked through."""

    path: Path
    features: dict[str, Feature]
    """Array in `data` -> feature."""
    ends: NDArray[np.int64]
    rate: float | None
    passport: Passport | None
    attributes: list[dict[str, JsonValue]]
    finals: dict[str, list[bool]]
    """Feature -> whether each episode knows its value after the last action."""


def recognises(path: Path) -> bool:
    """Whether it is a Zarr v2 group with a group `data` or `meta`."""
    return path.is_dir() and any((path / name / ".zgroup").is_file() for name in ("data", "meta"))


def read(path: Path, report: Report, options: Options) -> Source:
    """Look through a replay buffer, and make its episodes available one by one.

    Raises:
        OneStrideError: damaged, no actions or episode ends, or arrays of unequal lengths.
    """
    with opened(path) as root:
        ends = _ends(root)
        passport = _passport(root, len(ends), report)
        features = _features(root, int(ends[-1]), passport, options, report)
        attributes = passport.notes["attributes"] if passport else [{} for _ in ends]
        finals = passport.notes["finals"] if passport else {}
        rate = options.control_rate or (passport.schema.control_rate if passport else DEFAULT_RATE)
        found = _Opened(path, features, ends, rate, passport, attributes, finals)  # type: ignore[arg-type]
        schema = _schema(found, options)
        _report(root, found, schema, options, report)
        about = {key: value for key, value in dict(root.attrs).items() if key != NAME and is_plain(value)}
    return Source(schema, partial(_provenance, found, schema, about), len(ends), _episodes(found, schema))


def _ends(root: Any) -> NDArray[np.int64]:
    """Row after each episode's last (E,)."""
    array = root.get("meta/episode_ends")
    if array is None or not hasattr(array, "shape"):
        raise OneStrideError("expected an array meta/episode_ends, got none")
    if array.dtype.kind not in "iu" or array.ndim != 1 or not array.shape[0]:
        raise OneStrideError(f"meta/episode_ends: expected (E,) integers, got {array.shape} {array.dtype}")
    ends = np.asarray(array[...]).astype(np.int64)
    if (np.diff(ends, prepend=0) < 1).any():
        place = int(np.flatnonzero(np.diff(ends, prepend=0) < 1)[0])
        raise OneStrideError(f"meta/episode_ends: expected to increase, got {ends[place]} at episode {place}")
    return ends


def _arrays(root: Any) -> dict[str, Any]:
    data = root.get("data")
    return {} if data is None or hasattr(data, "shape") else dict(sorted(data.arrays()))


def _features(
    root: Any, length: int, passport: Passport | None, options: Options, report: Report
) -> dict[str, Feature]:
    arrays = _arrays(root)
    if "action" not in arrays:
        raise OneStrideError(f"expected an array data/action, got: {', '.join(arrays) or 'no arrays'}")
    for name in options.leave_out:
        if name not in arrays or name == "action":
            raise unknown("array to leave out", name, [key for key in arrays if key != "action"])
    pictures = [key for key, array in arrays.items() if array.ndim == 4 and array.dtype.kind == "f"]
    for name in options.as_uint8:
        if name not in pictures:
            raise unknown("picture of floats to keep as uint8", name, pictures)
    clock = passport.notes.get("clock") if passport else None
    found = {}
    for key, array in sorted(arrays.items(), key=lambda item: (item[1].ndim, item[0] != "state", item[0])):
        if array.shape[:1] != (length,):
            raise OneStrideError(f"data/{key}: expected {length} rows as in meta/episode_ends, got {array.shape}")
        if key in options.leave_out or array.dtype.kind not in "biuf":
            why = "as asked for" if key in options.leave_out else f"{array.dtype}, no numbers"
            report.left_out.append(f"data/{key}: {why}")
        elif key != clock:
            dtype = "uint8" if key in options.as_uint8 else np.dtype(array.dtype).name
            found[key] = _feature(key, array, dtype, arrays, passport)
    return found


def _feature(key: str, array: Any, dtype: str, arrays: dict[str, Any], passport: Passport | None) -> Feature:
    shape = tuple(array.shape[1:])
    known = passport.feature_at(key, shape, dtype) if passport else None
    if known is not None:
        return known
    role: Role = "observation"
    if key == "action":
        role = "action"
    elif shape == () and key in _ROLES:
        role = _ROLES[key]
    elif len(shape) <= 1 and (array.dtype.kind in "biu" or key in _INFORMATION):
        role = "info"
    names, units = _PUSHT_NAMES.get(key, ((), ())) if _is_pusht(arrays) else ((), ())
    try:
        return Feature(name=key, role=role, shape=shape, dtype=dtype, names=names, units=units)
    except ValidationError as error:
        raise OneStrideError(f"data/{key}: expected a usable array, got: {error.errors()[0]['msg']}") from error


def _is_pusht(arrays: dict[str, Any]) -> bool:
    expected = {"state": (5,), "action": (2,), "keypoint": (9, 2)}
    return all(key in arrays and tuple(arrays[key].shape[1:]) == shape for key, shape in expected.items())


def _passport(root: Any, count: int, report: Report) -> Passport | None:
    """Our note, where there is one and it fits the episodes."""
    passport = read_passport(root.attrs.get(NAME))
    if passport is None:
        return None
    attributes, finals = passport.notes.get("attributes"), passport.notes.get("finals")
    fits = (
        isinstance(attributes, list) and len(attributes) == count and all(isinstance(one, dict) for one in attributes)
    )
    fits = (
        fits
        and isinstance(finals, dict)
        and all(isinstance(one, list) and len(one) == count for one in finals.values())
    )
    if not fits:
        report.changed.append(f"{NAME}: does not fit the episodes, which were changed since; read as any other file")
    return passport if fits else None


def _schema(found: _Opened, options: Options) -> Schema:
    features = list(found.features.values())
    passport, pusht = found.passport, _names_of(found.features.get("state")) == _PUSHT_NAMES["state"][0]
    known: dict[str, Any] = {
        "label": "action",
        "label_source": "human" if pusht else "unknown",
        "environment": PUSHT if pusht else None,
    }
    if passport is not None:
        known = passport.schema.model_dump()
        derived = [one for one in passport.schema.by_role("mask") if one.name not in passport.paths]
        features = passport.ordered([*features, *derived])
    known |= {"features": tuple(features), "control_rate": found.rate}
    known |= {"environment": options.environment} if options.environment else {}
    try:
        return Schema.model_validate(known)
    except ValidationError as error:
        raise OneStrideError(f"expected usable features, got: {error.errors()[0]['msg']}") from error


def _names_of(feature: Feature | None) -> tuple[str, ...]:
    return feature.names if feature else ()


def _provenance(found: _Opened, schema: Schema, about: dict[str, Any]) -> Provenance:
    before = origin(found.passport)
    return Provenance.now(
        "convert diffusion_policy",
        command_version=VERSION,
        packages=("numcodecs",),
        sources=(SourceFile(name=found.path.name, sha256=tree_sha256(found.path)),),
        parents=before["parents"],
        environment=schema.environment,
        extra={"attributes": about, **before["extra"]},
    )


def _report(root: Any, found: _Opened, schema: Schema, options: Options, report: Report) -> None:
    for key, feature in found.features.items():
        line = f"data/{key}: {feature.name} {feature.shape or 'scalar'} {feature.dtype}"
        line += _picture_remark(root["data"][key], feature, int(found.ends[0]))
        (report.changed if key in options.as_uint8 else report.kept).append(line)
        missing, count = missing_chunks(found.path, root["data"][key])
        if missing:
            report.changed.append(f"data/{key}: {missing} of {count} chunks are not there and read as the fill value")
    others = [key for key, _ in root["meta"].members() if key != "episode_ends" and not key.startswith("final_")]
    report.left_out += [f"meta/{key}: not a part this reader knows" for key in others]
    if found.passport is not None:
        report.kept.append(f"names, units, roles, timestamps and attributes of dataset {found.passport.dataset_id}")
        return
    if "timestamp" in found.features:
        report.changed.append("timestamp: also the clock, in ns from each episode's first")
    else:
        source = "as given" if options.control_rate else "assumed"
        report.changed.append(
            f"time: none was measured, timestamps are synthetic at {schema.control_rate:g} Hz, {source}"
        )
    report.changed.append("no values after the last action: the format has none")


def _picture_remark(array: Any, feature: Feature, rows: int) -> str:
    """Whether float pictures hold whole numbers, judged by the first episode."""
    if len(feature.shape) != 3 or np.dtype(array.dtype).kind != "f":
        return ""
    if feature.dtype == "uint8":
        return f", {array.dtype} of the same numbers"
    first = np.asarray(array[: min(rows, array.chunks[0])])
    whole = bool((first == np.round(first)).all() and first.min() >= 0 and first.max() <= 255)
    return ", kept to the bit; holds whole numbers from 0 to 255, as uint8 would" if whole else ", kept to the bit"


def _episodes(found: _Opened, schema: Schema) -> Iterator[Episode]:
    with opened(found.path) as root:
        readers = {key: ArrayReader(root["data"][key]) for key in found.features}
        clock = found.passport.notes.get("clock") if found.passport else None
        times = ArrayReader(root["data"][clock]) if isinstance(clock, str) else None
        finals = {name: ArrayReader(root["meta"][f"final_{name}"]) for name in found.finals}
        starts = np.concatenate([[0], found.ends[:-1]])
        for number, (start, stop) in enumerate(zip(starts.tolist(), found.ends.tolist(), strict=True)):
            data = {
                feature.name: _as(feature.dtype, readers[key].read(start, stop), key)
                for key, feature in found.features.items()
            }
            _derive_mask(data, schema)
            known = {
                name: one.read(number, number + 1)[0] for name, one in finals.items() if found.finals[name][number]
            }
            measured = times.read(start, stop) if times else _measured(data, found)
            ticks = synthetic_clock(stop - start, schema.control_rate or DEFAULT_RATE) if measured is None else measured
            yield Episode(data, {BASE: ticks}, known, found.attributes[number])


def _as(dtype: str, rows: Array, key: str) -> Array:
    """The rows, bit by bit or, where pictures were asked for as uint8, number by number."""
    if rows.dtype == dtype:
        return rows
    with np.errstate(invalid="ignore"):
        numbers = rows.astype(dtype)
    if not np.array_equal(numbers, rows):
        raise OneStrideError(f"data/{key}: expected whole numbers from 0 to 255 to keep as uint8, got others")
    return numbers


def _measured(data: dict[str, Array], found: _Opened) -> NDArray[np.int64] | None:
    """The clock that an array `timestamp` [s] gives; None where there is none or it runs backwards."""
    if found.passport is not None or "timestamp" not in data or data["timestamp"].ndim != 1:
        return None
    seconds = data["timestamp"].astype(np.float64)
    ticks = np.round((seconds - seconds[0]) * 1e9)
    usable = np.isfinite(ticks).all() and (np.diff(ticks) >= 0).all() and ticks[-1] < 2**62
    return ticks.astype(np.int64) if usable else None


def _derive_mask(data: dict[str, Array], schema: Schema) -> None:
    for mask in schema.by_role("mask"):
        if mask.name not in data:
            terminal = data[schema.by_role("terminal")[0].name]
            data[mask.name] = (1 - terminal.astype(np.float32)).astype(mask.dtype)

"""Writing Diffusion Policy's replay buffers: a Zarr v2 group that `ReplayBuffer.copy_from_path` reads.

The label becomes `data/action`, every other feature keeps its name. Chunks are of about 4 MB; one block of episodes
is in memory at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from pydantic import JsonValue

from onestride.datasets.converters import Options, Progress, Report
from onestride.datasets.converters.diffusion_policy_arrays import ArrayWriter
from onestride.datasets.converters.passport import NAME, issue
from onestride.datasets.converters.streaming import (
    Wanted,
    episodes,
    has_own_clock,
    is_derived_mask,
    report_streams,
    wanted,
)
from onestride.datasets.schema import BASE, Array, Feature
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

OPTIONS = ("leave_out",)

CLOCK = "timestamps_ns"
"""Array of measured timestamps, where they are no ideal clock."""


def write(store: Store, path: Path, report: Report, options: Options, progress: Progress) -> None:
    """Write every episode.

    Raises:
        OneStrideError: a feature that cannot be brought onto the control clock.
        OSError: the disk refuses.
    """
    plan = _plan(store, wanted(store.schema, options.leave_out, report), report)
    root = zarr.create_group(str(path), zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    ends = ArrayWriter(meta, "episode_ends", store.num_episodes, (), np.dtype(np.int64))
    ends.add(np.cumsum(store.lengths))
    ends.finish()
    finals = _write_rows(store, data, meta, plan, progress)
    if CLOCK in data:
        report.kept.append(f"measured timestamps: data/{CLOCK}")
    if finals:
        report.kept.append(f"final values of {', '.join(finals)}: meta/final_*, which Diffusion Policy does not read")
    attributes: list[JsonValue] = [dict(info.attributes) for info in store.episodes]
    clock = CLOCK if CLOCK in data else None
    flags: dict[str, JsonValue] = {name: list(known) for name, known in finals.items()}
    notes: dict[str, JsonValue] = {"attributes": attributes, "finals": flags, "clock": clock}
    root.attrs[NAME] = issue(store, plan.paths, notes).to_json()
    report.kept.append(f"names, units, roles, provenance and episode attributes: in the attribute {NAME!r}")


def _plan(store: Store, features: list[Feature], report: Report) -> Wanted:
    derived = is_derived_mask(store)
    kept = tuple(feature for feature in features if not (feature.role == "mask" and derived))
    if derived:
        report.left_out.append("mask: 1 - terminal, made again when the file is read")
    label = store.schema.label
    paths = {feature.name: "action" if feature.name == label else feature.name for feature in kept}
    taken = [path for path in paths.values() if path in (CLOCK, "action")]
    if len(taken) > 1 or CLOCK in taken:
        raise OneStrideError(f"expected one feature 'action', the label, and none {CLOCK!r}, got {', '.join(paths)}")
    for feature in kept:
        report.kept.append(f"{feature.name}: data/{paths[feature.name]} {feature.shape or 'scalar'} {feature.dtype}")
    report_streams(store.schema, kept, report)
    return Wanted(kept, paths)


def _write_rows(store: Store, data: Any, meta: Any, plan: Wanted, progress: Progress) -> dict[str, list[bool]]:
    """Every array of `data`; and of each final value that some episode knows, which do."""
    arrays = {
        one.name: ArrayWriter(data, plan.paths[one.name], store.num_steps, one.shape, np.dtype(one.dtype))
        for one in plan.features
    }
    finals = _Finals(meta, store.num_episodes)
    clock: ArrayWriter | None = _clock(store, data)
    for number, episode in enumerate(episodes(store, plan.names)):
        for name, rows in plan.rows(episode).items():
            arrays[name].add(rows)
        finals.add(number, episode.final)
        if clock is not None:
            clock.add(episode.timestamps[BASE])
        progress(number + 1, store.num_episodes)
    for writer in (*arrays.values(), *([clock] if clock else [])):
        writer.finish()
    return finals.finish()


def _clock(store: Store, data: Any) -> ArrayWriter | None:
    """An array for the timestamps, if any episode's are measured."""
    if not has_own_clock(store):
        return None
    return ArrayWriter(data, CLOCK, store.num_steps, (), np.dtype(np.int64))


class _Finals:
    """Arrays `meta/final_<feature>` (E, *shape), made when the first value comes."""

    def __init__(self, meta: Any, count: int) -> None:
        self._meta = meta
        self._count = count
        self._arrays: dict[str, ArrayWriter] = {}
        self._absent: dict[str, Array] = {}
        self._known: dict[str, list[bool]] = {}

    def add(self, number: int, values: dict[str, Array]) -> None:
        """The values after an episode's last action."""
        for name in (name for name in values if name not in self._arrays):
            absent = np.zeros_like(values[name])[None]
            array = ArrayWriter(self._meta, f"final_{name}", self._count, absent.shape[1:], absent.dtype)
            for _ in range(number):
                array.add(absent)
            self._arrays[name], self._absent[name], self._known[name] = array, absent, [False] * number
        for name, array in self._arrays.items():
            array.add(values[name][None] if name in values else self._absent[name])
            self._known[name].append(name in values)

    def finish(self) -> dict[str, list[bool]]:
        """Write what is left; which episodes know each feature's value."""
        for array in self._arrays.values():
            array.finish()
        return self._known

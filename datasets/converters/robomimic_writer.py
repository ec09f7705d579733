"""Writing robomimic's HDF5, to be loaded by `robomimic.utils.dataset.SequenceDataset`.

Features of the role observation go to `obs`, the label to `actions`, state to `states`. `next_obs` is the following
observation, and after the last action the final value; it is written for keys whose final value every episode knows.
One episode at a time is in memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pydantic import JsonValue

from onestride.datasets.converters import Options, Progress, Report
from onestride.datasets.converters.passport import NAME, is_plain, issue
from onestride.datasets.converters.robomimic_attributes import mask_array, splits_of, write_attributes
from onestride.datasets.converters.robomimic_environment import upgraded
from onestride.datasets.converters.streaming import (
    Wanted,
    episodes,
    is_derived_mask,
    measured_clock,
    report_streams,
    wanted,
)
from onestride.datasets.schema import Array, Episode, Feature, Schema
from onestride.datasets.store import Store

OPTIONS = ("leave_out",)

TIMESTAMPS = "timestamps_ns"
"""Data set of measured timestamps within a demonstration, where they are no ideal clock."""

_FIXED = {"reward": "rewards", "terminal": "dones", "mask": "masks"}


def write(store: Store, path: Path, report: Report, options: Options, progress: Progress) -> None:
    """Write every episode as a demonstration.

    Raises:
        OneStrideError: a feature that cannot be brought onto the control clock, or nothing to write.
        OSError: the disk refuses.
    """
    features = wanted(store.schema, options.leave_out, report)
    plan = _plan(store, features, report)
    names = _names(store)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        incomplete: set[str] = set()
        lost: set[str] = set()
        for number, episode in enumerate(episodes(store, plan.names)):
            _write_episode(data.create_group(names[number]), names[number], episode, plan, store.schema, incomplete)
            lost |= {name for name in episode.final if not plan.paths[name].startswith("obs/")}
            progress(number + 1, store.num_episodes)
        if lost:
            report.left_out.append(f"final values of {', '.join(sorted(lost))}: robomimic has no next states")
        _drop_incomplete(data, incomplete, plan, report)
        _write_masks(file, store, names, report)
        _describe(data, store, plan, report)


def default_paths(schema: Schema) -> dict[str, str]:
    """Feature -> data set within a demonstration, by role and name, all distinct."""
    states = [feature.name for feature in schema.by_role("state")]
    paths: dict[str, str] = {}
    for feature in schema.features:
        path = _default_path(feature, schema.label, states)
        paths[feature.name] = f"extra/{feature.name}" if path in paths.values() else path
    return paths


def _default_path(feature: Feature, label: str, states: list[str]) -> str:
    if feature.name == label:
        return "actions"
    if feature.role in _FIXED:
        return _FIXED[feature.role]
    if feature.role == "observation":
        return f"obs/{feature.name}"
    if feature.role == "state":
        rest = feature.name.removeprefix("state.")
        return "states" if rest == "flat" and len(states) == 1 else f"states/{rest}"
    return f"extra/{feature.name}"


def _plan(store: Store, features: list[Feature], report: Report) -> Wanted:
    """Where everything goes, and what does not go at all."""
    paths = _paths(store)
    derived = is_derived_mask(store)
    kept = [feature for feature in features if not (feature.role == "mask" and derived)]
    if derived:
        report.left_out.append("mask: 1 - dones, made again when the file is read")
    for feature in kept:
        shape = feature.shape or "scalar"
        report.kept.append(f"{feature.name}: {paths[feature.name]} {shape} {feature.dtype}")
    report_streams(store.schema, kept, report)
    return Wanted(tuple(kept), {feature.name: paths[feature.name] for feature in kept})


def _paths(store: Store) -> dict[str, str]:
    """As in the robomimic file the store came from; by role and name for features that came later."""
    paths = default_paths(store.schema)
    if store.provenance.command == "convert robomimic":
        recorded = store.provenance.extra.get("paths")
        known = recorded if isinstance(recorded, dict) else {}
        merged = {name: str(known.get(name, path)) for name, path in paths.items()}
        if len(set(merged.values())) == len(merged):
            return merged
    return paths


def _names(store: Store) -> list[str]:
    """Names of the demonstrations: as they were, if robomimic can sort them; else by number."""
    names = [str(info.attributes.get("demo", "")) for info in store.episodes]
    numbers = [name.removeprefix("demo_") for name in names]
    fits = all(name.startswith("demo_") and n.isascii() and n.isdigit() for name, n in zip(names, numbers, strict=True))
    if fits and len(set(names)) == len(names):
        return names
    return [f"demo_{number}" for number in range(store.num_episodes)]


def _write_episode(demo: Any, name: str, episode: Episode, plan: Wanted, schema: Schema, incomplete: set[str]) -> None:
    rows = plan.rows(episode)
    for feature in plan.features:
        demo.create_dataset(plan.paths[feature.name], data=_shaped(rows[feature.name], feature, schema.label))
    taken = set(plan.paths.values())
    for feature in plan.features:
        path = f"next_{plan.paths[feature.name]}"
        if not path.startswith("next_obs/") or path in taken or path in incomplete:
            continue
        if feature.name in episode.final:
            demo.create_dataset(path, data=_shifted(rows[feature.name], episode.final[feature.name]))
        else:
            incomplete.add(path)
    clock = measured_clock(episode, schema.control_rate)
    if clock is not None:
        demo.create_dataset(TIMESTAMPS, data=clock)
    write_attributes(demo, name, episode.attributes, episode.length)


def _shaped(rows: Array, feature: Feature, label: str) -> Array:
    """Actions are always (T, D)."""
    return rows[:, None] if feature.name == label and not feature.shape else rows


def _shifted(rows: Array, final: Array) -> Array:
    """The observation after each action (T, *shape)."""
    following = np.empty_like(rows)
    following[:-1] = rows[1:]
    following[-1] = final
    return following


def _drop_incomplete(data: Any, incomplete: set[str], plan: Wanted, report: Report) -> None:
    for path in sorted(incomplete):
        for demo in data.values():
            if path in demo:
                del demo[path]
        report.left_out.append(f"{path}: not every episode knows the value after its last action")
    kept = [path for path in plan.paths.values() if path.startswith("obs/") and f"next_{path}" not in incomplete]
    if kept:
        report.kept.append(f"next_obs: of {len(kept)} keys, the following observation and the final value")


def _write_masks(file: Any, store: Store, names: list[str], report: Report) -> None:
    masks: dict[str, list[str]] = {}
    for name, info in zip(names, store.episodes, strict=True):
        for split in splits_of(info.attributes):
            masks.setdefault(split, []).append(name)
    for split, demos in masks.items():
        file[f"mask/{split}"] = mask_array(demos)
        report.kept.append(f"attribute 'split': mask/{split} of {len(demos)} demonstrations")


def _describe(data: Any, store: Store, plan: Wanted, report: Report) -> None:
    """Attributes of the group `data`: what robomimic wants, what came along, and our note."""
    data.attrs["total"] = store.num_steps
    recorded = store.provenance.extra.get("env_args")
    arguments = upgraded(recorded, report) if isinstance(recorded, dict) else {}
    if not arguments:
        arguments = _made_up(store.schema)
        report.changed.append(f"env_args: none were recorded, made up for robomimic: {json.dumps(arguments)}")
    data.attrs["env_args"] = json.dumps(arguments, indent=4)
    about = store.provenance.extra.get("attributes")
    for key, value in about.items() if isinstance(about, dict) else ():
        if key not in (NAME, "total", "env_args") and is_plain(value):
            data.attrs[key] = value
    passport = issue(store, plan.paths, {"timestamps": TIMESTAMPS})
    data.attrs.create(NAME, json.dumps(passport.to_json()), dtype=h5py.string_dtype())
    report.kept.append(f"names, units, roles and provenance: in the attribute {NAME!r} of data")


def _made_up(schema: Schema) -> dict[str, JsonValue]:
    """What robomimic asks of a file from elsewhere: a name and a type (1 = robosuite, 2 = gym)."""
    kwargs: dict[str, JsonValue] = {"control_freq": schema.control_rate} if schema.control_rate else {}
    return {"env_name": schema.environment or "unknown", "type": 2, "env_kwargs": kwargs}

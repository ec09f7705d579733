"""Writing OGBench's npz, to be loaded by `ogbench.utils.load_dataset`: flat arrays, a row more than transitions.

The observation features become the columns of `observations`. Episodes whose attribute `split` names a validation
part go to `-val.npz`. Arrays are written one after the other, each from a walk of its own through the store, so that
two blocks of episodes are in memory at a time; they are not compressed, which float data would hardly repay.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from onestride.datasets.ahead import ahead
from onestride.datasets.converters import Options, Progress, Report
from onestride.datasets.converters.npz_rows import write_note, write_rows
from onestride.datasets.converters.ogbench_rows import clock_rows, end_rows, feature_rows
from onestride.datasets.converters.ogbench_survey import ACTIONS, NOTE, OBSERVATIONS, TERMINALS
from onestride.datasets.converters.passport import issue
from onestride.datasets.converters.streaming import base_rows, blocks, has_own_clock, report_streams, wanted
from onestride.datasets.rows import Piece
from onestride.datasets.schema import BASE, Array, Feature, Role, Schema
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

OPTIONS = ("leave_out",)

CLOCK = "timestamps_ns"
_BY_ROLE: dict[Role, str] = {"reward": "rewards", "mask": "masks"}
_VALIDATION = ("val", "valid", "validation")


@dataclass
class _Plan:
    """Which array holds which features, and what each episode contributes."""

    schema: Schema
    arrays: dict[str, list[Feature]]
    """Key -> features that are its columns, in order."""
    spans: dict[str, JsonValue]
    """Feature -> its columns, where it shares an array."""
    ended: list[bool] = field(default_factory=list)
    """Whether an episode knows the observation after its last action."""
    finals: list[list[str]] = field(default_factory=list)
    own_clock: bool = False
    own_terminal: bool = False

    def rows(self, number: int, length: int) -> int:
        """Rows of an episode: one more than transitions, if what comes after the last is known."""
        return length + 1 if self.ended[number] else length

    def joins(self, key: str) -> bool:
        """Whether an array holds the elements of several features side by side."""
        return key == OBSERVATIONS and bool(self.spans)


def write(store: Store, path: Path, report: Report, options: Options, progress: Progress) -> None:
    """Write the episodes, and those for validation beside them.

    Raises:
        OneStrideError: no observation that fits, or nothing left to write.
        OSError: the disk refuses.
    """
    plan = _plan(store, wanted(store.schema, options.leave_out, report), report)
    store.verify_once()
    _walk(store, plan, report)
    parts = _parts(store, plan, path, report)
    keys = [*plan.arrays, TERMINALS, *([CLOCK] if plan.own_clock else [])]
    done, total = 0, len(keys) * store.num_episodes
    for target, numbers in parts.items():
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for key in keys:
                _write_array(archive, key, store, plan, numbers)
                done += len(numbers)
                progress(min(store.num_episodes, done * store.num_episodes // total), store.num_episodes)
            write_note(archive, NOTE, json.dumps(_passport(store, plan, numbers)).encode())
    progress(store.num_episodes, store.num_episodes)


def _plan(store: Store, features: list[Feature], report: Report) -> _Plan:
    schema = store.schema
    observed = _observed(features, report)
    arrays: dict[str, list[Feature]] = {OBSERVATIONS: observed, ACTIONS: [schema.feature(schema.label)]}
    relabelled = store.provenance.command == "convert ogbench" and store.provenance.extra.get("relabelled") is True
    for feature in features:
        if feature in observed or feature.name == schema.label or feature.role in ("observation", "terminal"):
            continue
        if relabelled and feature.role in ("reward", "mask"):
            report.left_out.append(f"{feature.name}: ogbench computes it again from qpos")
        else:
            arrays[_key(feature, arrays)] = [feature]
    for key, columns in arrays.items():
        report.kept.append(f"{', '.join(one.name for one in columns)}: {key}")
    report_streams(schema, [one for columns in arrays.values() for one in columns], report)
    return _Plan(schema, arrays, _spans(observed))


def _observed(features: list[Feature], report: Report) -> list[Feature]:
    """The features that make up the one observation OGBench has: all vectors, or a single picture."""
    seen = [feature for feature in features if feature.role == "observation"]
    vectors = [feature for feature in seen if len(feature.shape) <= 1]
    chosen = vectors or seen[:1]
    if not chosen:
        raise OneStrideError("expected an observation feature, got none; OGBench has exactly one observation array")
    for feature in seen:
        if feature not in chosen:
            report.left_out.append(f"{feature.name}: OGBench has one observation array, which holds {chosen[0].name}")
    return chosen


def _spans(observed: list[Feature]) -> dict[str, JsonValue]:
    if len(observed) == 1 and observed[0].shape:
        return {}
    stops = np.cumsum([feature.size for feature in observed]).tolist()
    return {one.name: [stop - one.size, stop] for one, stop in zip(observed, stops, strict=True)}


def _key(feature: Feature, taken: dict[str, list[Feature]]) -> str:
    """An array of its own: under OGBench's name for the role, else under the feature's, in either case a free one."""
    key, named = _BY_ROLE.get(feature.role), feature.name.removeprefix("state.")
    if key is not None and key not in taken:
        return key
    reserved = {*taken, *_BY_ROLE.values(), TERMINALS, CLOCK, OBSERVATIONS, ACTIONS}
    key = feature.name if named in reserved else named
    while key in reserved:
        key = f"info.{key}"
    return key


def _walk(store: Store, plan: _Plan, report: Report) -> None:
    """What each episode knows about its end, from small features only."""
    observed = plan.arrays[OBSERVATIONS]
    terminal = next(iter(plan.schema.by_role("terminal")), None)
    rows = [one for columns in plan.arrays.values() for one in columns]
    known = {one.name: store.final_known(one.name) for one in rows}
    ended = [known[one.name] for one in observed if one.stream == BASE]
    plan.ended = np.logical_and.reduce([np.ones(store.num_episodes, bool), *ended]).tolist()
    names = sorted(known)
    plan.finals = [
        list(compress(names, of_one)) for of_one in zip(*(known[name].tolist() for name in names), strict=True)
    ]
    plan.own_clock = has_own_clock(store)
    plan.own_terminal = terminal is not None and terminal.stream == BASE and not _marks_ends(store, terminal)
    if terminal is not None and plan.own_terminal:
        plan.arrays[_key(terminal, plan.arrays)] = [terminal]
        report.changed.append(f"{terminal.name}: an array of its own, for terminals marks the ends of episodes here")
    cut = plan.ended.count(False)
    if cut:
        report.changed.append(
            f"{cut} episodes do not know the observation after their last action: that transition is given up, "
            "its observation ends the trajectory"
        )


def _marks_ends(store: Store, terminal: Feature) -> bool:
    """Whether a terminal is 1 in the last step of every episode, and 0 elsewhere."""
    for block in blocks(store.pieces, [terminal]):
        expected = end_rows(block, np.zeros(len(block), bool), np.dtype(terminal.dtype))
        if expected.tobytes() != block[0].segment.read(terminal.name, base_rows(block)).tobytes():
            return False
    return True


def _parts(store: Store, plan: _Plan, path: Path, report: Report) -> dict[Path, list[int]]:
    """File -> numbers of the episodes that it holds."""
    training: list[int] = []
    validation: list[int] = []
    short = 0
    for number, info in enumerate(store.episodes):
        if plan.rows(number, info.length) < 2:
            short += 1
        elif _is_validation(info.attributes):
            validation.append(number)
        else:
            training.append(number)
    if short:
        report.left_out.append(f"{short} episodes of a single step without an observation after it")
    if not training and not validation:
        raise OneStrideError("expected episodes of more than one step, got none")
    if not training or not validation:
        report.left_out.append(f"{path.stem}-val.npz: no episode's attribute 'split' says so; ogbench wants one")
        return {path: training or validation}
    beside = path.with_name(f"{path.stem}-val{path.suffix}")
    report.kept.append(f"attribute 'split': {len(validation)} episodes in {beside.name}")
    return {path: training, beside: validation}


def _is_validation(attributes: dict[str, JsonValue]) -> bool:
    split = attributes.get("split")
    named = split if isinstance(split, list) else [split]
    return any(one in _VALIDATION for one in named)


def _write_array(archive: zipfile.ZipFile, key: str, store: Store, plan: _Plan, numbers: list[int]) -> None:
    shape, dtype = _described(key, plan)
    count = sum(plan.rows(number, store.episodes[number].length) for number in numbers)
    chosen = np.zeros(store.num_episodes, bool)
    chosen[numbers] = True
    with ahead(_blocks(key, dtype, store, plan, chosen)) as rows:
        write_rows(archive, key, (count, *shape), dtype, rows)


def _blocks(
    key: str, dtype: np.dtype[Any], store: Store, plan: _Plan, chosen: NDArray[np.bool_]
) -> Generator[Array, None, None]:
    """An array's rows of the chosen episodes, as many at a time as are read at once."""
    number, all_ended = 0, np.array(plan.ended)
    for block in blocks(store.pieces, plan.arrays.get(key, [])):
        among = slice(number, number + len(block))
        number += len(block)
        wanted_here, ended = chosen[among], all_ended[among]
        if wanted_here.any():
            rows = _block_rows(key, dtype, block, ended, plan)
            lengths = [piece.length for piece in block] + ended.astype(np.int64)
            yield rows if wanted_here.all() else rows[np.repeat(wanted_here, lengths)]


def _block_rows(key: str, dtype: np.dtype[Any], block: list[Piece], ended: NDArray[np.bool_], plan: _Plan) -> Array:
    if key == TERMINALS:
        return end_rows(block, ended, dtype)
    if key == CLOCK:
        return clock_rows(block, ended)
    parts = [feature_rows(key, one, block, ended, plan.schema.streams) for one in plan.arrays[key]]
    if plan.joins(key):
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1, dtype=dtype)
    return parts[0]


def _described(key: str, plan: _Plan) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape of a row of an array, and its dtype."""
    if key == TERMINALS:
        terminal = next(iter(plan.schema.by_role("terminal")), None)
        return (), np.dtype(bool if terminal is not None and terminal.dtype == "bool" else np.float32)
    if key == CLOCK:
        return (), np.dtype(np.int64)
    columns = plan.arrays[key]
    shape = (sum(one.size for one in columns),) if plan.joins(key) else columns[0].shape
    return shape, np.result_type(*(np.dtype(one.dtype) for one in columns))


def _passport(store: Store, plan: _Plan, numbers: list[int]) -> dict[str, Any]:
    paths = {one.name: key for key, columns in plan.arrays.items() for one in columns}
    for terminal in plan.schema.by_role("terminal"):
        if not plan.own_terminal and not terminal.shape and terminal.stream == BASE:
            paths[terminal.name] = TERMINALS
    infos, observed = store.episodes, [one.name for one in plan.arrays[OBSERVATIONS]]
    notes: dict[str, JsonValue] = {
        "spans": plan.spans,
        "attributes": [infos[number].attributes for number in numbers],
        "finals": [[*plan.finals[number]] if plan.ended[number] else [*observed] for number in numbers],
        "clock": CLOCK if plan.own_clock else None,
    }
    return issue(store, paths, notes).to_json()

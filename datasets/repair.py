"""Bringing a store back into order after a crash or a fault of the disk. Nothing that might be data is deleted.

- Segments that are whole but that no manifest names (killed between rename and commit) are committed. What other
  segments hold of their episodes already, since a run was repeated, stays hidden. Whether the repetition left an
  episode out on purpose cannot be known: the report names it, `onestride edit delete` hides it.
- Of a damaged segment, the episodes that are still sound (`checksums`) are committed anew in its place; the damaged
  one is moved to `.damaged/`.
- A damaged manifest is rebuilt from the segments; edits were in it and are lost. The old one goes to `.damaged/` too.
- What is left of unfinished segments, from which nothing can be read, is removed.

The schema (`zarr.json`) cannot be repaired: put back a copy of it from another store of the same recorder.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from pydantic import ValidationError

from onestride.datasets import checksums, video
from onestride.datasets.committing import commit_segment, publish
from onestride.datasets.copying import copy_video
from onestride.datasets.layout import HEADER, LOCK, SEGMENTS, STAGING, read_header, uncommitted
from onestride.datasets.lock import AppendLock
from onestride.datasets.manifest import (
    NAME,
    EpisodeEdit,
    Manifest,
    SegmentEntry,
    read_manifest,
    write_manifest,
)
from onestride.datasets.rows import Piece
from onestride.datasets.schema import Feature, Schema
from onestride.datasets.segment_reader import Segment
from onestride.datasets.segments import write_segment
from onestride.datasets.store import Store
from onestride.hardware.durable import file_sha256, sync, tree_sha256
from onestride.hardware.errors import OneStrideError

DAMAGED = ".damaged"
_Print = frozenset[tuple[str, int]]
_IDENTITY = re.compile(r"\d{6}-([0-9a-f]{12})")


@dataclass
class RepairReport:
    """What was found and what was done about it."""

    manifest_rebuilt: bool = False
    """The manifest was damaged; edits (deleted, split, relabelled) are lost."""
    recovered: list[str] = field(default_factory=list)
    """Segments that were whole but not committed; they are now, after all others."""
    doubled: list[str] = field(default_factory=list)
    """Episodes that are hidden since another segment holds them; `edit restore` shows them again."""
    salvaged: list[str] = field(default_factory=list)
    """Damaged segments whose sound episodes were committed anew."""
    lost: list[str] = field(default_factory=list)
    """Episodes that could not be kept, by their number before the repair."""
    moved: list[str] = field(default_factory=list)
    """What lies in `.damaged/` now."""
    removed: list[str] = field(default_factory=list)
    """Unfinished pieces from which nothing can be read."""

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return any(asdict(self).values())

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "changed": self.changed}


def repair(path: str | Path) -> RepairReport:
    """Repair the store at `path`; it opens and verifies afterwards.

    Raises:
        OneStrideError: no store, a damaged schema, a writer at work, or the disk refuses.
    """
    path = Path(path)
    schema = _schema(path)
    report = RepairReport()
    try:
        with AppendLock(path / LOCK):
            for folder in (STAGING, SEGMENTS):
                (path / folder).mkdir(exist_ok=True)
            manifest = _manifest(path, report)
            manifest = _salvage_all(path, manifest, schema, report)
            _recover_all(path, manifest, report)
    except OSError as error:
        raise OneStrideError(f"{path}: expected a writable store, got: {error}") from error
    Store.open(path).verify()
    return report


def _schema(path: Path) -> Schema:
    try:
        return Schema.model_validate(read_header(path)["schema"])
    except (KeyError, ValidationError) as error:
        raise OneStrideError(f"{path / HEADER}: expected the schema that was created, got an altered file") from error


def _manifest(path: Path, report: RepairReport) -> Manifest:
    """The manifest, rebuilt if it is damaged."""
    header = file_sha256(path / HEADER)
    try:
        manifest = read_manifest(path)
    except OneStrideError:
        report.manifest_rebuilt = True
        if (path / NAME).exists():
            _set_aside(path, path / NAME, report)
        manifest = Manifest(header=header, segments=tuple(_entries(path, report)))
        write_manifest(path, manifest, path / STAGING)
    if manifest.header != header:
        raise OneStrideError(f"{path / HEADER}: expected the schema that was created, got an altered file")
    return manifest


def _entries(path: Path, report: RepairReport) -> Iterable[SegmentEntry]:
    """Every segment whose name is its content's: it was complete when it was renamed, and is still."""
    known: set[_Print] = set()
    for home in sorted((path / SEGMENTS).iterdir()):
        entry = _entry(home)
        if entry is not None:
            prints = _fingerprints(home)
            yield entry.with_edits(_hidden(entry.id, prints, known, report))
            known |= set(prints)


def _hidden(identity: str, prints: Sequence[_Print], known: Set[_Print], report: RepairReport) -> list[EpisodeEdit]:
    """Edits that hide those episodes of a segment which other segments hold."""
    doubled = [index for index, one in enumerate(prints) if one in known]
    if doubled:
        report.doubled.append(f"{len(doubled)} of {len(prints)} episodes of {identity}")
    return [EpisodeEdit(index=index, parts=()) for index in doubled]


def _entry(home: Path) -> SegmentEntry | None:
    named = _IDENTITY.fullmatch(home.name)
    if named is None or not home.is_dir():
        return None
    checksum = tree_sha256(home)
    if not checksum.startswith(named.group(1)):
        return None
    return SegmentEntry(id=home.name, checksum=checksum, lengths=_lengths(home), meta=tree_sha256(home / "meta"))


def _lengths(segment: Path) -> tuple[int, ...]:
    """Base steps of each episode; whatever zarr raises on a damaged one goes on."""
    bounds = np.asarray(zarr.open_array(str(segment / "meta" / "episodes"), mode="r", zarr_format=3)[...])
    return tuple(int(stop - start) for start, stop in bounds[:, 0])


def _salvage_all(path: Path, manifest: Manifest, schema: Schema, report: RepairReport) -> Manifest:
    first = 0
    for entry in manifest.segments:
        segment = Segment(path / SEGMENTS / entry.id, entry, first)
        first += len(entry.visible)
        try:
            segment.verify()
        except OneStrideError:
            place = [one.id for one in manifest.segments].index(entry.id)
            manifest = _salvage(path, manifest, place, segment, schema, report)
            if segment.path.exists():
                _set_aside(path, segment.path, report)
    return manifest


def _salvage(
    path: Path, manifest: Manifest, place: int, segment: Segment, schema: Schema, report: RepairReport
) -> Manifest:
    """Commit what is sound of a damaged segment in its place."""
    entry = segment.entry
    damage = segment.damage() if segment.path.is_dir() else None
    hit = set(range(len(entry.lengths))) if damage is None else set(damage)
    for index in sorted(hit):
        report.lost += [f"episode {number}" for number in entry.numbers(index, segment.first)]
    sound = [index for index in range(len(entry.lengths)) if index not in hit]
    if not sound:
        segments = (*manifest.segments[:place], *manifest.segments[place + 1 :])
        manifest = manifest.model_copy(update={"segments": segments})
        write_manifest(path, manifest, path / STAGING)
        return manifest
    report.salvaged.append(entry.id)
    edits = {edit.index: edit.parts for edit in entry.edits}
    moved = [EpisodeEdit(index=at, parts=edits[index]) for at, index in enumerate(sound) if index in edits]
    fill = partial(_rewrite, segment=segment, sound=sound, schema=schema)
    lengths = [entry.lengths[index] for index in sound]
    return commit_segment(path, manifest, lengths, fill, edits=moved, place=place)


def _rewrite(staged: Path, *, segment: Segment, sound: list[int], schema: Schema) -> None:
    """Write the sound episodes of a damaged segment as a new one."""
    trusting = segment.unverified()
    streams = schema.streams
    pieces = [Piece.whole_of(trusting, index) for index in sound]
    plain = [feature for feature in schema.features if feature.codec == "lossless"]
    episodes = [piece.read(plain, schema.features, streams) for piece in pieces]

    def copy(feature: Feature, target: Path) -> video.VideoNote:
        return copy_video(trusting, feature, [piece.rows(streams, feature.stream) for piece in pieces], target)

    write_segment(staged, schema, episodes, copy)


def _recover_all(path: Path, manifest: Manifest, report: RepairReport) -> None:
    """Commit what is whole of the uncommitted, and clear away the rest."""
    known: set[_Print] = set()
    for entry in manifest.segments:
        known |= set(_fingerprints(path / SEGMENTS / entry.id))
    for name in _left(path, manifest):
        found = path / name
        if name not in _left(path, manifest):
            # A staged copy of it took its place and is committed by now.
            continue
        lengths = _whole(found)
        prints = _fingerprints(found) if lengths else []
        if lengths and not set(prints) <= known:
            entry = publish(path, found, manifest.next_number, lengths)
            entry = entry.with_edits(_hidden(entry.id, prints, known, report))
            manifest = manifest.with_segment(entry)
            write_manifest(path, manifest, path / STAGING)
            report.recovered.append(f"{name} as {entry.id} ({len(entry.visible)} episodes)")
            known |= set(prints)
        elif found.parent.name == SEGMENTS and not lengths:
            _set_aside(path, found, report)
        else:
            _remove(found)
            report.removed.append(name)


def _left(path: Path, manifest: Manifest) -> list[str]:
    """What `layout.uncommitted` names; it must be asked without the lock that is held here."""
    return list(uncommitted(path, manifest, locked=False))


def _whole(found: Path) -> tuple[int, ...]:
    """Lengths of the episodes of a segment that is complete and undamaged by its own checksums; empty if not."""
    try:
        lengths = _lengths(found)
    except Exception:  # half a segment makes zarr raise whatever it likes
        return ()
    return lengths if checksums.find_damage(found, len(lengths)) == {} else ()


def _fingerprints(segment: Path) -> list[_Print]:
    """What tells two episodes apart wherever they lie: the checksums of their rows and of when they were measured."""
    try:
        table: Any = zarr.open_array(str(segment / checksums.NAME), mode="r", zarr_format=3)
        names = [str(name) for name in table.attrs["arrays"]]
        rows = [dict(zip(names, map(int, row), strict=True)) for row in np.asarray(table[...])]
        return [frozenset(one for one in row.items() if one[0].startswith(("data/", "time/"))) for row in rows]
    except Exception:  # a segment from before there were such checksums, or half a one
        return []


def _set_aside(path: Path, thing: Path, report: RepairReport) -> None:
    folder = path / DAMAGED
    folder.mkdir(exist_ok=True)
    target, number = folder / thing.name, 0
    while target.exists():
        number += 1
        target = folder / f"{thing.name}.{number}"
    thing.rename(target)
    sync(folder)
    sync(thing.parent)
    report.moved.append(f"{thing.relative_to(path)} to {DAMAGED}/{target.name}")


def _remove(thing: Path) -> None:
    if thing.is_dir():
        shutil.rmtree(thing)
    else:
        thing.unlink()

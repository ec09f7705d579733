"""The manifest: the one file that says which segments exist. What it does not name was never committed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from onestride.datasets.schema import Schema
from onestride.hardware.durable import canonical_json, write_atomic
from onestride.hardware.errors import OneStrideError

FORMAT = 1
NAME = "manifest.json"


class _Sparse(BaseModel):
    """Leaves empty fields out of its JSON, so that what has none of them keeps the bytes it had before they existed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        return {key: value for key, value in content.items() if value not in ("", [], (), {}) or key in _ALWAYS}


_ALWAYS = ("format", "header", "segments", "id", "checksum", "lengths", "index", "parts")


class Part(_Sparse):
    """A range of a committed episode that readers see as an episode, perhaps with other attributes."""

    start: int
    stop: int
    """Steps [start, stop) of the base stream."""
    attributes: dict[str, JsonValue] = {}
    """Laid over what was recorded."""
    removed: tuple[str, ...] = ()
    """Recorded attributes that readers no longer see."""

    def relabelled(self, recorded: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """The attributes that readers see."""
        kept = {key: value for key, value in recorded.items() if key not in self.removed}
        return {**kept, **self.attributes}


class EpisodeEdit(_Sparse):
    """What readers see instead of one committed episode."""

    index: int
    """Its number within the segment."""
    parts: tuple[Part, ...]
    """None = deleted, several = split."""


class SegmentEntry(_Sparse):
    """One committed segment, and what was edited in it."""

    id: str
    checksum: str
    """SHA-256 over the segment's files, see `durable.tree_sha256`."""
    lengths: tuple[int, ...]
    """Steps of each of its episodes on the base stream, as committed."""
    meta: str = ""
    """The same over its folder `meta` alone: bounds and attributes can be trusted without reading the data."""
    edits: tuple[EpisodeEdit, ...] = ()

    @model_validator(mode="after")
    def _edits_fit(self) -> SegmentEntry:
        indices = [edit.index for edit in self.edits]
        if len(set(indices)) != len(indices) or not all(0 <= index < len(self.lengths) for index in indices):
            raise ValueError(f"segment {self.id}: expected one edit at most for each episode, got {indices}")
        for edit in self.edits:
            if not all(0 <= part.start < part.stop <= self.lengths[edit.index] for part in edit.parts):
                raise ValueError(f"segment {self.id}: expected parts within episode {edit.index}")
        return self

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First base row of each committed episode."""
        return tuple(accumulate((0, *self.lengths[:-1])))

    @cached_property
    def visible(self) -> tuple[tuple[int, Part], ...]:
        """What readers see, in order: the committed episode's number and the part of it."""
        edited = {edit.index: edit.parts for edit in self.edits}
        return tuple(
            (index, part)
            for index, length in enumerate(self.lengths)
            for part in edited.get(index, (Part(start=0, stop=length),))
        )

    def with_edits(self, edits: Sequence[EpisodeEdit]) -> SegmentEntry:
        """The same segment, edited in another way."""
        return SegmentEntry(
            id=self.id, checksum=self.checksum, lengths=self.lengths, meta=self.meta, edits=tuple(edits)
        )

    def numbers(self, index: int, first: int) -> list[int]:
        """Numbers under which readers see a committed episode, where the segment's first has the number `first`."""
        return [first + place for place, (seen, _) in enumerate(self.visible) if seen == index]


class Edition(_Sparse):
    """One edit of the whole dataset, for the record."""

    edited: str
    """ISO 8601, UTC."""
    command: str
    parent: str
    """Dataset id before the edit."""


class Manifest(_Sparse):
    """All committed segments, in order."""

    format: int = FORMAT
    header: str
    """SHA-256 of the store's `zarr.json`, which holds schema and provenance."""
    segments: tuple[SegmentEntry, ...] = ()
    history: tuple[Edition, ...] = ()
    """Edits, oldest first."""

    @property
    def next_number(self) -> int:
        """What the id of the next segment begins with: never one that is in use, even after segments were lost."""
        return 1 + max((int(segment.id.partition("-")[0]) for segment in self.segments), default=-1)

    def with_segment(self, entry: SegmentEntry) -> Manifest:
        """The manifest that also names `entry`."""
        return self.model_copy(update={"segments": (*self.segments, entry)})

    def dataset_id(self, schema: Schema) -> str:
        """Short content hash over the schema, the segments' checksums in order, and what was edited in them."""
        content: list[Any] = [schema.model_dump(mode="json"), [segment.checksum for segment in self.segments]]
        edits = [[place, *_dumped(segment)] for place, segment in enumerate(self.segments) if segment.edits]
        if edits:
            content.append(edits)
        return hashlib.sha256(canonical_json(content)).hexdigest()[:16]


def _dumped(segment: SegmentEntry) -> Iterator[dict[str, Any]]:
    return (edit.model_dump(mode="json") for edit in sorted(segment.edits, key=lambda edit: edit.index))


def write_manifest(store: Path, manifest: Manifest, staging: Path) -> None:
    """Replace the store's manifest; the commit happens at the rename."""
    body = manifest.model_dump(mode="json")
    content = {**body, "checksum": _checksum(body)}
    write_atomic(store / NAME, json.dumps(content, indent=1).encode(), staging)


def read_manifest(store: Path) -> Manifest:
    """The store's manifest, verified.

    Raises:
        OneStrideError: missing, truncated, altered, or of another format version.
    """
    path = store / NAME
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise OneStrideError(f"expected a manifest at {path}, got: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise OneStrideError(f"{path}: expected a manifest in JSON, got a truncated or damaged file") from error
    return _verified(path, content)


def _verified(path: Path, content: object) -> Manifest:
    if not isinstance(content, dict) or "format" not in content or "checksum" not in content:
        raise OneStrideError(f"{path}: expected a manifest with format and checksum, got something else")
    if content["format"] != FORMAT:
        raise OneStrideError(f"{path}: expected store format {FORMAT}, got {content['format']!r}")
    body = {key: value for key, value in content.items() if key != "checksum"}
    if content["checksum"] != _checksum(body):
        raise OneStrideError(f"{path}: expected checksum {content['checksum']}, got {_checksum(body)}: altered")
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        raise OneStrideError(f"{path}: expected a manifest, got {error.error_count()} wrong fields") from error


def _checksum(body: dict[str, object]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()

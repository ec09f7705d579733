"""The manifest: the one file that says which segments exist. What it does not name was never committed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from onestride.datasets.schema import Schema
from onestride.hardware.durable import canonical_json, write_atomic
from onestride.hardware.errors import OneStrideError

FORMAT = 1
NAME = "manifest.json"


class SegmentEntry(BaseModel):
    """One committed segment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    checksum: str
    """SHA-256 over the segment's files, see `durable.tree_sha256`."""
    lengths: tuple[int, ...]
    """Steps of each of its episodes on the base stream."""


class Manifest(BaseModel):
    """All committed segments, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    header: str
    """SHA-256 of the store's `zarr.json`, which holds schema and provenance."""
    segments: tuple[SegmentEntry, ...] = ()

    def with_segment(self, entry: SegmentEntry) -> Manifest:
        """The manifest that also names `entry`."""
        return self.model_copy(update={"segments": (*self.segments, entry)})

    def dataset_id(self, schema: Schema) -> str:
        """Short content hash over the schema and the segments' checksums, in order."""
        content = [schema.model_dump(mode="json"), [segment.checksum for segment in self.segments]]
        return hashlib.sha256(canonical_json(content)).hexdigest()[:16]


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
    except ValueError as error:
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

"""Where things lie in a store's directory, and how an empty one is made and recognised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zarr

from onestride.datasets.lock import is_locked
from onestride.datasets.manifest import FORMAT, Manifest, write_manifest
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Schema
from onestride.hardware.durable import file_sha256, sync_tree
from onestride.hardware.errors import OneStrideError

HEADER = "zarr.json"
SEGMENTS = "segments"
STAGING = ".staging"
LOCK = ".lock"


def write_empty(path: Path, schema: Schema, provenance: Provenance) -> None:
    """Write a store without segments at `path`, durably."""
    about = {
        "format": FORMAT,
        "schema": schema.model_dump(mode="json"),
        "provenance": provenance.model_dump(mode="json"),
    }
    group = zarr.create_group(str(path), zarr_format=3, attributes={"onestride": about})
    group.create_group(SEGMENTS)
    (path / STAGING).mkdir()
    (path / LOCK).touch()
    write_manifest(path, Manifest(header=file_sha256(path / HEADER)), path / STAGING)
    sync_tree(path)


def is_store(path: Path) -> bool:
    """Whether a store of ours lies at `path`, sound or not."""
    try:
        read_header(path)
    except OneStrideError:
        return False
    return True


def read_header(path: Path) -> dict[str, Any]:
    """The `onestride` attributes of a store's root group.

    Raises:
        OneStrideError: nothing at `path`, not a store, or a header that cannot be read.
    """
    try:
        if not path.exists():
            raise OneStrideError(f"expected a store at {path}, got nothing there")
        if not (path / HEADER).is_file():
            raise OneStrideError(f"expected a store (a directory with {HEADER}), got {path}, which is none")
        about = json.loads((path / HEADER).read_bytes())["attributes"]["onestride"]
        version = about["format"]
    except OSError as error:
        raise OneStrideError(f"expected a store that can be read at {path}, got: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise OneStrideError(f"{path / HEADER}: expected JSON, got a truncated or damaged file") from error
    except (KeyError, TypeError) as error:
        raise OneStrideError(f"expected a onestride store, got {path}, another Zarr group") from error
    if version != FORMAT:
        raise OneStrideError(f"{path}: expected store format {FORMAT}, got {version!r}")
    return dict(about)


def uncommitted(path: Path, manifest: Manifest, *, locked: bool | None = None) -> tuple[str, ...]:
    """Names, relative to the store, of what a killed writer left behind; nothing while a writer is at work.

    Args:
        path: the store.
        manifest: what is committed.
        locked: whether a writer is at work; None = look. Who holds the lock says False.
    """
    if is_locked(path / LOCK) if locked is None else locked:
        return ()
    committed = {entry.id for entry in manifest.segments}
    staged = [f"{STAGING}/{name}" for name in _entries(path / STAGING)]
    orphans = [f"{SEGMENTS}/{name}" for name in _entries(path / SEGMENTS) if name not in committed]
    return (*staged, *(name for name in orphans if name != f"{SEGMENTS}/{HEADER}"))


def _entries(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []

"""Uncompressed, memory-mapped copies of a store's columns, made once for each content of the store.

A cache is the folder `<dataset id>` in `<store>.cache` beside the store, or where that cannot be written in the
user's cache folder: for each column `<name>.npy`, readable by plain `numpy.load`, and `<name>.json` with its SHA-256;
`store.json` says whose it is. It holds nothing that the store does not: whoever deletes it loses time, not data. Making
one deletes those of the same store's former contents; a process that still trains on one keeps its open files.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from onestride.datasets.columns import Column, ColumnReader, Timeline
from onestride.datasets.schema import Array
from onestride.datasets.sources import WholeSource
from onestride.datasets.store import Store
from onestride.hardware.durable import canonical_json, file_sha256, sync, write_atomic
from onestride.hardware.errors import OneStrideError

FORMAT = 1
_UNFINISHED = ".unfinished"
_OWNER = "store.json"
_LOCK = ".lock"


def cache_folders(store: Store) -> tuple[Path, Path]:
    """Where a store's cache may lie: beside it, and in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = store.path.resolve()
    return path.with_name(f"{path.name}.cache"), home / "onestride" / "windows"


def mapped(
    store: Store, columns: Sequence[Column], reader: ColumnReader, timeline: Timeline, cache: Path | None
) -> WholeSource:
    """All columns as read-only memory maps; what the cache lacks, or holds damaged, is made first.

    Making holds `READ_BYTES` of rows, twice as much of what the store gives for them, and a chunk of the store,
    whatever its size. Opening reads every file once, to verify it.

    Args:
        store: the dataset.
        columns: what to map.
        reader: of the store.
        timeline: of the store.
        cache: folder of caches; None = the first of `cache_folders` that can be written.

    Raises:
        OneStrideError: no place to write, or not enough of it.
    """
    folder = _folder(store, cache)
    arrays = {}
    with _alone(folder):
        is_new = not (folder / _OWNER).exists()
        for column in columns:
            path = folder / f"{_name(column)}.npy"
            if not _is_sound(path, column, timeline):
                _make(path, column, reader, timeline)
            arrays[column.key] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        if is_new:
            _own(folder, store)
    return WholeSource(arrays, timeline.num_rows)


def _own(folder: Path, store: Store) -> None:
    """Note whose cache this is, and delete the others of the same store."""
    owner = {"store": str(store.path.resolve())}
    with suppress(OSError):  # it serves without a note, and so do former ones that cannot be deleted
        write_atomic(folder / _OWNER, json.dumps(owner).encode(), folder)
        for other in folder.parent.iterdir():
            if other != folder and _owner(other) == owner:
                _delete(other)


def _owner(folder: Path) -> object:
    with suppress(OSError, ValueError):
        return json.loads((folder / _OWNER).read_bytes())
    return None


def _delete(folder: Path) -> None:
    """Delete a cache's files and the folder, but nothing that somebody else put there, nor while one is being made."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in (*folder.glob("*.npy"), *folder.glob("*.json"), *folder.glob(f"*{_UNFINISHED}"), folder / _LOCK):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)


def _folder(store: Store, cache: Path | None) -> Path:
    refused = []
    for home in (cache,) if cache is not None else cache_folders(store):
        folder = home / store.dataset_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
            refused.append(f"{folder}: read-only")
        except OSError as error:
            refused.append(str(error))
    raise OneStrideError(
        f"expected a writable folder for the memory-mapped copy, got {'; '.join(refused)}; "
        "name one with `cache`, or use the mode 'streaming', which needs none"
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process makes files here: all ranks of a training start at once."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)  # who held the lock before may have deleted it
        for leftover in (*folder.glob(f"*{_UNFINISHED}"), *folder.glob("*.json.*")):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def _name(column: Column) -> str:
    """Readable, and different for every other content."""
    features = [one.model_dump(mode="json") for one in column.features]
    content = [FORMAT, column.key, features, column.dtype, list(column.shape), column.horizon]
    return f"{column.key}-{hashlib.sha256(canonical_json(content)).hexdigest()[:12]}"


def _is_sound(path: Path, column: Column, timeline: Timeline) -> bool:
    """Whether the file is there whole: rows, shape, dtype, and every byte by its checksum."""
    with suppress(OSError, EOFError, ValueError, KeyError, TypeError):
        note = json.loads(path.with_suffix(".json").read_bytes())
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        expected = ((timeline.num_rows, *column.shape), np.dtype(column.dtype))
        return (found.shape, found.dtype) == expected and file_sha256(path) == note["sha256"]
    return False


def _make(path: Path, column: Column, reader: ColumnReader, timeline: Timeline) -> None:
    unfinished = path.with_name(f"{path.name}{_UNFINISHED}")
    try:
        checksum = _copy(unfinished, column, reader, timeline)
        note = {"format": FORMAT, "features": [one.name for one in column.features], "sha256": checksum}
        sync(unfinished)
        unfinished.replace(path)
        write_atomic(path.with_suffix(".json"), json.dumps(note, indent=1).encode(), path.parent)
    except OSError as error:
        needed = timeline.num_rows * column.row_bytes
        raise OneStrideError(
            f"{path}: expected to write {needed} bytes of memory-mapped rows, got: {error}; name another place with "
            "`cache`, or use the mode 'streaming', which needs none"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _copy(path: Path, column: Column, reader: ColumnReader, timeline: Timeline) -> str:
    """Write the column as `.npy`, block by block, and return the SHA-256 of what was meant to be written."""
    shape = (timeline.num_rows, *column.shape)
    head = _header(shape, column.dtype)
    digest = hashlib.sha256(head)
    with path.open("wb") as file:
        file.write(head)
        for start, stop in reader.blocks(column):
            rows = np.zeros((stop - start, *column.shape), column.dtype)
            reader.fill(column, start, rows)
            block = rows.reshape(-1).view(np.uint8).data
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """What an `.npy` file begins with."""
    file = io.BytesIO()
    library: Any = np.lib.format
    description = {"descr": library.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    library.write_array_header_2_0(file, description)
    return file.getvalue()

"""Writing that survives a crash: fsync before rename, rename before naming, and checksums of what was written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_BLOCK = 1 << 20


def canonical_json(value: object) -> bytes:
    """The one byte form of a JSON value, for hashing: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sync(path: Path) -> None:
    """Flush one file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Flush every file and directory under `root`, and `root`.

    In parallel: a journalling file system then commits many files at once instead of one by one.
    """
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sync, [root, *root.rglob("*")]))


def write_atomic(path: Path, content: bytes, staging: Path) -> None:
    """Replace `path` by `content`: readers see the old file or the new one, whatever happens.

    Args:
        path: the file to replace.
        content: its new bytes.
        staging: an existing directory on the same file system for the unfinished file.
    """
    unfinished = staging / f"{path.name}.{os.getpid()}"
    try:
        unfinished.write_bytes(content)
        sync(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync(path.parent)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def tree_sha256(root: Path) -> str:
    """SHA-256 over all files under `root`: sorted relative path, size and bytes of each."""
    digest = hashlib.sha256()
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    for name in sorted(files):
        # The size frames each file, so that no two trees share one byte stream.
        digest.update(name.encode() + b"\0" + files[name].stat().st_size.to_bytes(8, "little"))
        for block in _blocks(files[name]):
            digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block

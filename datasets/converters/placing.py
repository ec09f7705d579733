"""A destination appears whole or not at all: results grow in a hidden folder beside it and are renamed into place."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from onestride.hardware.durable import sync, sync_tree
from onestride.hardware.errors import OneStrideError


@contextmanager
def placed(destination: Path, companions: tuple[Path, ...] = ()) -> Iterator[Path]:
    """A path to write to, alone in a new folder; all that lies in that folder takes its place when the block ends.

    Args:
        destination: where the result goes; what is there is replaced.
        companions: files beside it that belong to it; those there already are replaced or go with it.

    Raises:
        OneStrideError: the place cannot be written. After any exception the destination is as it was.
    """
    identity = uuid.uuid4().hex[:8]
    work = destination.with_name(f".{destination.name}.{identity}.unfinished")
    old = destination.with_name(f".{destination.name}.{identity}.old")
    try:
        work.mkdir(parents=True)
    except OSError as error:
        raise OneStrideError(f"expected a writable place, got {destination}: {error.strerror}") from error
    try:
        yield work / destination.name
        sync_tree(work)
        _replace(work, old, destination, companions)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _remove(old)


def _replace(work: Path, old: Path, destination: Path, companions: tuple[Path, ...]) -> None:
    """Put everything in place, the destination last; what was there goes once the new stands."""
    arriving = sorted(work.iterdir(), key=lambda path: path.name == destination.name)
    leaving = {destination, *companions, *(destination.with_name(one.name) for one in arriving)}
    moved: list[tuple[Path, Path]] = []
    try:
        for path in sorted(path for path in leaving if path.exists()):
            old.mkdir(exist_ok=True)
            moved.append(_move(path, old / path.name))
        for path in arriving:
            moved.append(_move(path, destination.with_name(path.name)))
    except OSError as error:
        for source, target in reversed(moved):
            target.rename(source)
        shutil.rmtree(old, ignore_errors=True)
        raise OneStrideError(f"expected to place {destination}, got: {error}") from error
    sync(destination.parent)


def _remove(old: Path) -> None:
    """Remove what was replaced; of a store several folders at once, as a file system waits for each."""
    with ThreadPoolExecutor(8) as pool:
        for folder in old.glob("*/segments/*/*"):
            pool.submit(shutil.rmtree, folder, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _move(source: Path, target: Path) -> tuple[Path, Path]:
    source.rename(target)
    return source, target

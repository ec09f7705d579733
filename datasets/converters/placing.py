"""A destination appears whole or not at all: results grow in a hidden folder beside it and are renamed into place."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from glob import escape
from pathlib import Path

from onestride.datasets.layout import LOCK
from onestride.datasets.lock import AppendLock
from onestride.hardware.durable import sync, sync_tree
from onestride.hardware.errors import OneStrideError


@contextmanager
def placed(destination: Path, companions: tuple[Path, ...] = ()) -> Iterator[Path]:
    """A path to write to, alone in a new folder; all that lies in that folder takes its place when the block ends.

    Args:
        destination: where the result goes; what is there is replaced. No one appends to a store there meanwhile.
        companions: files beside it that belong to it; those there already are replaced or go with it.

    Raises:
        OneStrideError: the place cannot be written, or someone appends to the store that is there. After any
            exception the destination is as it was.
    """
    with _alone(destination):
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


def left_behind(destination: Path) -> tuple[str, ...]:
    """What runs that were killed (or are at work now) left beside a destination: `.old` holds what was replaced."""
    found = (destination.parent.glob(f".{escape(destination.name)}.*.{kind}") for kind in ("unfinished", "old"))
    return tuple(sorted(str(path) for paths in found for path in paths))


def _alone(destination: Path) -> AbstractContextManager[object]:
    """The append lock of the store at `destination`, if there is one: what is appended to it now would be lost."""
    lock = destination / LOCK
    return AppendLock(lock) if lock.is_file() else nullcontext()


def _replace(work: Path, old: Path, destination: Path, companions: tuple[Path, ...]) -> None:
    """Put everything in place, the destination last; what was there goes once the new stands."""
    arriving = sorted(work.iterdir(), key=lambda path: path.name == destination.name)
    leaving = {destination, *companions, *(destination.with_name(one.name) for one in arriving)}
    moves = [(path, old / path.name) for path in sorted(leaving) if path.exists()]
    moves += [(path, destination.with_name(path.name)) for path in arriving]
    try:
        old.mkdir()
        for source, target in moves:
            source.rename(target)
        sync(destination.parent)
    except BaseException as error:  # Ctrl-C must not cost what was there
        _undo(moves)
        with suppress(OSError):
            old.rmdir()
        if isinstance(error, OSError):
            raise OneStrideError(f"expected to place {destination}, got: {error}") from error
        raise


def _undo(moves: list[tuple[Path, Path]]) -> None:
    """Take back those moves that were made, by what lies where: the interruption may have struck right after one."""
    for source, target in reversed(moves):
        if target.exists() and not source.exists():
            target.rename(source)


def _remove(old: Path) -> None:
    """Remove what was replaced; of a store several folders at once, as a file system waits for each."""
    with ThreadPoolExecutor(8) as pool:
        for folder in old.glob("*/segments/*/*"):
            pool.submit(shutil.rmtree, folder, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)

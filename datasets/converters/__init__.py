"""Bringing other formats into the store: one reader for each format, one way into the store for all.

A reader is a module with `recognises(path) -> bool`, which looks at the content and never at the name, and
`read(path, report) -> Source`.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from onestride.datasets.layout import is_store
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Schema
from onestride.datasets.store import Store
from onestride.hardware.durable import sync
from onestride.hardware.errors import OneStrideError, unknown

READERS = {
    "robomimic HDF5": "onestride.datasets.converters.robomimic",
}
"""Format -> module that reads it, imported when it is needed."""

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


@dataclass
class Report:
    """What became of a source: nothing is left out or altered without a line here."""

    format: str = ""
    kept: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Kept in another form, derived, or corrected."""
    left_out: list[str] = field(default_factory=list)
    """What the store cannot hold, or this reader does not bring over."""
    episodes: int = 0
    steps: int = 0
    dataset_id: str = ""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Source:
    """A dataset in another format, opened and checked, ready to be read episode by episode."""

    schema: Schema
    provenance: Provenance
    count: int
    """Number of episodes."""
    episodes: Iterator[Episode]


def detect(path: Path) -> str:
    """The format of the dataset at `path`, by its content.

    Raises:
        OneStrideError: nothing there, or none of the known formats.
    """
    if not path.exists():
        raise OneStrideError(f"expected a dataset at {path}, got nothing there")
    for name, module in READERS.items():
        if import_module(module).recognises(path):
            return name
    raise unknown("dataset format", str(path), READERS)


def convert(source: Path, destination: Path, *, overwrite: bool = False, progress: Progress | None = None) -> Report:
    """Bring a dataset into a new store, whole or not at all.

    The store grows beside `destination` under another name and takes its place when it is complete.

    Args:
        source: a dataset in one of the formats of `READERS`.
        destination: the store to make.
        overwrite: replace a store that is there already.
        progress: told about each episode.

    Raises:
        OneStrideError: unknown format, damaged source, or a destination that exists.
    """
    _check_destination(destination, overwrite)
    report = Report(format=detect(source))
    opened: Source = import_module(READERS[report.format]).read(source, report)
    unfinished = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}.unfinished")
    try:
        store = _fill(unfinished, opened, progress)
        report.episodes, report.steps, report.dataset_id = store.num_episodes, store.num_steps, store.dataset_id
        _replace(unfinished, destination)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return report


def _check_destination(destination: Path, overwrite: bool) -> None:
    if not destination.exists():
        return
    if not overwrite:
        raise OneStrideError(f"expected a new path, got {destination}, which exists: --overwrite replaces a store")
    if not is_store(destination):
        raise OneStrideError(f"expected a store to overwrite, got {destination}, which is none")


def _fill(path: Path, source: Source, progress: Progress | None) -> Store:
    store = Store.create(path, source.schema, source.provenance)
    with store.writer() as writer:
        for number, episode in enumerate(source.episodes, start=1):
            writer.add(episode)
            if progress is not None:
                progress(number, source.count)
    return store


def _replace(finished: Path, destination: Path) -> None:
    """Put the finished store in place; the one that was there goes once the new one stands."""
    old = finished.with_suffix(".old")
    try:
        if destination.exists():
            destination.rename(old)
        finished.rename(destination)
    except OSError as error:
        if old.exists() and not destination.exists():
            old.rename(destination)
        raise OneStrideError(f"expected to place the store at {destination}, got: {error}") from error
    sync(destination.parent)
    shutil.rmtree(old, ignore_errors=True)

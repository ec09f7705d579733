"""One episode of whatever holds episodes: a store, a journal, or a dataset of another format."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from onestride.datasets.journal import SUFFIX
from onestride.datasets.journal_reader import Journal
from onestride.datasets.schema import Episode, Schema
from onestride.hardware.errors import OneStrideError

#: What `Recording.format` says of a journal; other formats are named as `converters` does.
JOURNAL = "journal"


@dataclass(frozen=True)
class Recording:
    """An episode with its schema.

    Attributes:
        format: what it was read from.
        schema: of its features.
        episode: its rows.
        number: which it is, from 0.
    """

    format: str
    schema: Schema
    episode: Episode
    number: int


def read_recording(path: Path, number: int = 0, mapping: Path | None = None) -> Recording:
    """Read one episode.

    Args:
        path: a store, a journal or a folder of journals, an MCAP file of ours, or any dataset that converts.
        number: of the episode, from 0; of journals, whole episodes count.
        mapping: what the topics of a rosbag2 recording mean, see `docs/formats/rosbag2.md`.

    Raises:
        OneStrideError: no such dataset or episode, or it is damaged.
    """
    if number < 0:
        raise OneStrideError(f"expected an episode from 0 on, got {number}")
    journals = [path] if path.suffix == SUFFIX else sorted(path.rglob(f"*{SUFFIX}"))
    if journals:
        return _of_journals(path, journals, number)
    return _of_converted(path, number, mapping)


def _of_journals(path: Path, journals: Sequence[Path], number: int) -> Recording:
    passed = 0
    for one in journals:
        with closing(Journal(one)) as journal:
            whole = [episode for episode in journal.episodes if not episode.incomplete and episode.length]
            if number < passed + len(whole):
                found = journal.read(whole[number - passed])
                return Recording(JOURNAL, journal.schema, found, number)
            passed += len(whole)
    raise _no_such(path, number, passed)


def _of_converted(path: Path, number: int, mapping: Path | None) -> Recording:
    from onestride.datasets.converters import STORE, Options, Report, detect, open_source

    name = detect(path)
    if name == STORE:
        return _of_store(path, number)
    source = open_source(path, Report(format=name), Options(mapping=mapping))
    found = next(islice(source.episodes, number, None), None)
    if found is None:
        raise _no_such(path, number, source.count)
    return Recording(name, source.schema, found, number)


def _of_store(path: Path, number: int) -> Recording:
    from onestride.datasets.store import Store

    store = Store.open(path)
    if number >= store.num_episodes:
        raise _no_such(path, number, store.num_episodes)
    return Recording("store", store.schema, store.read_episode(number), number)


def _no_such(path: Path, number: int, count: int) -> OneStrideError:
    held = f"one of its episodes 0 to {count - 1}" if count else "a whole episode"
    return OneStrideError(f"{path}: expected {held}, got {number if count else 'none'}")

"""`onestride merge`, `edit` and `compact`: changing datasets without touching what was recorded."""

from __future__ import annotations

import json as json_format
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg, subcommand

from onestride.datasets.printing import episode_progress, print_json, print_line
from onestride.hardware.errors import OneStrideError

if TYPE_CHECKING:
    from onestride.datasets.joining import JoinReport
    from onestride.datasets.merging import CopyReport
    from onestride.datasets.store import Store

Numbers = tuple[str, ...]
"""Episode numbers as a person writes them: `3 7-9`."""


@dataclass
class Merge:
    """Merge several stores into a new one, in the order given; none of them is touched."""

    sources: Positional[tuple[Path, ...]]
    """Stores to merge, two at least."""
    output: Annotated[Path, arg(aliases=["-o"])] = field(kw_only=True)
    """Store to make."""
    common: bool = False
    """Keep the features that all stores share, where schemas differ: demonstrations with recordings, for instance."""
    json: bool = False
    """Print the report as JSON."""

    def __call__(self) -> int:
        """Merge with a progress bar; the report goes to stdout."""
        from onestride.datasets.joining import join
        from onestride.datasets.merging import merge

        with episode_progress("Merging") as progress:
            if self.common:
                _print_join(join(self.sources, self.output, progress), self.output, self.json)
            else:
                _print_copy(merge(self.sources, self.output, progress), self.output, self.json)
        return 0


@dataclass
class Compact:
    """Rewrite a store into a new one that holds only what is visible after edits; the source is not touched."""

    data: Positional[Path]
    """Store to read."""
    destination: Positional[Path]
    """Store to make."""
    json: bool = False
    """Print the report as JSON."""

    def __call__(self) -> int:
        """Copy with a progress bar; the report goes to stdout."""
        from onestride.datasets.compaction import compact

        with episode_progress("Compacting") as progress:
            report = compact(self.data, self.destination, progress)
        _print_copy(report, self.destination, self.json)
        return 0


@dataclass
class Delete:
    """Hide episodes; `edit restore` brings them back, `compact` leaves them behind."""

    data: Positional[Path]
    """Store to edit."""
    episodes: Positional[Numbers]
    """Episodes as `inspect` numbers them: `3 7-9`."""

    def __call__(self, store: Store) -> None:
        """Delete."""
        from onestride.datasets.editing import delete

        delete(store, _numbers(self.episodes))


@dataclass
class Split:
    """Cut an episode into several, for instance where an intervention began."""

    data: Positional[Path]
    """Store to edit."""
    episode: Positional[int]
    """Episode as `inspect` numbers it."""
    at: tuple[int, ...]
    """Steps that begin a new episode."""

    def __call__(self, store: Store) -> None:
        """Split."""
        from onestride.datasets.editing import split

        split(store, self.episode, self.at)


@dataclass
class Relabel:
    """Change what is said about episodes: task, success, operator's notes. What was recorded stays below."""

    data: Positional[Path]
    """Store to edit."""
    episodes: Positional[Numbers]
    """Episodes as `inspect` numbers them: `3 7-9`."""
    set: tuple[str, ...] = ()
    """`name=value` pairs; a value that is JSON (true, 3, "text") is taken as such, anything else as text."""
    unset: tuple[str, ...] = ()
    """Names of attributes to hide."""

    def __call__(self, store: Store) -> None:
        """Relabel."""
        from onestride.datasets.editing import relabel

        relabel(store, _numbers(self.episodes), dict(map(_pair, self.set)), self.unset)


@dataclass
class Restore:
    """Undo every edit of a store."""

    data: Positional[Path]
    """Store to edit."""

    def __call__(self, store: Store) -> None:
        """Restore."""
        from onestride.datasets.editing import restore

        restore(store)


@dataclass
class Edit:
    """Delete, split or relabel episodes: a new manifest, no recorded file is touched. `restore` undoes all of it."""

    what: (
        Annotated[Delete, subcommand("delete")]
        | Annotated[Split, subcommand("split")]
        | Annotated[Relabel, subcommand("relabel")]
        | Annotated[Restore, subcommand("restore")]
    )
    json: bool = False
    """Print what the store holds now as JSON."""

    def __call__(self) -> int:
        """Edit, and say what the store holds now."""
        from onestride.datasets.store import Store

        store = Store.open(self.what.data)
        before = store.dataset_id
        self.what(store)
        told: dict[str, Any] = {
            "dataset_id": store.dataset_id,
            "parent": before,
            "episodes": store.num_episodes,
            "steps": store.num_steps,
        }
        if self.json:
            print_json(told)
        else:
            print_line(f"{store.path}: {store.num_episodes} episodes, {store.num_steps} steps, id {store.dataset_id}")
        return 0


def _numbers(given: Iterable[str]) -> list[int]:
    """`3 7-9` as [3, 7, 8, 9].

    Raises:
        OneStrideError: neither a number nor a range.
    """
    found: list[int] = []
    for word in given:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise OneStrideError(f"expected episode numbers such as 3 or 7-9, got {word!r}")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def _pair(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise OneStrideError(f"expected name=value, got {given!r}")
    try:
        return name, json_format.loads(value)
    except ValueError:
        return name, value


def _print_join(report: JoinReport, destination: Path, json: bool) -> None:
    if json:
        print_json(report.to_json())
        return
    print_line(f"{destination}: {report.episodes} episodes, {report.steps} steps, id {report.dataset_id}")
    print_line(f"kept: {', '.join(report.features)}")
    if report.left_out:
        print_line(f"left out, not in all of them: {', '.join(report.left_out)}")


def _print_copy(report: CopyReport, destination: Path, json: bool) -> None:
    if json:
        print_json(report.to_json())
        return
    print_line(
        f"{destination}: {report.episodes} episodes, {report.steps} steps in {report.segments} segments "
        f"(from {report.segments_before}), id {report.dataset_id}"
    )
    if report.hidden_steps:
        print_line(f"{report.hidden_steps} hidden steps stay in the files: video begins at key frames only")
    for name in report.dropped:
        print_line(f"not committed, left out: {name}")

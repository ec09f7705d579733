"""Recorded journals into a store: what was finished, once, and nothing that was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from onestride.datasets.journal import SUFFIX
from onestride.datasets.journal_reader import Journal, JournalEpisode
from onestride.datasets.journal_versions import (
    INCOMPLETE,
    SUCCESS_SAID,
    Versions,
    bring_up_to_date,
    versions,
    worth_of,
)
from onestride.datasets.merging import schema_difference
from onestride.datasets.provenance import Provenance, Source
from onestride.datasets.schema import Episode
from onestride.datasets.store import SegmentWriter, Store
from onestride.hardware.errors import OneStrideError

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


@dataclass
class CommitReport:
    """What `onestride commit` did."""

    store: str
    journals: tuple[str, ...]
    dataset_id: str = ""
    committed: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    """Episodes that the store has had before."""
    hidden: list[str] = field(default_factory=list)
    """Episodes of the store that are hidden now, and why: discarded since, or taken anew as there is more of them."""
    left_out: list[str] = field(default_factory=list)
    """Episodes that were discarded, are incomplete, empty or unfit, and why."""
    damage: list[str] = field(default_factory=list)
    """What in the journals is no sound record."""
    steps: int = 0

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def commit(
    source: str | Path,
    destination: str | Path,
    *,
    include_incomplete: bool = False,
    successes_only: bool = False,
    progress: Progress | None = None,
) -> CommitReport:
    """Add the episodes of a journal, or of every journal in a folder, to a store, which is made if there is none.

    Cut short at any moment, it can be repeated: episodes that the store has, or has had, are passed over. What was
    committed before it was whole, or marked as a success, is taken anew; what was discarded since is hidden.

    Args:
        source: a journal or a folder of journals.
        destination: the store.
        include_incomplete: take what there is of incomplete episodes; their attribute `incomplete` says why.
        successes_only: leave out episodes that were not marked as successes.
        progress: told of each episode.

    Raises:
        OneStrideError: no journals, one that cannot be read, schemas that differ, a store that is being written,
            or the disk refuses.
    """
    with ExitStack() as stack:
        journals = [stack.enter_context(Journal(path)) for path in journal_paths(Path(source))]
        store = _store(journals, Path(destination))
        choose = _Choice(include_incomplete, successes_only)
        report = CommitReport(str(store.path), tuple(str(journal.path) for journal in journals))
        report.damage = [f"{journal.path.name}: {line}" for journal in journals for line in journal.damage_report]
        with store.writer() as writer:
            _add_all(journals, writer, choose, report, progress)
        store = Store.open(store.path)
        report.hidden = bring_up_to_date(store, [episode for _, episode in _episodes(journals)])
    report.dataset_id = store.dataset_id
    return report


def journal_paths(source: Path) -> list[Path]:
    """The journals of a folder in the order they were begun, or the one that is named.

    Raises:
        OneStrideError: there is none.
    """
    if not source.is_dir():
        return [source]
    found = sorted(source.rglob(f"*{SUFFIX}"))
    if not found:
        raise OneStrideError(f"expected journals (*{SUFFIX}) in {source}, got none")
    return found


def _store(journals: Sequence[Journal], path: Path) -> Store:
    """The store to add to, new if there is none, after a look at every schema."""
    store = Store.open(path) if path.exists() else None
    wanted, owner = (store.schema, path) if store is not None else (journals[0].schema, journals[0].path)
    for journal in journals:
        difference = schema_difference(wanted, journal.schema)
        if difference:
            raise OneStrideError(f"expected journals of the schema of {owner}, got {journal.path}: {difference}")
    return store or Store.create(path, wanted, _provenance(journals))


def _provenance(journals: Sequence[Journal]) -> Provenance:
    return Provenance.now(
        "commit",
        environment=journals[0].schema.environment,
        sources=tuple(Source.of(journal.path) for journal in journals),
        extra={"recorded": [{"journal": journal.id, **journal.about} for journal in journals]},
    )


@dataclass(frozen=True)
class _Choice:
    """Which episodes are wanted."""

    incomplete: bool
    successes: bool

    def reason_against(self, episode: JournalEpisode) -> str:
        """Why an episode is left out; empty if it is not."""
        if episode.discarded:
            return "discarded"
        if not episode.id:
            return "; ".join(episode.incomplete)
        if episode.incomplete and not self.incomplete:
            return "; ".join(episode.incomplete)
        if self.successes and episode.attributes.get("success") is not True:
            return "not marked as a success"
        return "" if episode.length else "empty: no step of the policy was recorded"


def _add_all(
    journals: Sequence[Journal],
    writer: SegmentWriter,
    choice: _Choice,
    report: CommitReport,
    progress: Progress | None,
) -> None:
    # Another process may have committed since the store was opened.
    known, total = versions(Store.open(writer.store.path)), sum(len(journal.episodes) for journal in journals)
    for done, (journal, episode) in enumerate(_episodes(journals), start=1):
        _add(journal, episode, writer, choice, known, report)
        if progress is not None:
            progress(done, total)


def _episodes(journals: Sequence[Journal]) -> Iterator[tuple[Journal, JournalEpisode]]:
    for journal in journals:
        for episode in journal.episodes:
            yield journal, episode


def _add(
    journal: Journal,
    episode: JournalEpisode,
    writer: SegmentWriter,
    choice: _Choice,
    known: dict[str, Versions],
    report: CommitReport,
) -> None:
    if episode.id in known and not known[episode.id].surpassed_by(episode):
        report.already.append(episode.id)
        return
    reason = choice.reason_against(episode)
    if not reason:
        read = _read(journal, episode)
        try:
            writer.add(read)
        except OneStrideError as error:
            if _fits(read, writer.store):
                raise  # the store's trouble, not the episode's
            reason = str(error)
    if reason:
        report.left_out.append(f"{episode.name}: {reason}")
        return
    known.setdefault(episode.id, Versions()).best = worth_of(episode)
    report.committed.append(episode.id)
    report.steps += read.length


def _fits(episode: Episode, store: Store) -> bool:
    try:
        episode.validate(store.schema)
    except OneStrideError:
        return False
    return True


def _read(journal: Journal, episode: JournalEpisode) -> Episode:
    """The episode with what its journal says of it."""
    read = journal.read(episode)
    said: dict[str, JsonValue] = {"journal": journal.id, "label_source": journal.schema.label_source}
    if episode.incomplete:
        said[INCOMPLETE] = list(episode.incomplete)
    if episode.succeeded_later:
        said[SUCCESS_SAID] = "after the end"
    read.attributes = {**read.attributes, **said}
    return read

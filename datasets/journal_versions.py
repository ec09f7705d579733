"""What a store has of recorded episodes, compared with what their journals say by now.

An episode may be committed while it runs (`--include-incomplete`), and be marked as a success or discarded afterwards.
A later commit then takes it anew, or hides it; what was committed is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from pydantic import JsonValue

from onestride.datasets.editing import delete, replace
from onestride.datasets.journal_reader import JournalEpisode
from onestride.datasets.store import Store

IDENTITY = "episode_id"
"""Attribute of every recorded episode by which it is known again."""

INCOMPLETE = "incomplete"
"""Attribute that says what is missing of an episode; only incomplete ones have it."""

SUCCESS_SAID = "success_said"
"""Attribute of episodes that were marked as successes after their end: a relabelled copy still knows of the mark."""

Worth = tuple[bool, bool]
"""Whether a version of an episode is whole, and whether it knows of a success that was marked after its end."""


@dataclass
class Versions:
    """What a store has, or has had, of one recorded episode.

    Attributes:
        best: the most that any of them is worth.
        seen: number under which readers see a version -> its worth.
    """

    best: Worth = (False, False)
    seen: dict[int, Worth] = field(default_factory=dict)

    @property
    def outdated(self) -> dict[int, int]:
        """Versions that readers see -> the better one that they see, too."""
        better = [number for number, worth in self.seen.items() if worth == self.best]
        return {number: better[0] for number, worth in self.seen.items() if better and worth < self.best}

    def surpassed_by(self, episode: JournalEpisode) -> bool:
        """Whether the journal has more of an episode that was not deleted."""
        return bool(self.seen) and worth_of(episode) > self.best


def worth_of(episode: JournalEpisode) -> Worth:
    """What the journal's version of an episode is worth."""
    return not episode.incomplete, episode.succeeded_later


def versions(store: Store) -> dict[str, Versions]:
    """Id of each recorded episode that a store has ever taken, edited and deleted ones too -> what it has of it."""
    found: dict[str, Versions] = {}
    for segment in store.segments:
        for index, attributes in enumerate(segment.attributes):
            if IDENTITY in attributes:
                one = found.setdefault(str(attributes[IDENTITY]), Versions())
                worth = _recorded_worth(attributes)
                one.best = max(one.best, worth)
                one.seen |= dict.fromkeys(segment.entry.numbers(index, segment.first), worth)
    return found


def bring_up_to_date(store: Store, episodes: Sequence[JournalEpisode]) -> list[str]:
    """Hide what was discarded since it was committed, and versions of which there is a better one; what, and why.

    Raises:
        OneStrideError: the store changed since it was opened, another process is writing, or the disk refuses.
    """
    return _hide_discarded(store, episodes) + _replace_outdated(store, episodes)


def _hide_discarded(store: Store, episodes: Sequence[JournalEpisode]) -> list[str]:
    known = versions(store)
    gone = {one.id: known[one.id].seen for one in episodes if one.discarded and one.id in known and known[one.id].seen}
    if gone:
        delete(store, chain.from_iterable(gone.values()))
    return [f"{identity}: discarded since it was committed" for identity in gone]


def _replace_outdated(store: Store, episodes: Sequence[JournalEpisode]) -> list[str]:
    known = versions(store)
    old = {one.id: outdated for one in episodes if one.id in known and (outdated := known[one.id].outdated)}
    if old:
        replace(store, dict(chain.from_iterable(outdated.items() for outdated in old.values())))
    return [f"{identity}: as it was before it was finished or marked as a success" for identity in old]


def _recorded_worth(attributes: Mapping[str, JsonValue]) -> Worth:
    return INCOMPLETE not in attributes, SUCCESS_SAID in attributes or attributes.get("success") is True

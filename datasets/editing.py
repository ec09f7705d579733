"""Editing the episodes of a store: each edit is a new manifest, no committed segment is ever touched.

Episodes are numbered as `Store.episodes` shows them; after an edit the numbers and the dataset id are new ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from pydantic import JsonValue

from onestride.datasets.manifest import EpisodeEdit, Part, SegmentEntry
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

Change = Callable[[int, Part], tuple[Part, ...]]
"""An episode's number and what is seen of it -> what is seen instead."""


def delete(store: Store, episodes: Iterable[int]) -> None:
    """Hide episodes from readers; `restore` brings them back, `compact` leaves them behind.

    Raises:
        OneStrideError: no such episode, or the store cannot be written.
    """
    chosen = _checked(store, episodes)
    _apply(store, f"delete {_listed(chosen)}", lambda number, part: () if number in chosen else (part,))


def split(store: Store, episode: int, steps: Iterable[int]) -> None:
    """Cut an episode into several that begin at its step 0 and at each of `steps`.

    All keep its attributes. The value after the last action of a part is what the next part begins with.

    Raises:
        OneStrideError: no such episode, a step outside it, or the store cannot be written.
    """
    _checked(store, [episode])
    cuts = sorted(set(steps))
    length = int(store.lengths[episode])
    if not cuts or not all(0 < step < length for step in cuts):
        raise OneStrideError(f"expected steps from 1 to {length - 1} to split episode {episode} at, got {cuts}")

    def cut(number: int, part: Part) -> tuple[Part, ...]:
        if number != episode:
            return (part,)
        bounds = [part.start, *(part.start + step for step in cuts), part.stop]
        return tuple(part.model_copy(update={"start": start, "stop": stop}) for start, stop in pairwise(bounds))

    _apply(store, f"split {episode} at {_listed(cuts)}", cut)


def relabel(
    store: Store,
    episodes: Iterable[int],
    attributes: Mapping[str, JsonValue],
    remove: Sequence[str] = (),
) -> None:
    """Lay attributes (task, success, operator's notes) over what was recorded, and hide others.

    Raises:
        OneStrideError: no such episode, no JSON values, or the store cannot be written.
    """
    chosen = _checked(store, episodes)
    try:
        said = json.dumps(dict(attributes), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise OneStrideError(f"expected attributes of JSON values, got: {error}") from error
    if not attributes and not remove:
        raise OneStrideError("expected attributes to set or to remove, got none")
    both = sorted(set(attributes) & set(remove))
    if both:
        raise OneStrideError(f"expected to set an attribute or to remove it, got both for {', '.join(both)}")

    def label(number: int, part: Part) -> tuple[Part, ...]:
        if number not in chosen:
            return (part,)
        over = {key: value for key, value in {**part.attributes, **attributes}.items() if key not in remove}
        gone = [key for key in dict.fromkeys((*part.removed, *remove)) if key not in over]
        return (part.model_copy(update={"attributes": over, "removed": tuple(gone)}),)

    hidden = f", without {', '.join(remove)}" if remove else ""
    _apply(store, f"relabel {_listed(chosen)}: {said}{hidden}", label)


def replace(store: Store, successors: Mapping[int, int]) -> None:
    """Hide episodes whose successors, episodes of the store as well, take their place and their labels.

    Raises:
        OneStrideError: no such episode, or the store cannot be written.
    """
    chosen = _checked(store, [*successors, *successors.values()])
    parts = [part for entry in store.manifest.segments for _, part in entry.visible]
    labels = {
        new: {"attributes": parts[old].attributes, "removed": parts[old].removed} for old, new in successors.items()
    }

    def inherit(number: int, part: Part) -> tuple[Part, ...]:
        return () if number in successors else (part.model_copy(update=labels.get(number, {})),)

    _apply(store, f"replace {_listed(sorted(successors))} of {_listed(chosen)}", inherit)


def restore(store: Store) -> None:
    """Undo every edit: all that was committed is seen again, as it was recorded.

    Raises:
        OneStrideError: the store cannot be written.
    """
    entries = [entry.with_edits(()) for entry in store.manifest.segments]
    if entries != list(store.manifest.segments):
        store.edit("restore", entries)


def _apply(store: Store, command: str, change: Change) -> None:
    entries, number = [], 0
    for entry in store.manifest.segments:
        parts: dict[int, list[Part]] = {index: [] for index in range(len(entry.lengths))}
        for index, part in entry.visible:
            parts[index].extend(change(number, part))
            number += 1
        entries.append(entry.with_edits(_edits(entry, parts)))
    if entries != list(store.manifest.segments):
        store.edit(command, entries)


def _edits(entry: SegmentEntry, parts: Mapping[int, Sequence[Part]]) -> tuple[EpisodeEdit, ...]:
    untouched = {index: [Part(start=0, stop=length)] for index, length in enumerate(entry.lengths)}
    return tuple(
        EpisodeEdit(index=index, parts=tuple(seen)) for index, seen in parts.items() if list(seen) != untouched[index]
    )


def _checked(store: Store, episodes: Iterable[int]) -> list[int]:
    chosen = sorted(set(episodes))
    if not chosen:
        raise OneStrideError("expected at least one episode, got none")
    for number in chosen:
        store.episode(number)
    return chosen


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))

"""Several stores into one: what several recorders wrote becomes one dataset, and none of them is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onestride.datasets.converters.placing import left_behind, placed
from onestride.datasets.copying import Progress, copy_episodes
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Schema
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError


@dataclass(frozen=True)
class CopyReport:
    """What `merge` or `compact` made."""

    sources: tuple[str, ...]
    """Dataset ids."""
    episodes: int
    steps: int
    segments_before: int
    segments: int
    hidden_steps: int
    """Deleted or split steps that are still in the files, because video begins at key frames only."""
    dropped: tuple[str, ...]
    """What killed writers left in the sources uncommitted, and what killed runs left beside the destination."""
    dataset_id: str

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def merge(sources: Sequence[str | Path], destination: str | Path, progress: Progress | None = None) -> CopyReport:
    """Copy the episodes of several stores of one schema, in order, into a new store, whole or not at all.

    Raises:
        OneStrideError: fewer than two stores, different schemas, one dataset twice, damage, or the disk refuses.
    """
    if len(sources) < 2:
        raise OneStrideError(f"expected at least two stores to merge, got {len(sources)}")
    return gather([Store.open(path) for path in sources], Path(destination), "merge", progress)


def gather(stores: Sequence[Store], destination: Path, command: str, progress: Progress | None) -> CopyReport:
    """Copy what is visible of the stores into a new one at `destination`.

    Raises:
        OneStrideError: as `merge`.
    """
    if destination.exists():
        raise OneStrideError(f"expected a new path for the store, got {destination}, which exists")
    _check_same_schema(stores)
    _check_distinct(stores)
    left = left_behind(destination)
    total = sum(store.num_episodes for store in stores)
    if not total:
        raise OneStrideError("expected episodes to copy, got none: " + ", ".join(str(store.path) for store in stores))
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    provenance = Provenance.derived(command, [(store.dataset_id, store.provenance) for store in stores])
    with placed(destination) as unfinished:
        made = Store.create(unfinished, stores[0].schema, provenance)
        with made.writer() as writer:
            hidden = sum(copy_episodes(store, writer, told) for store in stores)
        made.verify()
    return CopyReport(
        sources=tuple(store.dataset_id for store in stores),
        episodes=made.num_episodes,
        steps=made.num_steps,
        segments_before=sum(len(store.segments) for store in stores),
        segments=len(made.segments),
        hidden_steps=hidden,
        dropped=tuple(f"{store.path}/{name}" for store in stores for name in store.dropped) + left,
        dataset_id=made.dataset_id,
    )


def _check_distinct(stores: Sequence[Store]) -> None:
    seen: dict[str, Path] = {}
    for store in stores:
        if store.dataset_id in seen:
            raise OneStrideError(
                f"expected different datasets, got {seen[store.dataset_id]} and {store.path} with the same content "
                f"({store.dataset_id})"
            )
        seen[store.dataset_id] = store.path


def _check_same_schema(stores: Sequence[Store]) -> None:
    first = stores[0]
    for other in stores[1:]:
        difference = schema_difference(first.schema, other.schema)
        if difference:
            raise OneStrideError(
                f"expected stores of one schema, got {first.path} and {other.path}: {difference}; "
                "`onestride merge --common` keeps what they share"
            )


def schema_difference(one: Schema, other: Schema) -> str | None:
    """The first difference of two schemas in words, None where they are equal."""
    names, others = ([feature.name for feature in schema.features] for schema in (one, other))
    if set(names) != set(others):
        only = [f"{name!r} only in the first" for name in names if name not in others]
        only += [f"{name!r} only in the second" for name in others if name not in names]
        return "features " + ", ".join(only)
    for name in names:
        for key, value in one.feature(name):
            if value != (second := getattr(other.feature(name), key)):
                return f"feature {name!r} has {key} {value!r} and {second!r}"
    for key, value in one:
        if value != (second := getattr(other, key)):
            return f"{key} is {value!r} and {second!r}" if key != "features" else "the order of the features"
    return None

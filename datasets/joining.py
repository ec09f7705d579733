"""Stores of different schemas into one, by the features that all of them have: demonstrations and what a robot did.

`merge` wants one schema and loses nothing; this keeps what a policy learns from. What is left out is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onestride.datasets.converters.placing import placed
from onestride.datasets.copying import Progress
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import BASE, Episode, Feature, LabelSource, Schema
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

#: Attribute of an episode that says what its label is, where the episodes of a store differ in it.
LABEL_SOURCE = "label_source"


@dataclass(frozen=True)
class JoinReport:
    """What `join` made."""

    sources: tuple[str, ...]
    """Dataset ids."""
    features: tuple[str, ...]
    """Kept: what all stores have."""
    left_out: tuple[str, ...]
    """Features that some store lacks or describes otherwise."""
    episodes: int
    steps: int
    dataset_id: str

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def join(sources: Sequence[str | Path], destination: str | Path, progress: Progress | None = None) -> JoinReport:
    """Copy the features that all stores share into a new store, whole or not at all.

    Their observations, their label, its rate, environment and robot must agree; every other feature of the base
    stream is kept where all stores have it. Each episode's attribute `label_source` says what its label is.

    Raises:
        OneStrideError: fewer than two stores, disagreement in what a policy learns from, damage, or the disk refuses.
    """
    stores, destination = [Store.open(path) for path in sources], Path(destination)
    if len(stores) < 2:
        raise OneStrideError(f"expected at least two stores to join, got {len(stores)}")
    if destination.exists():
        raise OneStrideError(f"expected a new path for the store, got {destination}, which exists")
    schema, left_out = common_schema(stores)
    total, done = sum(store.num_episodes for store in stores), 0
    provenance = Provenance.derived(
        "join", [(store.dataset_id, store.provenance) for store in stores], extra={"left_out": list(left_out)}
    )
    with placed(destination) as unfinished:
        made = Store.create(unfinished, schema, provenance)
        with made.writer() as writer:
            for store in stores:
                for number in range(store.num_episodes):
                    writer.add(_projected(store, number, schema))
                    done += 1
                    if progress is not None:
                        progress(done, total)
        made.verify()
    return JoinReport(
        sources=tuple(store.dataset_id for store in stores),
        features=tuple(feature.name for feature in schema.features),
        left_out=left_out,
        episodes=made.num_episodes,
        steps=made.num_steps,
        dataset_id=made.dataset_id,
    )


def common_schema(stores: Sequence[Store]) -> tuple[Schema, tuple[str, ...]]:
    """What all stores have, and the names of what not all have.

    Raises:
        OneStrideError: they disagree in what a policy learns from.
    """
    first, others = stores[0], stores[1:]
    _check_same(stores)
    kept = tuple(one for one in first.schema.features if all(_has(store, one) for store in stores))
    every = dict.fromkeys(one.name for store in stores for one in store.schema.features)
    names = {one.name for one in kept}
    needed = [one for one in first.schema.by_role("observation") if one.stream == BASE]
    for feature in (first.schema.feature(first.schema.label), *needed):
        for store in others if feature.name not in names else ():
            if not _has(store, feature):
                raise OneStrideError(
                    f"expected {feature.name!r} as {first.path} has it, got {store.path}, which lacks it or "
                    "describes it otherwise"
                )
    alike = all(store.schema.label_source == first.schema.label_source for store in others)
    source: LabelSource = first.schema.label_source if alike else "unknown"
    schema = first.schema.model_copy(update={"features": kept, "label_source": source})
    return Schema.model_validate(schema.model_dump()), tuple(name for name in every if name not in names)


def _has(store: Store, feature: Feature) -> bool:
    return feature.stream == BASE and feature.codec == "lossless" and feature in store.schema.features


def _check_same(stores: Sequence[Store]) -> None:
    first = stores[0]
    for store in stores[1:]:
        for name in ("label", "control_rate", "environment", "robot"):
            ours, theirs = getattr(first.schema, name), getattr(store.schema, name)
            if ours != theirs:
                raise OneStrideError(f"expected {name} {ours!r} as {first.path} has, got {theirs!r} in {store.path}")


def _projected(store: Store, number: int, schema: Schema) -> Episode:
    names = [feature.name for feature in schema.features]
    episode = store.read_episode(number, names)
    said = {LABEL_SOURCE: store.schema.label_source, **episode.attributes}
    final = {name: value for name, value in episode.final.items() if name in names}
    return Episode(episode.data, {BASE: episode.timestamps[BASE]}, final, said)

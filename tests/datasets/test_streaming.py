"""Walking through a store for an export: what goes together, and what is told of the whole without its episodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onestride.datasets.converters.streaming import (
    blocks,
    episodes,
    has_own_clock,
    is_derived_mask,
    measured_clock,
)
from onestride.datasets.editing import split
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import BASE, Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store


def _store(path: Path, rate: float | None, change: Callable[[int, Episode], None]) -> Store:
    """Three episodes of different lengths in two segments, by an ideal clock, each ending with its terminal."""
    features = (
        Feature(name="action", role="action", shape=(2,), dtype="float32"),
        Feature(name="terminal", role="terminal", shape=(), dtype="float32"),
        Feature(name="mask", role="mask", shape=(), dtype="float32"),
    )
    store = Store.create(
        path,
        Schema(features=features, control_rate=rate, label="action", label_source="human"),
        Provenance.now("test"),
    )
    made = []
    for number, length in enumerate((5, 9, 3)):
        ends = np.zeros(length, np.float32)
        ends[-1] = 1
        data = {"action": np.zeros((length, 2), np.float32), "terminal": ends, "mask": 1 - ends}
        made.append(Episode(data, {BASE: synthetic_clock(length, 50.0)}, {}, {}))
        change(number, made[-1])
    store.append(made[:2])
    store.append(made[2:])
    return store


def _later(number: int, episode: Episode) -> None:
    if number == 2:
        episode.timestamps[BASE][1] += 1


@pytest.mark.parametrize("rate", [50.0, 20.0, None])
@pytest.mark.parametrize("change", [lambda *_: None, _later])
def test_a_clock_of_its_own_is_told_as_episode_by_episode(
    tmp_path: Path, rate: float | None, change: Callable[[int, Episode], None]
) -> None:
    store = _store(tmp_path / "s", rate, change)
    expected = any(measured_clock(episode, rate) is not None for episode in episodes(store, ()))
    assert has_own_clock(store) == expected
    assert expected == (rate != 50.0 or change is _later)


def test_the_later_part_of_an_episode_has_a_clock_of_its_own(tmp_path: Path) -> None:
    store = _store(tmp_path / "s", 50.0, lambda *_: None)
    split(store, 1, [4])
    assert sum(map(len, blocks(store.pieces, ()))) == 4
    assert has_own_clock(store)


@pytest.mark.parametrize("wrong", [None, 0, 2])
def test_a_mask_is_derived_or_not(tmp_path: Path, wrong: int | None) -> None:
    def change(number: int, episode: Episode) -> None:
        if number == wrong:
            episode.data["mask"][0] = 0.5

    assert is_derived_mask(_store(tmp_path / "s", 50.0, change)) == (wrong is None)

"""OGBench's flat rows, made for many episodes at once, against the same made episode by episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestride.datasets.converters import streaming
from onestride.datasets.converters.ogbench_rows import clock_rows, end_rows, feature_rows
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema
from onestride.datasets.store import Store

SCHEMA = Schema(
    features=(
        Feature(name="observation", role="observation", shape=(2,), dtype="float32"),
        Feature(name="action", role="action", shape=(3,), dtype="float64"),
        Feature(name="slow", role="observation", shape=(), dtype="int16", stream="slow"),
    ),
    control_rate=None,
    label="action",
    label_source="unknown",
)
EPISODES = st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.booleans()), min_size=1, max_size=6)


def _episode(number: int, length: int, known: bool, noted: bool) -> Episode:
    random = np.random.default_rng(number)
    data = {
        "observation": random.normal(size=(length, 2)).astype(np.float32),
        "action": random.normal(size=(length, 3)),
        "slow": random.integers(0, 99, 2).astype(np.int16),
    }
    clocks = {"base": np.cumsum(random.integers(1, 9, length)), "slow": np.array([0, 12])}
    attributes: dict[str, Any] = {"last": {"action": random.normal(size=3).tolist()}} if noted else {}
    return Episode(data, clocks, {"observation": np.full(2, number, np.float32)} if known else {}, attributes)


def _expected(name: str, episode: Episode, ended: bool) -> np.ndarray:
    rows = episode.data[name]
    if name == "slow":
        index = np.searchsorted(episode.timestamps["slow"], episode.timestamps["base"], side="right") - 1
        rows = rows[np.maximum(index, 0)]
        last = rows[-1]
    elif name in episode.final:
        last = episode.final[name]
    else:
        noted = episode.attributes.get("last")
        last = np.asarray(noted[name]) if isinstance(noted, dict) and name in noted else np.zeros(rows.shape[1:])
    return np.concatenate([rows, np.asarray(last)[None]]) if ended else rows


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EPISODES, st.integers(0, 63), st.sampled_from((1, 200, 1 << 20)))
def test_a_block_holds_what_its_episodes_hold(
    tmp_path_factory: pytest.TempPathFactory, described: list[tuple[int, bool, bool]], bits: int, most: int
) -> None:
    path: Path = tmp_path_factory.mktemp("rows") / "store"
    store = Store.create(path, SCHEMA, Provenance.now("test"))
    store.append([_episode(number, *one) for number, one in enumerate(described)])
    all_ended = np.array([bool(bits >> number & 1) for number in range(len(described))])
    episodes = [store.read_episode(number) for number in range(store.num_episodes)]
    number = 0
    for block in streaming.blocks(store.pieces, SCHEMA.features, most):
        mine, ended = episodes[number : number + len(block)], all_ended[number : number + len(block)]
        number += len(block)
        for feature in SCHEMA.features:
            got = feature_rows(feature.name, feature, block, ended, SCHEMA.streams)
            parts = [_expected(feature.name, one, is_ended) for one, is_ended in zip(mine, ended, strict=True)]
            assert got.dtype == np.dtype(feature.dtype)
            np.testing.assert_array_equal(got, np.concatenate(parts))
        pairs = [(one.timestamps["base"], is_ended) for one, is_ended in zip(mine, ended, strict=True)]
        clocks = [np.append(clock, clock[-1]) if is_ended else clock for clock, is_ended in pairs]
        np.testing.assert_array_equal(clock_rows(block, ended), np.concatenate(clocks))
        ends = [np.arange(len(clock)) == len(clock) - 1 for clock in clocks]
        np.testing.assert_array_equal(end_rows(block, ended, np.dtype(bool)), np.concatenate(ends))
    assert number == len(described)

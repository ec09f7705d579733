"""Statistics against plain Python, and a cache that is never believed for other content."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.statistics import statistics
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]


def test_they_agree_with_plain_python(store: Store, make_episode: MakeEpisode) -> None:
    store.append([make_episode(number, length=30) for number in range(3)])
    one = statistics(store, ["position"]).features["position"]
    for element in range(3):
        values = sorted(float(value) for value in store.read("position")[:, element])
        mean = math.fsum(values) / len(values)
        assert one.mean[element] == pytest.approx(mean, rel=1e-12)
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
        assert one.std[element] == pytest.approx(spread, rel=1e-12)
        assert (one.min[element], one.max[element]) == (values[0], values[-1])
        # 90 values: the 1 % quantile lies 0.89 of the way from the first to the second.
        assert one.q01[element] == pytest.approx(values[0] + 0.89 * (values[1] - values[0]), rel=1e-12)
        assert one.q99[element] == pytest.approx(values[-1] - 0.89 * (values[-1] - values[-2]), rel=1e-12)
    assert one.count == 90


def test_a_constant_element_has_exactly_no_deviation(tmp_path: Path) -> None:
    """Summing 0.1 a thousand times leaves rounding that a naive deviation shows as 1e-17."""
    action = Feature(name="action", role="action", shape=(2,), dtype="float64")
    schema = Schema(features=(action,), control_rate=None, label="action", label_source="unknown")
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    values = np.stack([np.full(999, 0.1), np.arange(999.0)], axis=1)
    store.append([Episode({"action": values}, {"base": synthetic_clock(999, 10.0)})])
    one = statistics(store, ["action"]).features["action"]
    assert one.std[0] == 0.0
    assert one.mean[0] == 0.1
    assert one.std[1] > 0


def _numbers(path: Path, rows: NDArray[np.float64], per_segment: int) -> Store:
    """One feature (D,) in segments of so many rows."""
    action = Feature(name="action", role="action", shape=rows.shape[1:], dtype="float64")
    schema = Schema(features=(action,), control_rate=None, label="action", label_source="unknown")
    store = Store.create(path, schema, Provenance.now("test"))
    for start in range(0, len(rows), per_segment):
        part = rows[start : start + per_segment]
        store.append([Episode({"action": part}, {"base": synthetic_clock(len(part), 10.0)})])
    return store


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 1500),
    size=st.sampled_from([1, 2, 3, 8, 37]),
    block=st.integers(128, 400),
    seed=st.integers(0, 99),
    spoil=st.sampled_from(["nothing", "ties", "nan", "infinite", "both infinite"]),
)
def test_blocks_give_the_bits_of_numpy_over_all_rows(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int, block: int, seed: int, spoil: str
) -> None:
    """Also where a value is not finite: a store from elsewhere is not validated, and `inspect` must tell of it."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, size)) * 10.0 ** random.integers(-6, 6, size=size)
    if spoil == "ties":
        rows = np.round(rows)
    elif spoil != "nothing":
        rows[random.integers(count), 0] = np.nan if spoil == "nan" else np.inf
        rows[random.integers(count), 0] = -np.inf if spoil == "both infinite" else rows[0, 0]
    with pytest.MonkeyPatch.context() as patch, np.errstate(invalid="ignore"):
        patch.setattr(Episode, "validate", lambda *_: None)
        store = _numbers(tmp_path_factory.mktemp("s") / "s", rows, per_segment=397)
        patch.setattr("onestride.datasets.statistics.BLOCK_BYTES", 8 * size * block)
        one = statistics(store, ["action"]).features["action"]
        quantiles = np.quantile(rows, [0.01, 0.99], axis=0)
        varied = rows.min(axis=0) != rows.max(axis=0)
        expected = (rows.mean(axis=0), rows.std(axis=0), rows.min(axis=0), rows.max(axis=0), *quantiles)
    assert one.count == count
    for name, value in zip(("mean", "std", "min", "max", "q01", "q99"), expected, strict=True):
        found = getattr(one, name)
        np.testing.assert_array_equal(found[varied], value[varied], err_msg=name)


def test_memory_is_that_of_a_block_and_the_tails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(60_000, 20))
    store = _numbers(tmp_path / "s", rows, per_segment=2_000)
    monkeypatch.setattr("onestride.datasets.statistics.BLOCK_BYTES", 1 << 18)
    statistics(store, ["action"])  # what is imported and kept on the way
    (store.path / "statistics.json").unlink()
    tracemalloc.start()
    statistics(store, ["action"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * rows.nbytes, f"{peak} bytes for {rows.nbytes} bytes of rows"


def test_the_fingerprint_is_of_names_and_numbers(tmp_path: Path, schema: Schema, make_episode: MakeEpisode) -> None:
    def of(path: str, seed: int, names: list[str]) -> str:
        place = tmp_path / path
        store = Store.open(place) if place.exists() else Store.create(place, schema, Provenance.now("t"))
        if not store.num_episodes:
            store.append([make_episode(seed, length=9)])
        return statistics(store, names).fingerprint

    base = of("a", 1, ["position", "action"])
    assert base == of("a", 1, ["action", "position"]), "the order asked does not matter"
    assert base == of("b", 1, ["position", "action"]), "the same content elsewhere"
    assert base != of("a", 1, ["position"])
    assert base != of("c", 2, ["position", "action"])


def test_the_cache_serves_the_same_bits_and_only_its_own_content(
    store: Store, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append([make_episode(1, length=9)])
    first = statistics(store, ["position", "action"])
    with monkeypatch.context() as patch:
        patch.setattr(Store, "read_rows", lambda *_: pytest.fail("read again in spite of the cache"))
        again = statistics(Store.open(store.path), ["action", "position"])
    assert again.fingerprint == first.fingerprint
    store.append([make_episode(2, length=9)])
    grown = statistics(store, ["position"])
    assert grown.dataset_id != first.dataset_id
    assert grown.features["position"].count == 18


@pytest.mark.parametrize("spoil", ["truncate", "tamper", "nonsense"])
def test_a_damaged_cache_is_computed_anew(store: Store, make_episode: MakeEpisode, spoil: str) -> None:
    store.append([make_episode(1, length=9)])
    right = statistics(store, ["position"]).fingerprint
    cache = store.path / "statistics.json"
    content = json.loads(cache.read_text())
    content["features"]["position"]["mean"][0] += 1.0
    damaged = {"truncate": cache.read_text()[:40], "tamper": json.dumps(content), "nonsense": "[1]"}
    cache.write_text(damaged[spoil])
    assert statistics(Store.open(store.path), ["position"]).fingerprint == right


def test_nothing_recorded_or_unknown_is_refused(store: Store) -> None:
    with pytest.raises(OneStrideError, match="expected recorded steps of 'position', got none"):
        statistics(store, ["position"])
    with pytest.raises(OneStrideError, match="available: position"):
        statistics(store, ["speed"])

"""Memory, memory map and stream give the same windows in the same order; the stream stays within its buffer."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windows_samples import PICTURES, VECTORS, sample_store

from onestride.datasets import columns
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.sources import MODES
from onestride.datasets.store import Store
from onestride.datasets.windows import Batch, Windows
from onestride.hardware.errors import OneStrideError

ALL = (*VECTORS, *PICTURES)


def assert_same(one: Batch, other: Batch) -> None:
    assert list(one) == list(other)
    for key, value in one.items():
        assert value.dtype == other[key].dtype and value.shape == other[key].shape, key
        assert value.tobytes() == other[key].tobytes(), key


ROW_BYTES = 4 * (4 + 2 + 2 + 1) + 36
"""Of all columns: 4 floats of observation, 2 of action, 2 outcomes, the countdown and a picture."""


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    finals=st.lists(st.booleans(), min_size=1, max_size=3),
    horizon=st.integers(1, 6),
    history=st.integers(1, 4),
    block=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_mode_gives_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    finals: list[bool],
    horizon: int,
    history: int,
    block: int,
    seed: int,
) -> None:
    """Any windows, and the order of both ways to draw, with a buffer of a few rows."""
    store = sample_store(tmp_path_factory.mktemp("w") / "s", lengths, seed=seed, finals=finals)
    buffer = 16 * ROW_BYTES * (block + history - 1 + horizon)
    made = {
        mode: Windows(store, observations=ALL, horizon=horizon, history=history, seed=seed, mode=mode, buffer=buffer)
        for mode in MODES
    }
    starts = np.random.default_rng(seed).permutation(store.num_steps)
    expected = made["resident"].at(starts)
    for mode in MODES[1:]:
        assert_same(expected, made[mode].at(starts))
    for _ in range(3):
        expected = made["resident"].sample(7)
        for mode in MODES[1:]:
            assert_same(expected, made[mode].sample(7))
    epochs = [list(made[mode].epoch(4)) for mode in MODES]
    assert len({len(epoch) for epoch in epochs}) == 1
    for batches in zip(*epochs, strict=True):
        for other in batches[1:]:
            assert_same(batches[0], other)


def test_pictures_are_those_of_the_episode(tmp_path: Path) -> None:
    """Every picture of every window, by a walk through the episode."""
    lengths = [5, 1, 7]
    store = sample_store(tmp_path / "s", lengths, finals=(True, False))
    windows = Windows(store, observations=("wrist", "force"), horizon=3, history=2)
    assert (windows.observations, windows.images) == (("force",), ("wrist",))
    batch = windows.at(np.arange(store.num_steps))
    assert batch["wrist"].dtype == batch["next_wrist"].dtype == np.uint8
    assert batch["wrist"].shape == (13, 2, 4, 3, 3)
    places = [(number, step) for number, length in enumerate(lengths) for step in range(length)]
    for row, (number, step) in enumerate(places):
        episode = store.read_episode(number)
        seen = list(episode.data["wrist"])
        seen.append(episode.final.get("wrist", seen[-1]))
        after = step + int(batch["valid"][row].sum())
        np.testing.assert_array_equal(batch["wrist"][row], [seen[max(0, step - 1)], seen[step]])
        np.testing.assert_array_equal(batch["next_wrist"][row], [seen[max(0, after - 1)], seen[after]])


def test_what_was_not_asked_for_is_left_out(tmp_path: Path) -> None:
    store = sample_store(tmp_path / "s", [4, 5])
    windows = Windows(store, observations=None, horizon=2, successors=False)
    assert (windows.observations, windows.images, windows.observation_dim) == (VECTORS, (), 4)
    assert list(windows.sample(3)) == ["observations", "actions", "rewards", "masks", "terminals", "valid"]
    imitation = Windows(store, observations=None, horizon=2, successors=False, outcomes=False)
    assert list(imitation.sample(3)) == ["observations", "actions", "valid"]
    assert list(imitation.arrays) == ["observations", "actions"]
    pictures = Windows(store, observations=PICTURES, horizon=2)
    assert pictures.sample(3)["observations"].shape == (3, 1, 0)


def test_an_edited_store_gives_the_same_windows_in_every_mode(tmp_path: Path) -> None:
    """Parts of a split episode see each other's first observation, and a deleted one is gone."""
    store = sample_store(tmp_path / "s", [6, 8, 5, 9], finals=(True, False), per_segment=2)
    editing = pytest.importorskip("onestride.datasets.editing")
    store = _edited(editing, store)
    made = [Windows(store, observations=ALL, horizon=4, history=2, mode=mode, buffer=60_000) for mode in MODES]
    batches = [windows.at(np.arange(store.num_steps)) for windows in made]
    assert_same(batches[0], batches[1])
    assert_same(batches[0], batches[2])


def _edited(editing: Any, store: Store) -> Store:
    editing.split(store, 1, [3])
    editing.delete(store, [0])
    return Store.open(store.path)


def _wide_store(path: Path, episodes: int, length: int) -> Store:
    """Rows of 1 KB, incompressible, in segments of 16 episodes."""
    features = (
        Feature(name="state", role="observation", shape=(248,), dtype="float32"),
        Feature(name="action", role="action", shape=(8,), dtype="float32"),
    )
    schema = Schema(features=features, control_rate=10.0, label="action", label_source="oracle")
    store = Store.create(path, schema, Provenance.now("test"))
    random = np.random.default_rng(0)
    for _ in range(0, episodes, 16):
        store.append(
            [
                Episode(
                    {one.name: random.random((length, *one.shape), np.float32) for one in features},
                    {"base": synthetic_clock(length, 10.0)},
                )
                for _ in range(16)
            ]
        )
    return store


def _peak(work: Any) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """48 MB of rows."""
    return _wide_store(tmp_path_factory.mktemp("wide") / "s", 240, 200)


CHUNKS = 16 << 20
"""What zarr may hold while it reads: a compressed and a decompressed chunk of 4 MB, and the copy of what is wanted."""


def test_streaming_stays_within_its_buffer(wide: Store) -> None:
    """Two passes over data eleven times its size; see `BUFFER_BYTES` for what is counted."""
    buffer = 4 << 20

    def work() -> None:
        windows = Windows(Store.open(wide.path), observations=None, horizon=8, mode="streaming", buffer=buffer)
        for _ in range(2):
            seen = sum(len(batch["valid"]) for batch in windows.epoch(256))
            assert seen == wide.num_steps
        for _ in range(20):
            windows.sample(256)
        windows.close()

    peak = _peak(work)
    assert wide.num_steps * 1024 > 11 * buffer
    assert peak < 2 * buffer + buffer // 8 + CHUNKS, f"{peak / 2**20:.1f} MB"


def test_streaming_reads_every_block_once_for_an_epoch(wide: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What shuffling within the buffer is for; drawing from everything would read a block for almost every window."""
    windows = Windows(Store.open(wide.path), observations=None, horizon=8, mode="streaming", buffer=4 << 20)
    rows = 0
    fill = columns.ColumnReader.fill

    def counted(self: Any, column: Any, start: int, out: Any) -> None:
        nonlocal rows
        rows += len(out) if column.key == "observations" else 0
        fill(self, column, start, out)

    monkeypatch.setattr(columns.ColumnReader, "fill", counted)
    for _ in windows.epoch(256):
        pass
    windows.close()
    assert wide.num_steps < rows < 1.15 * wide.num_steps


def test_making_the_memory_map_holds_one_block(wide: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "READ_BYTES", 2 << 20)
    store = Store.open(wide.path)
    peak = _peak(lambda: Windows(store, observations=None, horizon=8, mode="mapped", cache=tmp_path))
    assert peak < 3 * (2 << 20) + CHUNKS, f"{peak / 2**20:.1f} MB"


def test_a_buffer_that_holds_everything_draws_from_everything(tmp_path: Path) -> None:
    store = sample_store(tmp_path / "s", [9] * 20)
    plain = Windows(store, observations=ALL, horizon=3, seed=4)
    roomy = Windows(store, observations=ALL, horizon=3, seed=4, mode="streaming")
    for _ in range(4):
        assert_same(plain.sample(50), roomy.sample(50))
    for one, other in zip(plain.epoch(32), roomy.epoch(32), strict=True):
        assert_same(one, other)


def test_bad_sources_are_refused(tmp_path: Path) -> None:
    store = sample_store(tmp_path / "s", [4])
    with pytest.raises(OneStrideError, match="available: resident, mapped, streaming"):
        Windows(store, observations=None, horizon=1, mode="lazy")  # type: ignore[arg-type]
    with pytest.raises(OneStrideError, match=r"buffer of at least .* got 100"):
        Windows(store, observations=None, horizon=1, mode="streaming", buffer=100)
    with pytest.raises(OneStrideError, match="expected the mode 'resident' for whole arrays"):
        _ = Windows(store, observations=None, horizon=1, mode="streaming").arrays
    with pytest.raises(OneStrideError, match="starts from 0 to 3, got 4 to 4"):
        Windows(store, observations=None, horizon=1).at(np.array([4]))
    with pytest.raises(OneStrideError, match="starts from 0 to 3, got -1 to 0"):
        Windows(store, observations=None, horizon=1).at(np.array([0, -1]))

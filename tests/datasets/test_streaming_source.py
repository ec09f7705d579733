"""Reading ahead: the next pool is there before it is asked for, whatever else is asked for, by a thread that ends."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import wait
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windows_samples import sample_store

from onestride.datasets import columns
from onestride.datasets.sampling import SLOTS
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError

BUFFER = 5_000
"""Of blocks of a few rows: some sixty of them, four pools."""


def streamed(store: Store, **options: Any) -> Windows:
    return Windows(store, observations=None, horizon=2, mode="streaming", buffer=BUFFER, **options)


def readers() -> list[threading.Thread]:
    gc.collect()  # those of earlier tests
    return [thread for thread in threading.enumerate() if thread.name.startswith("streaming")]


def settle(windows: Windows) -> None:
    """Wait until everything that was begun is read."""
    source: Any = windows._source
    wait([filled for _, filled in source._coming.values()], timeout=60)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return sample_store(tmp_path / "s", [40] * 10, per_segment=5)


@pytest.fixture
def fills(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that read a block, one for each."""
    names: list[str] = []
    fill = columns.ColumnReader.fill

    def noted(self: Any, column: Any, start: int, out: Any) -> None:
        if column.key == "observations":
            names.append(threading.current_thread().name)
        fill(self, column, start, out)

    monkeypatch.setattr(columns.ColumnReader, "fill", noted)
    return names


@pytest.mark.parametrize("way", ["sample", "epoch"])
def test_only_the_first_pool_is_waited_for(store: Store, fills: list[str], way: str) -> None:
    """Over several passes: every other block was read by the thread, each once for a pool."""
    windows = streamed(store)
    blocks = windows._source._blocks.count  # type: ignore[attr-defined]
    assert blocks > 3 * SLOTS
    for _ in range(3):
        batches = (windows.sample(10) for _ in range(40)) if way == "sample" else windows.epoch(10)
        for _ in batches:
            settle(windows)
    waited = [name for name in fills if not name.startswith("streaming")]
    assert 0 < len(waited) <= SLOTS
    assert len(fills) <= 3 * blocks + 2 * SLOTS
    windows.close()


def test_closing_ends_the_thread_and_nothing_else(store: Store) -> None:
    windows = streamed(store)
    plain = Windows(store, observations=None, horizon=2, buffer=BUFFER)
    for _ in range(3):
        windows.sample(10)
        plain.sample(10)
    before = readers()
    windows.close()
    windows.close()
    assert len(readers()) == len(before) - 1
    expected, found = plain.sample(10), windows.sample(10)
    assert all(found[key].tobytes() == expected[key].tobytes() for key in expected)
    plain.close()
    windows.close()


def test_the_thread_ends_with_its_windows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the block that it is at: what was begun for no one is given up."""
    windows = streamed(store)
    held, go = threading.Event(), threading.Event()
    fill = columns.ColumnReader.fill
    started: list[int] = []

    def slow(self: Any, column: Any, start: int, out: Any) -> None:
        if threading.current_thread().name.startswith("streaming"):
            started.append(start)
            held.set()
            assert go.wait(30)
        fill(self, column, start, out)

    monkeypatch.setattr(columns.ColumnReader, "fill", slow)
    windows.sample(10)
    thread = readers()[-1]
    assert held.wait(30)
    del windows
    gc.collect()
    go.set()
    thread.join(30)
    assert not thread.is_alive()
    assert len(set(started)) == 1


@settings(max_examples=8, deadline=None)
@given(
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("sample"), st.integers(1, 90)),
            st.tuples(st.just("epoch"), st.integers(1, 4)),
            st.tuples(st.just("at"), st.integers(0, 399)),
            st.tuples(st.just("save"), st.just(0)),
            st.tuples(st.just("load"), st.just(0)),
            st.tuples(st.just("close"), st.just(0)),
        ),
        max_size=25,
    )
)
def test_whatever_is_asked_for_the_windows_are_those_from_memory(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int]]
) -> None:
    """Both ways to draw in turns, steps from anywhere, and jumps to an earlier state while blocks are on their way."""
    store = sample_store(tmp_path_factory.mktemp("w") / "s", [40] * 10, per_segment=5)
    plain, windows = Windows(store, observations=None, horizon=2, buffer=BUFFER), streamed(store)
    saved = plain.state_dict()
    epochs: Any = plain.epoch(30), windows.epoch(30)
    for move, number in moves:
        if move == "save":
            saved = plain.state_dict()
            assert windows.state_dict() == saved
        elif move == "load":
            plain.load_state_dict(saved)
            windows.load_state_dict(saved)
        elif move == "close":
            windows.close()
        for one, other in pairs(move, number, plain, windows, epochs):
            assert all(one[key].tobytes() == other[key].tobytes() for key in one)
    windows.close()


def pairs(move: str, number: int, plain: Windows, windows: Windows, epochs: Any) -> list[tuple[Any, Any]]:
    if move == "sample":
        return [(plain.sample(number), windows.sample(number))]
    if move == "epoch":
        return list(islice(zip(*epochs, strict=False), number))
    if move == "at":
        starts = (np.arange(20) * 37 + number) % 400
        return [(plain.at(starts), windows.at(starts))]
    return []


def test_an_error_is_raised_when_its_block_is_asked_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not before: what was read ahead in vain harms nobody."""
    plain, windows = Windows(store, observations=None, horizon=2, buffer=BUFFER), streamed(store)
    fill = columns.ColumnReader.fill

    def damaged(*arguments: Any) -> None:
        if threading.current_thread().name.startswith("streaming"):
            raise OneStrideError("segment altered")
        fill(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(columns.ColumnReader, "fill", damaged)
        for _ in range(5):
            windows.sample(10)
            plain.sample(10)
        with pytest.raises(OneStrideError, match="segment altered"):
            for _ in range(40):
                windows.sample(10)
        settle(windows)
    windows.load_state_dict(plain.state_dict())
    for _ in range(40):
        expected, found = plain.sample(10), windows.sample(10)
        assert all(found[key].tobytes() == expected[key].tobytes() for key in expected)
    windows.close()

"""The order of windows: what is drawn how often, every window once in an epoch, resuming, and sharing among ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windows_samples import sample_store

from onestride.datasets.columns import Timeline
from onestride.datasets.sampling import SLOTS, Blocks, Draws, Shuffle
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError

LENGTHS = [3, 17, 1, 9, 20]


@pytest.fixture
def five(tmp_path: Path) -> Store:
    return sample_store(tmp_path / "s", LENGTHS, tasks=("lift", "place"))


def draws(
    lengths: list[int], *, size: int = 0, mass: Any = None, seed: int = 0, rank: int = 0, ranks: int = 1
) -> Draws:
    """Of episodes that exist only as numbers; `size` rows to a block, 0 = no buffer."""
    timeline = Timeline(np.array(lengths), np.ones(len(lengths), bool))
    blocks = Blocks(size, -(-timeline.num_rows // size), 0, 1) if size else None
    weights = None if mass is None else np.array(mass, np.float64)
    return Draws(Shuffle(timeline, weights, blocks), seed, rank, ranks)


def chi_square(starts: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    counts = np.bincount(starts, minlength=len(expected))
    assert not counts[expected == 0].any()
    drawn = expected > 0
    return float(((counts - expected)[drawn] ** 2 / expected[drawn]).sum())


def test_plain_draws_are_the_generator_itself(five: Store) -> None:
    """Checkpoints from before there were modes go on to the bit: a state of the generator alone, same numbers."""
    windows = Windows(five, observations=None, horizon=2, seed=11)
    generator = np.random.default_rng(11)
    for _ in range(3):
        np.testing.assert_array_equal(
            windows.sample(32)["actions"], windows.at(generator.integers(sum(LENGTHS), size=32))["actions"]
        )
    old = json.loads(json.dumps({"generator": generator.bit_generator.state}))
    other = Windows(five, observations=None, horizon=2, seed=0)
    other.load_state_dict(old)
    assert other.sample(32)["actions"].tobytes() == windows.sample(32)["actions"].tobytes()


@pytest.mark.parametrize("size", [0, 2], ids=["everything", "buffer"])
def test_weights_are_the_shares_of_the_episodes(size: int) -> None:
    """Below the 99.9 % quantile of chi-square with 38 degrees of freedom; what weighs 0 never comes."""
    weights = [1.0, 2.0, 0.0, 5.0, 0.5]
    expected = np.repeat(np.array(weights) / sum(weights) / LENGTHS, LENGTHS) * 40_000
    stream = draws(LENGTHS, size=size, mass=weights, seed=2)
    assert chi_square(np.concatenate([stream.sample(400) for _ in range(100)]), expected) < 70


@pytest.mark.parametrize("size", [1, 2, 5])
def test_with_a_buffer_every_step_is_as_likely(size: int) -> None:
    stream = draws([7, 40, 3, 60], size=size, seed=1)
    assert chi_square(np.concatenate([stream.sample(100) for _ in range(330)]), np.full(110, 300.0)) < 162


def test_a_buffer_draws_from_sixteen_blocks_at_a_time() -> None:
    """The randomness that `sampling` states: 16 blocks in a batch, at most twice that at a seam."""
    stream = draws([999], size=10, seed=3)
    seen = [len(np.unique(stream.sample(40) // 10)) for _ in range(50)]
    assert max(seen) <= 2 * SLOTS
    assert sum(one <= SLOTS for one in seen) > 25
    blocks = np.concatenate(list(draws([999], size=10, seed=3).epoch(40, False))) // 10
    spans = [np.ptp(np.flatnonzero(blocks == block)) for block in range(100)]
    assert 80 < max(spans) < 10 * SLOTS, "each block is shuffled among sixteen, and then done"


def test_per_task_draws_every_task_alike(five: Store) -> None:
    """Episodes 0, 2, 4 lift (24 steps), 1 and 3 place (26 steps)."""
    windows = Windows(five, observations=None, horizon=1, weights="per-task", seed=5)
    place = {five.read_episode(number).data["force"][step] for number in (1, 3) for step in range(LENGTHS[number])}
    drawn = windows.sample(20_000)["observations"][:, 0, 3]
    share = np.isin(drawn, list(place)).mean()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(20_000)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    size=st.integers(0, 6),
    batch=st.integers(1, 9),
    ranks=st.integers(1, 4),
    left_out=st.integers(0, 11),
    seed=st.integers(0, 99),
)
def test_ranks_share_an_epoch_in_which_every_window_comes_once(
    lengths: list[int], size: int, batch: int, ranks: int, left_out: int, seed: int
) -> None:
    mass = [0.0 if number == left_out and len(lengths) > 1 else 1.0 for number in range(len(lengths))]
    shares = [
        list(draws(lengths, size=size, mass=mass, seed=seed, rank=rank, ranks=ranks).epoch(batch, False))
        for rank in range(ranks)
    ]
    together = np.concatenate([starts for share in shares for starts in share])
    wanted = np.flatnonzero(np.repeat(mass, lengths))
    np.testing.assert_array_equal(np.sort(together), wanted)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    full = [
        list(draws(lengths, size=size, mass=mass, seed=seed, rank=rank, ranks=ranks).epoch(batch, True))
        for rank in range(ranks)
    ]
    assert {len(share) for share in full} == {len(wanted) // (batch * ranks)}
    alone = list(draws(lengths, size=size, mass=mass, seed=seed).epoch(batch * ranks, True))
    for number, starts in enumerate(alone):
        np.testing.assert_array_equal(np.concatenate([share[number] for share in full]), starts)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(0, 4), ranks=st.integers(1, 3), weighted=st.booleans(), seed=st.integers(0, 99))
def test_ranks_together_draw_what_one_rank_draws(size: int, ranks: int, weighted: bool, seed: int) -> None:
    mass = [1.0, 0.0, 3.0, 2.0] if weighted else None
    lengths = [5, 9, 2, 30]
    alone = draws(lengths, size=size, mass=mass, seed=seed)
    shared = [draws(lengths, size=size, mass=mass, seed=seed, rank=rank, ranks=ranks) for rank in range(ranks)]
    for _ in range(5):
        np.testing.assert_array_equal(np.concatenate([one.sample(8) for one in shared]), alone.sample(8 * ranks))
    assert all(one.state_dict() == alone.state_dict() for one in shared)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(0, 4),
    weighted=st.booleans(),
    taken=st.integers(0, 12),
    drawn=st.integers(0, 9),
    seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)),
)
def test_both_ways_to_draw_go_on_where_they_were(
    size: int, weighted: bool, taken: int, drawn: int, seeds: tuple[int, int]
) -> None:
    """Through JSON, into a sampler of another seed, in the middle of an epoch and of a pass, into the next ones."""
    mass = [1.0, 0.0, 1.0, 1.0] if weighted else None
    lengths = [5, 9, 2, 30]
    one = draws(lengths, size=size, mass=mass, seed=seeds[0])
    epoch = one.epoch(4, False)
    for _ in range(taken):
        if next(epoch, None) is None:
            break
    for _ in range(drawn):
        one.sample(7)
    state = json.loads(json.dumps(one.state_dict()))
    other = draws(lengths, size=size, mass=mass, seed=seeds[1])
    list(other.epoch(5, False))
    other.sample(9)
    other.load_state_dict(state)
    for _ in range(8):
        np.testing.assert_array_equal(one.sample(11), other.sample(11))
    for _ in range(3):
        for left, right in zip(one.epoch(4, False), other.epoch(4, False), strict=True):
            np.testing.assert_array_equal(left, right)
    assert one.state_dict() == other.state_dict()


def test_epochs_differ_and_a_broken_off_one_goes_on(five: Store) -> None:
    windows = Windows(five, observations=None, horizon=1, seed=0)
    first = [batch["actions"] for batch in windows.epoch(8)]
    second = [batch["actions"] for batch in windows.epoch(8)]
    assert [len(actions) for actions in first] == [8] * 6 + [2]
    assert not np.array_equal(first[0], second[0])
    assert np.array_equal(np.sort(np.concatenate(first), axis=0), np.sort(np.concatenate(second), axis=0))
    for _ in windows.epoch(8):
        break
    rest = list(windows.epoch(8))
    assert sum(len(batch["actions"]) for batch in rest) == sum(LENGTHS) - 8
    assert [len(batch["actions"]) for batch in windows.epoch(8, drop_last=True)] == [8] * 6


def test_bad_requests_are_refused(five: Store, tmp_path: Path) -> None:
    def windows(**options: Any) -> Windows:
        return Windows(five, observations=None, horizon=1, **options)

    for weights in ([1.0], [1, 1, 1, 1, -1], [0] * 5, [1, 1, 1, 1, float("nan")]):
        with pytest.raises(OneStrideError, match="weights: expected 5 finite numbers >= 0"):
            windows(weights=weights)
    with pytest.raises(OneStrideError, match="or 'per-task', got 'per-episode'"):
        windows(weights="per-episode")
    with pytest.raises(OneStrideError, match="attribute 'task' in every episode, got none in 2 of 2"):
        Windows(sample_store(tmp_path / "t", [2, 2]), observations=None, horizon=1, weights="per-task")
    for rank, ranks in ((2, 2), (-1, 1), (0, 0)):
        with pytest.raises(OneStrideError, match=f"got rank {rank} of {ranks}"):
            windows(rank=rank, ranks=ranks)
    with pytest.raises(OneStrideError, match="seed of at least 0, got -1"):
        windows(seed=-1)
    for size in (0, -3):
        with pytest.raises(OneStrideError, match=f"batch size of at least 1, got {size}"):
            windows().sample(size)
        with pytest.raises(OneStrideError, match=f"batch size of at least 1, got {size}"):
            windows().epoch(size)
    for unequal in ("per-task", [1, 2, 1, 1, 1]):
        with pytest.raises(OneStrideError, match="equal or 0 for epochs"):
            windows(weights=unequal).epoch(4)
    good = windows().state_dict()
    for spoilt in ({"epoch": [0, 51]}, {"epoch": [-1, 0]}, {"pass": [0]}, {"pass": None}, {"seed": None}):
        with pytest.raises(OneStrideError, match="expected a sampler state"):
            windows().load_state_dict({**good, **spoilt})

"""The vectorised window sampler against one that walks step by step."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
NAMES = ("b", "a")


def _store(path: Path, lengths: list[int], roles: set[str], finals: list[bool], seed: int) -> Store:
    """A random store; `roles` says which of reward, terminal and mask it records."""
    features = [
        Feature(name="a", role="observation", shape=(2,), dtype="float32"),
        Feature(name="b", role="observation", shape=(), dtype="float64"),
        Feature(name="action", role="action", shape=(2, 1), dtype="float32"),
        Feature(name="r", role="reward", shape=(), dtype="float32"),
        Feature(name="d", role="terminal", shape=(), dtype="int64"),
        Feature(name="m", role="mask", shape=(), dtype="float32"),
    ]
    features = [one for one in features if one.role in {"observation", "action", *roles}]
    schema = Schema(features=tuple(features), control_rate=10.0, label="action", label_source="oracle")
    store = Store.create(path, schema, Provenance.now("test"))
    random = np.random.default_rng(seed)
    for length, final in zip(lengths, itertools.cycle(finals)):
        data = {one.name: random.normal(size=(length, *one.shape)).astype(one.dtype) for one in features}
        for flag in ("d", "m"):
            if flag in data:
                data[flag] = random.integers(0, 2, size=length).astype(data[flag].dtype)
        after: dict[str, NDArray[Any]] = {"a": random.normal(size=2).astype(np.float32)} if final else {}
        if final and random.random() < 0.7:
            after["b"] = np.array(random.normal())
        store.append([Episode(data, {"base": synthetic_clock(length, 10.0)}, after)])
    return store


def _walk(
    store: Store, number: int, start: int, horizon: int, history: int, *, outcomes: bool
) -> dict[str, NDArray[np.float32]]:
    """One window, read step by step from the episode itself."""
    episode = store.read_episode(number)
    length = episode.length

    def observation(step: int) -> list[float]:
        if step == length and all(name in episode.final for name in NAMES):
            rows = [episode.final[name] for name in NAMES]
        else:
            rows = [episode.data[name][min(max(step, 0), length - 1)] for name in NAMES]
        return [float(value) for row in rows for value in np.ravel(row)]

    def value(name: str, step: int, default: float) -> float:
        return float(episode.data[name][step]) if name in episode.data else default

    out: dict[str, list[Any]] = {key: [] for key in ("actions", "rewards", "masks", "terminals", "valid")}
    mask, ended, steps_done = float("inf"), 0.0, 0
    for offset in range(horizon):
        step = start + offset
        inside = step < length
        at = step if inside else length - 1
        terminal = value("d", at, 0.0)
        mask = min(mask, value("m", at, 1.0 - terminal))
        valid = float(inside) * (1.0 - ended)
        steps_done += int(valid)
        if inside:
            ended = max(ended, terminal)
        out["actions"].append([float(number) for number in np.ravel(episode.data["action"][at])])
        out["rewards"].append(value("r", at, 0.0) if inside else 0.0)
        out["terminals"].append(terminal if inside else 0.0)
        out["masks"].append(mask)
        out["valid"].append(valid)
    unknown = not all(name in episode.final for name in NAMES)
    if outcomes and unknown and start + steps_done == length and out["masks"][-1] != 0:
        steps_done -= 1
        out["valid"][steps_done] = 0.0
    past = range(1 - history, 1)
    after = start + steps_done
    out["observations"] = [observation(max(start + back, 0)) for back in past]
    out["next_observations"] = [observation(max(after + back, 0)) for back in past]
    return {key: np.array(rows, np.float32) for key, rows in out.items()}


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    roles=st.sets(st.sampled_from(["reward", "terminal", "mask"])),
    finals=st.lists(st.booleans(), min_size=1, max_size=4),
    horizon=st.integers(1, 9),
    history=st.integers(1, 4),
    seed=st.integers(0, 99),
    outcomes=st.booleans(),
)
def test_every_window_agrees_with_a_walk_through_the_episode(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    roles: set[str],
    finals: list[bool],
    horizon: int,
    history: int,
    seed: int,
    outcomes: bool,
) -> None:
    store = _store(tmp_path_factory.mktemp("w") / "s", lengths, roles, finals, seed)
    windows = Windows(store, observations=NAMES, horizon=horizon, history=history, outcomes=outcomes)
    batch = windows.at(np.arange(windows.num_windows))
    places = [(number, step) for number, length in enumerate(lengths) for step in range(length)]
    assert windows.num_windows == len(places) == store.num_steps
    for row, (number, step) in enumerate(places):
        expected = _walk(store, number, step, horizon, history, outcomes=outcomes)
        if not outcomes:
            expected = {key: value for key, value in expected.items() if key not in ("rewards", "masks", "terminals")}
        assert batch.keys() == expected.keys()
        for key, value in expected.items():
            assert batch[key].dtype == np.float32
            np.testing.assert_array_equal(batch[key][row], value, err_msg=f"{key} of episode {number} step {step}")


def test_a_last_step_without_an_answer_is_imitated_but_not_learnt_a_value_from(
    store: Store, make_episode: MakeEpisode
) -> None:
    """Otherwise its value would be its reward and, discounted, itself, whatever else is learnt."""
    cut_off, ended, known = make_episode(1, 3, final=False), make_episode(2, 3, final=False), make_episode(3, 3)
    for episode, last in ((cut_off, 0), (ended, 1), (known, 0)):
        episode.data["done"][:] = [0, 0, last]
        store.append([episode])
    batch = Windows(store, observations=None, horizon=1).at(np.arange(9))
    assert batch["valid"].ravel().tolist() == [1, 1, 0, 1, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(batch["next_observations"][1, 0], cut_off.data["position"][2])
    twos = Windows(store, observations=None, horizon=2).at(np.array([1]))
    assert twos["valid"].tolist() == [[1, 0]]
    np.testing.assert_array_equal(twos["next_observations"][0, 0], cut_off.data["position"][2])
    imitation = Windows(store, observations=None, horizon=1, successors=False, outcomes=False)
    assert imitation.at(np.arange(9))["valid"].all()


def test_shapes_and_default_observations(store: Store, make_episode: MakeEpisode) -> None:
    store.append([make_episode(number) for number in range(4)])
    windows = Windows(store, observations=None, horizon=5, history=2)
    assert windows.observations == ("position",), "the camera ticks on another stream"
    assert (windows.observation_dim, windows.action_dim, windows.num_windows) == (3, 2, store.num_steps)
    shapes = {key: value.shape for key, value in windows.sample(6).items()}
    assert shapes == {
        "observations": (6, 2, 3),
        "actions": (6, 5, 2),
        "rewards": (6, 5),
        "masks": (6, 5),
        "terminals": (6, 5),
        "next_observations": (6, 2, 3),
        "valid": (6, 5),
    }
    np.testing.assert_array_equal(windows.arrays["observations"], store.read("position"))
    np.testing.assert_array_equal(windows.arrays["actions"], store.read("action"))


def test_starts_are_uniform_over_steps(store: Store, make_episode: MakeEpisode) -> None:
    """Long episodes weigh by their steps; chi-square over all starts stays below its 99.9 % quantile."""
    store.append([make_episode(1, length=3), make_episode(2, length=17)])
    windows = Windows(store, observations=["position"], horizon=4, seed=3)
    firsts = windows.sample(20_000)["observations"][:, 0, 0]
    counts = np.array([np.count_nonzero(firsts == value) for value in store.read("position")[:, 0]])
    assert counts.sum() == 20_000
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8


def test_the_same_seed_gives_the_same_batches_and_resumes_exactly(store: Store, make_episode: MakeEpisode) -> None:
    store.append([make_episode(number, length=20) for number in range(3)])

    def fresh(seed: int) -> Windows:
        return Windows(store, observations=None, horizon=3, seed=seed)

    def draw(windows: Windows) -> bytes:
        return windows.sample(16)["observations"].tobytes()

    first, second = fresh(5), fresh(5)
    assert [draw(first) for _ in range(4)] == [draw(second) for _ in range(4)]
    state = json.loads(json.dumps(first.state_dict()))
    ahead = [draw(first) for _ in range(4)]
    other = fresh(6)
    assert draw(other) != ahead[0]
    other.load_state_dict(state)
    assert [draw(other) for _ in range(4)] == ahead


def test_bad_requests_are_refused(store: Store, make_episode: MakeEpisode) -> None:
    with pytest.raises(OneStrideError, match="empty store"):
        Windows(store, observations=None, horizon=1)
    store.append([make_episode(1)])
    with pytest.raises(OneStrideError, match="got 'camera', available: position"):
        Windows(store, observations=["camera"], horizon=1)
    with pytest.raises(OneStrideError, match="got 'action', available: position"):
        Windows(store, observations=["action"], horizon=1)
    with pytest.raises(OneStrideError, match="each once"):
        Windows(store, observations=["position", "position"], horizon=1)
    with pytest.raises(OneStrideError, match="at least 1, got 0 and 1"):
        Windows(store, observations=None, horizon=0)
    windows = Windows(store, observations=None, horizon=1)
    for spoilt in ({}, {"generator": {"bit_generator": "MT19937"}}, {"generator": None}):
        with pytest.raises(OneStrideError, match="expected a sampler state"):
            windows.load_state_dict(spoilt)

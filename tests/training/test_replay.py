"""The replay against the windows of a store: the same starts give the same batch, offline and online."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from windows_samples import VECTORS, sample_store

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError
from onestride.training.experience import Experience, load_experience
from onestride.training.replay import Replay
from onestride.training.transitions import Records, layout
from onestride.training.vision import picture_batches

LENGTHS = (5, 1, 9, 3, 12, 2, 7)
KEYS = ("observations", "actions", "rewards", "masks", "terminals", "next_observations", "valid")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Random rewards and terminals inside the episodes; of every second episode the last observation is unknown."""
    return sample_store(tmp_path_factory.mktemp("replay") / "s.zarr", LENGTHS, finals=(True, False))


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same, and every last observation known, as it is online."""
    return sample_store(tmp_path_factory.mktemp("replay") / "a.zarr", LENGTHS)


def replay_of(experience: Experience | None, horizon: int, history: int, **more: object) -> Replay:
    dims = {"observation_dim": 4, "action_dim": 2, "horizon": horizon, "history": history}
    return Replay(experience, **dims, **more)  # type: ignore[arg-type]


def records_of(experience: Experience, lanes: int) -> tuple[Records, np.ndarray]:
    """The same steps as online records of so many environments, and the row of each step; whole episodes in turn."""
    stops = np.cumsum(experience.lengths)
    queues: list[list[int]] = [[] for _ in range(lanes)]
    for episode in np.argsort(-experience.lengths, kind="stable"):
        min(queues, key=len).extend(range(stops[episode] - experience.lengths[episode], stops[episode]))
    rounds = min(len(queue) for queue in queues)
    records, row_of = np.zeros(rounds * lanes, layout(4, 2)), np.full(len(experience), -1)
    first, last = stops - experience.lengths, stops - 1
    for row, record in enumerate(records):
        step = queues[row % lanes][row // lanes]
        row_of[step] = row
        record["observation"], record["successor"] = experience.observations[step], experience.successors[step]
        record["action"], record["reward"] = experience.actions[step], experience.rewards[step]
        record["mask"], record["terminal"] = experience.masks[step], experience.terminals[step]
        record["begins"], record["ends"] = step in first, step in last
    return records, row_of


@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize("horizon", [1, 4, 20])
def test_offline_windows_are_those_of_the_store(store: Store, horizon: int, history: int) -> None:
    windows = Windows(store, observations=VECTORS, horizon=horizon, history=history)
    replay = replay_of(load_experience(store, VECTORS, None, ("rewards",)), horizon, history)
    starts = np.arange(store.num_steps)
    expected, found = windows.at(starts), replay.at(torch.from_numpy(starts))
    for key in KEYS:
        assert np.array_equal(expected[key], found[key].numpy()), key


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6))
def test_online_windows_are_those_of_the_store(
    answered: Store, horizon: int, history: int, lanes: int, cut: int
) -> None:
    """However many environments ran at once, and wherever the rounds were cut into calls."""
    windows = Windows(answered, observations=VECTORS, horizon=horizon, history=history)
    experience = load_experience(answered, VECTORS, None, ("rewards",))
    records, row_of = records_of(experience, lanes)
    replay = replay_of(experience, horizon, history, room=len(records), lanes=lanes)
    middle = cut % (len(records) // lanes + 1) * lanes
    for part in (records[:middle], records[middle:]):
        if len(part):
            replay.extend(part)
    # Steps of episodes that all rounds hold: of others the replay does not know the end yet.
    stops = np.cumsum(experience.lengths)
    whole = np.repeat(
        [(row_of[stop - length : stop] >= 0).all() for stop, length in zip(stops, experience.lengths, strict=True)],
        experience.lengths,
    )
    steps = np.flatnonzero(whole)
    expected = windows.at(steps)
    found = replay.at(torch.from_numpy(row_of[steps] + len(experience)))
    for key in KEYS:
        assert np.array_equal(expected[key], found[key].numpy()), key


def test_a_running_episode_ends_where_it_is_known(store: Store) -> None:
    """Two of three steps are there: the window is valid for two, and continues from the second's successor."""
    experience = load_experience(store, VECTORS, None, ("rewards",))
    records = np.zeros(2, layout(4, 2))
    records["begins"][0], records["mask"] = True, 1
    records["successor"] = experience.successors[:2]
    replay = replay_of(None, 3, 1, room=4)
    replay.extend(records)
    batch = replay.at(torch.tensor([0, 1]))
    assert batch["valid"].tolist() == [[1, 1, 0], [1, 0, 0]]
    assert torch.equal(batch["next_observations"][:, 0], torch.from_numpy(experience.successors[[1, 1]]))
    later = np.zeros(1, layout(4, 2))
    later["terminal"] = 1
    replay.extend(later)
    assert replay.at(torch.tensor([0]))["valid"].tolist() == [[1, 1, 1]]
    assert replay.at(torch.tensor([0]))["masks"].tolist() == [[1, 1, 0]]


def test_draws_cover_every_step_and_resume(store: Store) -> None:
    experience = load_experience(store, VECTORS, None, ("rewards",))
    replay, again = (replay_of(experience, 2, 1, seed=3) for _ in range(2))
    replay.sample(500)
    assert sorted(set(replay.starts.tolist())) == list(range(len(experience)))
    again.load_state_dict(replay.state_dict())
    first, second = replay.sample(16), again.sample(16)
    assert torch.equal(replay.starts, again.starts)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 8), (0.25, 4), (1.0, 16)])
def test_a_share_of_each_batch_is_from_the_dataset(store: Store, share: float, expected: int) -> None:
    experience = load_experience(store, VECTORS, None, ("rewards",))
    replay = replay_of(experience, 2, 1, room=3, offline_share=share)
    replay.sample(16)
    assert (replay.starts < len(experience)).all()
    records = np.zeros(3, layout(4, 2))
    records["begins"][0] = True
    replay.extend(records)
    for _ in range(10):
        replay.sample(16)
        assert int((replay.starts < len(experience)).sum()) == expected


def test_costs_come_along(tmp_path: Path) -> None:
    from line_samples import line_store

    store = line_store(tmp_path / "line.zarr")
    experience = load_experience(store, None, None, ("rewards", "costs"))
    replay = Replay(experience, observation_dim=3, action_dim=2, horizon=1)
    costs = replay.at(torch.arange(store.num_steps))["costs"][:, 0]
    assert torch.equal(costs, torch.from_numpy(store.read("cost"))) and costs.sum() > 0


def test_outcomes_are_learnt_of_the_actions_that_were_executed(tmp_path: Path) -> None:
    """Where the label is another action: before noise, or the expert's."""
    kinds = {"observation": "observation", "action": "action", "action_executed": "info"}
    features = [Feature(name=name, role=role, shape=(2,), dtype="float32") for name, role in kinds.items()]  # type: ignore[arg-type]
    features.append(Feature(name="reward", role="reward", shape=(), dtype="float32"))
    schema = Schema(features=tuple(features), control_rate=10.0, label="action", label_source="oracle")
    store = Store.create(tmp_path / "s.zarr", schema, Provenance.now("test"))
    rows = {feature.name: np.random.default_rng(0).random((4, *feature.shape), np.float32) for feature in features}
    rows["action_executed"] = rows["action"] + 1
    store.append([Episode(rows, {"base": synthetic_clock(4, 10.0)})])
    assert np.array_equal(load_experience(store, None, None, ("rewards",)).actions, rows["action_executed"])
    with pytest.raises(OneStrideError, match=r"expected labels that were executed, .* got 'action_executed'"):
        picture_batches(store, {}, {}, ("rewards",), torch.device("cpu"))

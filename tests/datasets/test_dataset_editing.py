"""Edits are new manifests: segments stay as they are, readers see what was edited, and everything can be undone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestride.datasets.editing import delete, relabel, restore, split
from onestride.datasets.schema import Episode
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
Same = Callable[[Episode, Episode], bool]


@pytest.fixture
def recorded(store: Store, make_episode: MakeEpisode) -> Store:
    store.append([make_episode(number, length=10 + number) for number in range(3)])
    store.append([make_episode(number, length=10 + number) for number in range(3, 5)])
    return store


def test_deleted_episodes_are_not_seen_and_not_touched(
    recorded: Store, make_episode: MakeEpisode, same_episode: Same
) -> None:
    segments, identity = tree_sha256(recorded.path / "segments"), recorded.dataset_id
    delete(recorded, [1, 3])
    again = Store.open(recorded.path)
    assert again.dataset_id == recorded.dataset_id != identity
    assert [info.attributes["seed"] for info in again.episodes] == [0, 2, 4]
    assert again.lengths.tolist() == [10, 12, 14]
    for number, seed in enumerate((0, 2, 4)):
        assert same_episode(again.read_episode(number), make_episode(seed, length=10 + seed))
    for name in ("position", "camera"):
        expected = np.concatenate([make_episode(seed, length=10 + seed).data[name] for seed in (0, 2, 4)])
        np.testing.assert_array_equal(again.read(name), expected)
        np.testing.assert_array_equal(again.read_rows(name, 3, len(expected) - 2), expected[3:-2])
    assert again.final_known("position").tolist() == [True] * 3
    assert tree_sha256(recorded.path / "segments") == segments
    again.append([make_episode(9)])
    assert [info.attributes["seed"] for info in Store.open(recorded.path).episodes] == [0, 2, 4, 9]


def test_everything_deleted_is_an_empty_store(recorded: Store) -> None:
    delete(recorded, range(5))
    again = Store.open(recorded.path)
    assert (again.num_episodes, again.num_steps, again.episodes) == (0, 0, ())
    assert again.read("position").shape == (0, 3)
    restore(again)
    assert Store.open(recorded.path).num_episodes == 5


def test_restoring_gives_the_dataset_back_by_its_id(recorded: Store) -> None:
    identity = recorded.dataset_id
    delete(recorded, [0])
    split(recorded, 1, [4])
    relabel(recorded, [0], {"task": "x"})
    restore(recorded)
    assert Store.open(recorded.path).dataset_id == identity
    history = Store.open(recorded.path).manifest.history
    assert [edition.command.split()[0] for edition in history] == ["delete", "split", "relabel", "restore"]
    assert history[0].parent == identity
    assert len({edition.parent for edition in history}) == 4
    restore(recorded)
    assert len(recorded.manifest.history) == 4


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 11), min_size=1, max_size=4))
def test_the_parts_of_a_split_are_the_episode(recorded: Store, make_episode: MakeEpisode, cuts: set[int]) -> None:
    restore(recorded)
    split(recorded, 2, cuts)
    store, whole = Store.open(recorded.path), make_episode(2, length=12)
    bounds = [0, *sorted(cuts), 12]
    parts = [store.read_episode(2 + number) for number in range(len(cuts) + 1)]
    for name in ("position", "action", "state.qpos", "done"):
        np.testing.assert_array_equal(np.concatenate([part.data[name] for part in parts]), whole.data[name])
    for number, (part, start, stop) in enumerate(zip(parts, bounds, bounds[1:], strict=False)):
        part.validate(store.schema)
        np.testing.assert_array_equal(part.timestamps["base"], whole.timestamps["base"][start:stop])
        assert store.episode(2 + number).start == start
        if stop < 12:  # a part goes on with what the next one begins with
            np.testing.assert_array_equal(part.final["position"], whole.data["position"][stop])
            np.testing.assert_array_equal(part.final["state.qpos"], whole.data["state.qpos"][stop])
        # Each step has the picture that it had in the whole episode.
        for step in range(start, stop):
            before = _picture(whole, step)
            after = _picture(part, step - start)
            assert (before is None) == (after is None)
            assert before is None or (after is not None and np.array_equal(before, after))
    np.testing.assert_array_equal(parts[-1].final["position"], whole.final["position"])
    pictures = [store.read_episode(number).data["camera"] for number in range(store.num_episodes)]
    np.testing.assert_array_equal(store.read("camera"), np.concatenate(pictures))
    _check_index(store)


def _picture(episode: Episode, step: int) -> np.ndarray | None:
    row = np.searchsorted(episode.timestamps["video"], episode.timestamps["base"][step], side="right") - 1
    return None if row < 0 else episode.data["camera"][row]


def _check_index(store: Store) -> None:
    """`read_index` points at the row of `read` that was available."""
    index, pictures, at = store.read_index("video"), store.read("camera"), 0
    for number in range(store.num_episodes):
        episode = store.read_episode(number)
        for step in range(episode.length):
            expected = _picture(episode, step)
            assert (index[at] < 0) == (expected is None)
            assert expected is None or np.array_equal(pictures[index[at]], expected)
            at += 1


def test_a_part_can_be_split_deleted_and_labelled_again(recorded: Store, make_episode: MakeEpisode) -> None:
    split(recorded, 4, [6])
    split(recorded, 5, [2, 5])
    delete(recorded, [5])
    relabel(recorded, [4], {"success": True, "task": "lift"}, remove=["note"])
    again = Store.open(recorded.path)
    assert again.lengths.tolist() == [10, 11, 12, 13, 6, 3, 3]
    assert [info.start for info in again.episodes] == [0, 0, 0, 0, 0, 8, 11]
    assert again.episodes[4].attributes == {"seed": 4, "success": True, "task": "lift"}
    assert again.episodes[5].attributes == {"seed": 4, "success": True, "note": "ünder\nway"}
    np.testing.assert_array_equal(again.read_episode(6).data["action"], make_episode(4, length=14).data["action"][11:])
    sampler = Windows(again, observations=["position"], horizon=3)
    assert sampler.num_windows == again.num_steps


def test_labels_lie_over_what_was_recorded(recorded: Store) -> None:
    identity = recorded.dataset_id
    relabel(recorded, [0, 1], {"success": False, "note": None})
    assert recorded.episodes[0].attributes == {"seed": 0, "success": False, "note": None}
    relabel(recorded, [0], {"success": True}, remove=["note", "seed"])
    assert recorded.episodes[0].attributes == {"success": True}
    relabel(recorded, [0], {"seed": 5})
    again = Store.open(recorded.path)
    assert again.episodes[0].attributes == {"success": True, "seed": 5}
    assert again.read_episode(0).attributes == {"success": True, "seed": 5}
    assert again.segments[0].attributes[0]["seed"] == 0
    assert again.dataset_id != identity


def test_the_dataset_id_says_what_is_seen(recorded: Store) -> None:
    seen = [recorded.dataset_id]
    for edit in (
        lambda: delete(recorded, [4]),
        lambda: delete(recorded, [0]),
        lambda: relabel(recorded, [0], {"task": "a"}),
        lambda: relabel(recorded, [0], {"task": "b"}),
        lambda: split(recorded, 0, [3]),
    ):
        edit()
        seen.append(recorded.dataset_id)
    assert len(set(seen)) == 6


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda s: delete(s, [5]), "from 0 to 4, got 5"),
        (lambda s: delete(s, [-1]), "from 0 to 4, got -1"),
        (lambda s: delete(s, []), "at least one episode"),
        (lambda s: split(s, 0, []), "steps from 1 to 9"),
        (lambda s: split(s, 0, [0]), r"steps from 1 to 9 to split episode 0 at, got \[0\]"),
        (lambda s: split(s, 0, [10]), "steps from 1 to 9"),
        (lambda s: relabel(s, [0], {}), "to set or to remove"),
        (lambda s: relabel(s, [0], {"x": float("nan")}), "JSON values"),
        (lambda s: relabel(s, [0], {"x": 1}, remove=["x"]), "both for x"),
    ],
)
def test_a_wrong_edit_changes_nothing(recorded: Store, edit: Callable[[Store], None], match: str) -> None:
    before = tree_sha256(recorded.path)
    with pytest.raises(OneStrideError, match=match):
        edit(recorded)
    assert tree_sha256(recorded.path) == before


def test_an_edit_of_a_store_that_changed_meanwhile_is_refused(recorded: Store) -> None:
    """The numbers a person saw may no longer be those of the episodes meant."""
    other = Store.open(recorded.path)
    delete(other, [0])
    with pytest.raises(OneStrideError, match="changed since"):
        delete(recorded, [0])
    assert Store.open(recorded.path).num_episodes == 4


def test_an_edit_is_refused_while_another_writes(recorded: Store) -> None:
    with recorded.writer(), pytest.raises(OneStrideError, match="only writer"):
        delete(Store.open(recorded.path), [0])


def test_a_store_without_edits_has_the_manifest_it_always_had(recorded: Store) -> None:
    assert set(recorded.manifest.model_dump(mode="json")) == {"format", "header", "segments"}
    entry = recorded.manifest.segments[0].model_dump(mode="json")
    assert set(entry) == {"id", "checksum", "lengths", "meta"}

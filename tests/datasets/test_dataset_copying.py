"""Merging and compacting: what is seen before is what is there after, bit for bit, and no source is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onestride.datasets import copying, segment_writer
from onestride.datasets.compaction import compact
from onestride.datasets.editing import delete, relabel, split
from onestride.datasets.merging import merge
from onestride.datasets.provenance import Provenance, Source
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
Same = Callable[[Episode, Episode], bool]
NewStore = Callable[..., Store]


@pytest.fixture
def new_store(tmp_path: Path, schema: Schema, make_episode: MakeEpisode) -> NewStore:
    def make(name: str, numbers: list[int], seed: int = 7) -> Store:
        source = Source(name=f"{name}.bag", sha256="0" * 64)
        store = Store.create(tmp_path / name, schema, Provenance.now("record", seed=seed, sources=(source,)))
        for number in numbers:
            store.append([make_episode(number, length=8 + number)])
        return store

    return make


def test_what_several_recorders_wrote_becomes_one(
    tmp_path: Path, new_store: NewStore, make_episode: MakeEpisode, same_episode: Same
) -> None:
    stores = [new_store("a", [0, 1, 2]), new_store("b", [3]), new_store("c", [4, 5], seed=8)]
    before = [tree_sha256(store.path) for store in stores]
    done: list[tuple[int, int]] = []
    report = merge([store.path for store in stores], tmp_path / "all", lambda *now: done.append(now))
    assert [tree_sha256(store.path) for store in stores] == before
    merged = Store.open(tmp_path / "all")
    merged.verify()
    for number in range(6):
        assert same_episode(merged.read_episode(number), make_episode(number, length=8 + number))
    assert done == [(number, 6) for number in range(1, 7)]
    assert (report.episodes, report.segments_before, report.segments, report.dropped) == (6, 6, 1, ())
    assert report.dataset_id == merged.dataset_id
    origin = merged.provenance
    assert origin.parents == tuple(store.dataset_id for store in stores)
    assert [one.name for one in origin.sources] == ["a.bag", "b.bag", "c.bag"]
    assert [ancestor.provenance.command for ancestor in origin.lineage] == ["record"] * 3
    assert origin.seed is None, "the parents do not agree"
    again = merge([tmp_path / "all", new_store("d", [9]).path], tmp_path / "more")
    lineage = Store.open(tmp_path / "more").provenance.lineage
    assert again.episodes == 7
    assert [ancestor.provenance.command for ancestor in lineage[0].provenance.lineage] == ["record"] * 3


def test_merging_in_turn_or_at_once_is_the_same_dataset(tmp_path: Path, new_store: NewStore) -> None:
    paths = [new_store(name, [number]).path for number, name in enumerate("abc")]
    merge(paths, tmp_path / "once")
    merge(paths[:2], tmp_path / "ab")
    merge([tmp_path / "ab", paths[2]], tmp_path / "turn")
    assert Store.open(tmp_path / "once").dataset_id == Store.open(tmp_path / "turn").dataset_id


def test_large_segments_are_copied_as_files(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "SEGMENT_BYTES", 4)
    a, b = new_store("a", [0, 1]), new_store("b", [2, 3])
    delete(b, [0])
    merge([a.path, b.path], tmp_path / "all")
    merged = Store.open(tmp_path / "all")
    copied = [segment.entry.checksum for segment in merged.segments]
    assert copied[:2] == [segment.entry.checksum for segment in a.segments]
    assert [info.attributes["seed"] for info in merged.episodes] == [0, 1, 3]


def test_compacting_leaves_hidden_episodes_behind(tmp_path: Path, new_store: NewStore, same_episode: Same) -> None:
    store = new_store("a", [0, 1, 2, 3])
    delete(store, [0])
    split(store, 1, [4])
    relabel(store, [0], {"task": "lift"}, remove=["note"])
    seen = [store.read_episode(number) for number in range(store.num_episodes)]
    before = tree_sha256(store.path)
    report = compact(store.path, tmp_path / "small")
    small = Store.open(tmp_path / "small")
    assert tree_sha256(store.path) == before
    assert all(same_episode(small.read_episode(number), episode) for number, episode in enumerate(seen))
    assert (report.episodes, report.segments, report.hidden_steps) == (4, 1, 0)
    assert all(not segment.entry.edits for segment in small.segments)
    assert small.segments[0].attributes[0] == {"seed": 1, "success": False, "task": "lift"}
    assert small.provenance.command == "compact"
    assert small.provenance.parents == (store.dataset_id,)


@pytest.fixture
def filmed(tmp_path: Path) -> Store:
    schema = Schema(
        features=(
            Feature(name="action", role="action", shape=(2,), dtype="float32"),
            Feature(name="image", role="observation", shape=(32, 32, 3), dtype="uint8", codec="video"),
        ),
        control_rate=20.0,
        label="action",
        label_source="human",
    )
    store = Store.create(tmp_path / "filmed", schema, Provenance.now("record"))
    y, x = np.mgrid[:32, :32]
    episodes = []
    for seed, length in enumerate((23, 14, 31)):
        wave = [120 + 90 * np.sin((x + 3 * t) / 9 + y / (5 + seed) + c) for t in range(length) for c in range(3)]
        images = np.array(wave).reshape(length, 3, 32, 32).transpose(0, 2, 3, 1).astype(np.uint8)
        action = np.random.default_rng(seed).normal(size=(length, 2)).astype(np.float32)
        data = {"action": action, "image": images}
        episodes.append(Episode(data, {"base": synthetic_clock(length, 20.0)}, {"image": images[-1]}, {"seed": seed}))
    store.append(episodes)
    return store


@pytest.mark.parametrize("cut", [None, 10, 7])
def test_video_is_never_encoded_again(filmed: Store, tmp_path: Path, same_episode: Same, cut: int | None) -> None:
    """Episode 0 goes; episode 2 is cut at a key frame (10), between two (7), or not at all."""
    delete(filmed, [0])
    if cut is not None:
        split(filmed, 1, [cut])
        delete(filmed, [2])
    seen = [filmed.read_episode(number) for number in range(filmed.num_episodes)]
    report = compact(filmed.path, tmp_path / "small")
    small = Store.open(tmp_path / "small")
    small.verify()
    assert all(same_episode(small.read_episode(number), episode) for number, episode in enumerate(seen))
    assert small.lengths.tolist() == [14, 31 if cut is None else cut]
    assert report.hidden_steps == 0, "what is left begins at key frames whatever the cut"
    (note,) = small.video_notes["image"]
    assert note.frames == sum(small.lengths)


def test_a_part_that_begins_between_key_frames_keeps_its_segment(
    filmed: Store, tmp_path: Path, same_episode: Same
) -> None:
    split(filmed, 2, [7])
    delete(filmed, [0, 2])
    seen = [filmed.read_episode(number) for number in range(filmed.num_episodes)]
    report = compact(filmed.path, tmp_path / "small")
    small = Store.open(tmp_path / "small")
    assert all(same_episode(small.read_episode(number), episode) for number, episode in enumerate(seen))
    assert report.hidden_steps == 23 + 7
    assert small.segments[0].entry.checksum == filmed.segments[0].entry.checksum


def test_merged_videos_are_the_same_bytes(filmed: Store, tmp_path: Path) -> None:
    other = Store.create(tmp_path / "other", filmed.schema, Provenance.now("record"))
    episode = filmed.read_episode(1)
    other.append([episode])
    merge([filmed.path, other.path], tmp_path / "all")
    merged = Store.open(tmp_path / "all")
    files = [video_path.read_bytes() for video_path in sorted(merged.path.glob("segments/*/video/image.mp4"))]
    for store in (filmed, other):
        assert next(store.path.glob("segments/*/video/image.mp4")).read_bytes() in files
    np.testing.assert_array_equal(merged.read_rows("image", 0, 68), filmed.read("image"))


def test_different_datasets_are_told_apart(tmp_path: Path, new_store: NewStore, schema: Schema) -> None:
    store = new_store("a", [0])
    first, *others = schema.features
    changes = {
        "features 'position' only in the first, 'spot' only in the second": [
            first.model_copy(update={"name": "spot"}),
            *others,
        ],
        r"feature 'position' has units \('m', 'm', 'm'\) and \(\)": [first.model_copy(update={"units": ()}), *others],
        "feature 'position' has dtype 'float32' and 'int64'": [
            first.model_copy(update={"dtype": "int64"}),
            *others,
        ],
        "the order of the features": [*others, first],
    }
    for number, (message, features) in enumerate(changes.items()):
        other = Store.create(
            tmp_path / f"o{number}", schema.model_copy(update={"features": tuple(features)}), store.provenance
        )
        with pytest.raises(OneStrideError, match=f"one schema.*{message}"):
            merge([store.path, other.path], tmp_path / "all")
    slower = Store.create(tmp_path / "slower", schema.model_copy(update={"control_rate": 10.0}), store.provenance)
    with pytest.raises(OneStrideError, match=r"control_rate is 20\.0 and 10\.0"):
        merge([store.path, slower.path], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_wrong_merges_are_refused_in_one_sentence(tmp_path: Path, new_store: NewStore) -> None:
    a, b = new_store("a", [0]), new_store("b", [0])
    with pytest.raises(OneStrideError, match="at least two stores to merge, got 1"):
        merge([a.path], tmp_path / "all")
    with pytest.raises(OneStrideError, match="same content"):
        merge([a.path, b.path], tmp_path / "all")
    with pytest.raises(OneStrideError, match="which exists"):
        merge([a.path, new_store("c", [1]).path], b.path)
    with pytest.raises(OneStrideError, match="expected episodes to copy, got none"):
        compact(new_store("empty", []).path, tmp_path / "all")


def test_a_damaged_source_is_named_and_nothing_is_made(tmp_path: Path, new_store: NewStore) -> None:
    a, b = new_store("a", [0]), new_store("b", [1, 2])
    chunk = next((b.path / "segments" / b.episodes[1].segment / "data" / "position").glob("c.*"))
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(OneStrideError, match=r"hit: episode 1 \(data/position\)"):
        merge([a.path, b.path], tmp_path / "all")
    assert not list(tmp_path.glob("*all*"))


def test_what_was_not_committed_is_named(tmp_path: Path, new_store: NewStore) -> None:
    a, b = new_store("a", [0]), new_store("b", [1])
    (a.path / ".staging" / "half").mkdir()
    (tmp_path / ".all.12345678.unfinished").mkdir()
    report = merge([a.path, b.path], tmp_path / "all")
    assert report.dropped == (f"{a.path}/.staging/half", str(tmp_path / ".all.12345678.unfinished"))


def test_memory_stays_below_the_segment_size(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many episodes there are: the writer holds one segment's worth at a time."""
    held: list[int] = []
    add = segment_writer.SegmentWriter.add

    def watched(self: segment_writer.SegmentWriter, episode: Episode) -> None:
        add(self, episode)
        held.append(self._bytes)

    stores = [new_store(name, [3 * number, 3 * number + 1]).path for number, name in enumerate("abcd")]
    monkeypatch.setattr(segment_writer.SegmentWriter, "add", watched)
    monkeypatch.setattr(Store, "writer", lambda self: segment_writer.SegmentWriter(self, 2500))
    merge(stores, tmp_path / "all")
    assert max(held) < 2500
    assert Store.open(tmp_path / "all").num_episodes == 8

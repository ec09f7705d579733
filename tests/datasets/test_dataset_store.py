"""The store gives back every bit, refuses what was altered, and admits one writer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestride.datasets import lock
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
Same = Callable[[Episode, Episode], bool]


def _plain(path: Path) -> Any:
    return zarr.open(str(path), mode="r")


def test_every_episode_comes_back_to_the_bit(store: Store, make_episode: MakeEpisode, same_episode: Same) -> None:
    written = [make_episode(number, final=number != 2) for number in range(7)]
    store.append(written[:3])
    store.append(written[3:4])
    store.append(written[4:])
    again = Store.open(store.path)
    assert again.num_episodes == 7
    assert again.num_steps == sum(episode.length for episode in written)
    assert [info.length for info in again.episodes] == [episode.length for episode in written]
    assert [info.index for info in again.episodes] == [0, 1, 2, 0, 0, 1, 2]
    assert all(same_episode(again.read_episode(number), episode) for number, episode in enumerate(written))
    for name in ("position", "camera", "done"):
        expected = np.concatenate([episode.data[name] for episode in written])
        assert again.read(name).dtype == expected.dtype
        np.testing.assert_array_equal(again.read(name), expected)
    values, known = again.read_final("position")
    assert known.tolist() == [number != 2 for number in range(7)]
    np.testing.assert_array_equal(values[6], written[6].final["position"])
    assert again.schema == store.schema
    assert again.provenance == store.provenance
    assert again.dropped == ()
    again.verify()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["bool", "uint8", "int64", "float16", "float32", "float64"]),
    shape=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    fill=st.sampled_from([0.0, -0.0, 1.0, 5e-324]),
)
def test_constant_and_subnormal_values_keep_their_bits(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    shape: tuple[int, ...],
    lengths: list[int],
    fill: float,
) -> None:
    """A chunk of -0.0 equals the fill value 0.0 by comparison and must not be dropped for it."""
    features = (
        Feature(name="x", role="observation", shape=shape, dtype=dtype),
        Feature(name="action", role="action", shape=(1,), dtype="float32"),
    )
    schema = Schema(features=features, control_rate=None, label="action", label_source="unknown")
    store = Store.create(tmp_path_factory.mktemp("bits") / "s", schema, Provenance.now("test"))
    written = [
        Episode(
            {"x": np.full((length, *shape), fill).astype(dtype), "action": np.zeros((length, 1), np.float32)},
            {"base": synthetic_clock(length, 10.0)},
        )
        for length in lengths
    ]
    store.append(written)
    expected = np.concatenate([episode.data["x"] for episode in written])
    assert Store.open(store.path).read("x").tobytes() == expected.tobytes()


def test_a_segment_is_readable_by_plain_zarr_and_laid_out_as_promised(store: Store, make_episode: MakeEpisode) -> None:
    written = [make_episode(number, length=8) for number in (3, 4)]
    identity = store.append(written)
    segment = _plain(store.path / "segments" / identity)
    np.testing.assert_array_equal(segment["data/position"][8:], written[1].data["position"])
    np.testing.assert_array_equal(segment["final/position"][1], written[1].final["position"])
    np.testing.assert_array_equal(segment["time/base"][:8], written[0].timestamps["base"])
    assert segment["meta/episodes"][:].tolist() == [[[0, 8], [0, 4]], [[8, 16], [4, 8]]]
    assert segment["meta/episodes"].attrs["attributes"][1]["seed"] == 4
    whole = _plain(store.path)
    assert whole.attrs["onestride"]["schema"]["label"] == "action"


def test_the_stream_index_is_the_last_row_available(store: Store, make_episode: MakeEpisode) -> None:
    written = [make_episode(number, length=length) for number, length in ((5, 12), (6, 1), (7, 9))]
    identity = store.append(written)
    index = _plain(store.path / "segments" / identity)["index/video"][:].tolist()
    expected, offset = [], 0
    for episode in written:
        for now in episode.timestamps["base"]:
            seen = [row for row, then in enumerate(episode.timestamps["video"]) if then <= now]
            expected.append(seen[-1] + offset if seen else -1)
        offset += len(episode.timestamps["video"])
    assert index == expected
    assert -1 in index


def test_the_dataset_id_is_of_the_content(tmp_path: Path, schema: Schema, make_episode: MakeEpisode) -> None:
    ids = []
    for name, seed in (("a", 1), ("b", 2)):
        store = Store.create(tmp_path / name, schema, Provenance.now("test", seed=seed))
        empty = store.dataset_id
        store.append([make_episode(1), make_episode(2)])
        ids.append(store.dataset_id)
        assert store.dataset_id != empty
        assert Store.open(store.path).dataset_id == store.dataset_id
    assert ids[0] == ids[1]
    store.append([make_episode(3)])
    assert store.dataset_id != ids[0]


def test_a_flipped_byte_anywhere_in_a_segment_is_refused_by_its_name(store: Store, make_episode: MakeEpisode) -> None:
    store.append([make_episode(1)])
    identity = store.append([make_episode(2)])
    for path in sorted((store.path / "segments" / identity).rglob("*")):
        if path.is_dir():
            continue
        sound = path.read_bytes()
        path.write_bytes(bytes([sound[0] ^ 1]) + sound[1:])
        with pytest.raises(OneStrideError, match=identity):
            Store.open(store.path).verify()
        with pytest.raises(OneStrideError, match=f"{identity}.*altered"):
            Store.open(store.path).read("action")
        path.write_bytes(sound)
    Store.open(store.path).verify()


def test_a_truncated_missing_or_added_file_is_refused(store: Store, make_episode: MakeEpisode) -> None:
    identity = store.append([make_episode(1)])
    chunk = next((store.path / "segments" / identity / "data" / "action").glob("c.*"))
    sound = chunk.read_bytes()
    for spoil in (lambda: chunk.write_bytes(sound[:-1]), chunk.unlink, lambda: (chunk.parent / "more").touch()):
        spoil()
        with pytest.raises(OneStrideError, match=identity):
            Store.open(store.path).read_episode(0)
        chunk.write_bytes(sound)


def test_what_is_no_store_is_refused_in_one_sentence(tmp_path: Path, store: Store) -> None:
    with pytest.raises(OneStrideError, match="got nothing there"):
        Store.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OneStrideError, match="expected a store"):
        Store.open(tmp_path / "file")
    zarr.create_group(str(tmp_path / "other"), zarr_format=3)
    with pytest.raises(OneStrideError, match="another Zarr group"):
        Store.open(tmp_path / "other")
    with pytest.raises(OneStrideError, match="which exists"):
        Store.create(store.path, store.schema, store.provenance)
    with pytest.raises(OneStrideError, match="writable place"):
        Store.create(tmp_path / "file" / "below", store.schema, store.provenance)


def test_a_damaged_manifest_or_header_is_refused(store: Store, make_episode: MakeEpisode) -> None:
    identity = store.append([make_episode(1)])
    manifest = store.path / "manifest.json"
    sound = manifest.read_bytes()
    content = json.loads(sound)
    spoilt = {
        "truncated or damaged": sound[: len(sound) // 2],
        "checksum": sound.replace(b'"lengths"', b'"length "'),
        "format": b"[]",
        "expected a manifest in JSON": b"[" * 10_000,
        "expected store format 1, got 9": json.dumps({**content, "format": 9}).encode(),
    }
    for says, damaged in spoilt.items():
        manifest.write_bytes(damaged)
        with pytest.raises(OneStrideError, match=says):
            Store.open(store.path)
    manifest.unlink()
    with pytest.raises(OneStrideError, match="expected a manifest"):
        Store.open(store.path)
    manifest.write_bytes(sound)
    header = store.path / "zarr.json"
    header.write_text(header.read_text().replace('"m"', '"n"', 1))
    with pytest.raises(OneStrideError, match="altered file"):
        Store.open(store.path)
    for content in ("{", '{"a":' * 10_000):
        header.write_text(content)
        with pytest.raises(OneStrideError, match="truncated or damaged"):
            Store.open(store.path)
    assert identity


def test_a_segment_that_went_missing_is_named(store: Store, make_episode: MakeEpisode) -> None:
    identity = store.append([make_episode(1)])
    (store.path / "segments" / identity).rename(store.path / "segments" / "gone")
    with pytest.raises(OneStrideError, match=f"expected segment {identity}"):
        Store.open(store.path)


def test_one_bad_episode_leaves_the_store_as_it_was(store: Store, make_episode: MakeEpisode) -> None:
    store.append([make_episode(1)])
    before = tree_sha256(store.path)
    spoilt = make_episode(3, length=5)
    spoilt.data["action"][2, 0] = np.nan
    with pytest.raises(OneStrideError, match=r"episode 1 of 2: action\[0\] 'dx' at step 2"):
        store.append([make_episode(2), spoilt])
    with pytest.raises(OneStrideError, match="at least one episode"):
        store.append([])
    assert tree_sha256(store.path) == before


def test_a_second_writer_gets_a_clear_error(
    store: Store, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    second = Store.open(store.path)
    with store.writer() as writer:
        writer.add(make_episode(1))
        with pytest.raises(OneStrideError, match="only writer"):
            second.append([make_episode(2)])
        with pytest.raises(OneStrideError, match="only writer"), second.writer():
            pass
    second.append([make_episode(2)])
    assert [info.attributes["seed"] for info in second.episodes] == [1, 2]


def test_writers_in_turn_lose_nothing(store: Store, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 30.0)

    def work(first: int) -> None:
        mine = Store.open(store.path)
        for number in range(first, first + 4):
            mine.append([make_episode(number)])

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seeds = [info.attributes["seed"] for info in Store.open(store.path).episodes]
    assert sorted(map(int, map(str, seeds))) == [0, 1, 2, 3, 100, 101, 102, 103]


def test_the_writer_gathers_and_commits_on_ctrl_c(store: Store, make_episode: MakeEpisode, same_episode: Same) -> None:
    with pytest.raises(KeyboardInterrupt), store.writer(target_bytes=3000) as writer:
        for number in range(9):
            writer.add(make_episode(number, length=20))
        raise KeyboardInterrupt
    again = Store.open(store.path)
    assert all(same_episode(again.read_episode(number), make_episode(number, length=20)) for number in range(9))
    segments = [info.segment for info in again.episodes]
    assert 1 < len(set(segments)) < 9


def test_ctrl_c_after_a_commit_does_not_append_twice(
    store: Store, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = store.commit

    def interrupted(*arguments: Any) -> str:
        commit(*arguments)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), store.writer(target_bytes=0) as writer:
        monkeypatch.setattr(store, "commit", interrupted)
        writer.add(make_episode(1))
    assert Store.open(store.path).num_episodes == 1


def test_an_unknown_feature_or_episode_says_what_exists(store: Store, make_episode: MakeEpisode) -> None:
    store.append([make_episode(1)])
    with pytest.raises(OneStrideError, match="available: position"):
        store.read("velocity")
    with pytest.raises(OneStrideError, match="from 0 to 0, got 1"):
        store.read_episode(1)

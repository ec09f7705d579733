"""Damage is named by episode, and repair keeps all that is sound."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onestride.datasets.checksums import Table
from onestride.datasets.editing import delete, relabel, restore, split
from onestride.datasets.provenance import Provenance
from onestride.datasets.repair import repair
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
Same = Callable[[Episode, Episode], bool]


def _flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def _chunk(store: Store, number: int, array: str, chunk: str = "c.*") -> Path:
    return next((store.path / "segments" / store.episodes[number].segment / array).glob(chunk))


@pytest.fixture
def recorded(store: Store, make_episode: MakeEpisode) -> Store:
    """As a recorder leaves it: one segment for each episode."""
    for number in range(4):
        store.append([make_episode(number, length=10)])
    return store


def test_a_flipped_byte_names_the_episode_and_the_array(recorded: Store) -> None:
    relabel(recorded, [0], {"task": "x"})
    for array in ("data/position", "final/position", "time/base", "index/video"):
        chunk = _chunk(recorded, 2, array)
        _flip(chunk)
        with pytest.raises(OneStrideError, match=rf"hit: episode 2 \({array}\)"):
            Store.open(recorded.path).verify()
        with pytest.raises(OneStrideError, match=rf"hit: episode 2 \({array}\)"):
            Store.open(recorded.path).read("action")
        _flip(chunk)
    Store.open(recorded.path).verify()


def test_the_names_are_those_that_readers_see(recorded: Store) -> None:
    delete(recorded, [0])
    split(recorded, 1, [5])
    _flip(_chunk(recorded, 1, "data/action"))
    _flip(next((recorded.path / "segments" / recorded.manifest.segments[0].id / "data" / "action").glob("c.*")))
    with pytest.raises(OneStrideError) as error:
        Store.open(recorded.path).verify()
    assert "a deleted episode (data/action)" in str(error.value)
    assert "episode 1 and episode 2 (data/action)" in str(error.value)


def test_in_a_segment_of_many_only_the_rows_that_are_hit_are_named(
    tmp_path: Path, make_episode: MakeEpisode, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onestride.datasets.segments.CHUNK_BYTES", 12 * 12)
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    store.append([make_episode(number, length=10) for number in range(6)])
    chunk = _chunk(store, 0, "data/position", "c.2.0")  # rows 24 to 35: the end of episode 2, the begin of 3
    _flip(chunk)
    with pytest.raises(OneStrideError, match=r"hit: episode 3 \(data/position\)$"):
        Store.open(store.path).verify()
    chunk.write_bytes(chunk.read_bytes()[:-20])
    with pytest.raises(OneStrideError, match=r"hit: episode 2 \(data/position\), episode 3 \(data/position\)$"):
        Store.open(store.path).verify()
    _flip(next((store.path / "segments").glob("*/meta/checksums/zarr.json")), 0)
    with pytest.raises(OneStrideError, match="any of episodes 0 to 5"):
        Store.open(store.path).verify()


def test_damage_to_what_describes_the_episodes_hits_none_of_them(recorded: Store) -> None:
    group = recorded.path / "segments" / recorded.episodes[1].segment / "zarr.json"
    group.write_text(group.read_text() + " ")
    with pytest.raises(OneStrideError, match="no episode of it is hit"):
        Store.open(recorded.path).verify()
    report = repair(recorded.path)
    assert report.salvaged
    assert report.lost == []
    assert Store.open(recorded.path).num_episodes == 4


def test_a_sound_store_is_left_alone(recorded: Store) -> None:
    before = tree_sha256(recorded.path)
    assert not repair(recorded.path).changed
    assert tree_sha256(recorded.path) == before


def test_what_was_written_and_not_committed_is_recovered(
    recorded: Store, make_episode: MakeEpisode, same_episode: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr("onestride.datasets.committing.write_manifest", refuse)
        with pytest.raises(OneStrideError, match="killed here"):
            recorded.append([make_episode(9, length=10)])
    (recorded.path / ".staging" / "half").mkdir()
    (recorded.path / ".staging" / "manifest.json.77").write_text("{")
    assert len(Store.open(recorded.path).dropped) == 3
    report = repair(recorded.path)
    after = Store.open(recorded.path)
    assert same_episode(after.read_episode(4), make_episode(9, length=10))
    assert (after.num_episodes, after.dropped) == (5, ())
    assert len(report.recovered) == 1
    assert report.removed == [".staging/half", ".staging/manifest.json.77"]
    assert not repair(recorded.path).changed


def test_what_was_committed_again_meanwhile_is_not_doubled(recorded: Store) -> None:
    """A recorder that is run again after `kill -9` commits the same episode under another name."""
    home = recorded.path / "segments" / recorded.episodes[3].segment
    shutil.copytree(home, home.with_name(f"000009-{home.name[-12:]}"))
    shutil.copytree(home, recorded.path / ".staging" / "whole")
    report = repair(recorded.path)
    assert report.recovered == []
    assert len(report.removed) == 2
    assert Store.open(recorded.path).num_episodes == 4


def test_an_episode_that_two_killed_runs_left_is_recovered_once(
    recorded: Store, make_episode: MakeEpisode, same_episode: Same
) -> None:
    """One was killed after the rename, the next, at the same episode, before it."""
    whole = Store.open(recorded.path)
    manifest = (recorded.path / "manifest.json").read_bytes()
    identity = whole.append([make_episode(4, length=10)])
    (recorded.path / "manifest.json").write_bytes(manifest)
    shutil.copytree(recorded.path / "segments" / identity, recorded.path / ".staging" / "again")
    assert len(Store.open(recorded.path).dropped) == 2
    report = repair(recorded.path)
    assert len(report.recovered) == 1
    after = Store.open(recorded.path)
    assert (after.num_episodes, after.dropped) == (5, ())
    assert same_episode(after.read_episode(4), make_episode(4, length=10))


@pytest.fixture
def repeated(store: Store, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A run was killed between rename and commit of three episodes; the repetition committed two of them."""
    with monkeypatch.context() as patch:
        patch.setattr("onestride.datasets.committing.write_manifest", _raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.append([make_episode(number, length=10) for number in (1, 2, 3)])
    store.append([make_episode(number, length=10) for number in (1, 3)])
    assert len(Store.open(store.path).dropped) == 1
    return store


def _raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_of_a_run_that_was_repeated_only_what_is_missing_is_recovered(
    repeated: Store, make_episode: MakeEpisode, same_episode: Same
) -> None:
    report = repair(repeated.path)
    assert [line.split(" as ")[1][-12:] for line in report.recovered] == ["(1 episodes)"]
    assert [line.split(" of ")[:2] for line in report.doubled] == [["2", "3 episodes"]]
    after = Store.open(repeated.path)
    assert [info.attributes["seed"] for info in after.episodes] == [1, 3, 2]
    assert same_episode(after.read_episode(2), make_episode(2, length=10))
    assert not repair(repeated.path).changed


def test_a_rebuilt_manifest_shows_each_episode_once(repeated: Store) -> None:
    (repeated.path / "manifest.json").unlink()
    report = repair(repeated.path)
    assert report.manifest_rebuilt
    assert len(report.doubled) == 1
    after = Store.open(repeated.path)
    assert sorted(int(str(info.attributes["seed"])) for info in after.episodes) == [1, 2, 3]
    restore(after)
    assert after.num_episodes == 5, "hidden, not deleted"


def test_altered_attributes_are_named_and_not_committed_anew(store: Store, make_episode: MakeEpisode) -> None:
    store.append([make_episode(number, length=10) for number in (1, 2, 3)])
    home = store.path / "segments" / store.episodes[0].segment
    (about,) = home.glob("meta/episodes/zarr.json")
    about.write_text(about.read_text().replace('"seed": 2', '"seed": 7'))
    with pytest.raises(OneStrideError, match=r"hit: episode 1 \(attributes\)$"):
        Store.open(store.path).verify()
    (final,) = home.glob("final/position/zarr.json")
    final.write_text(final.read_text().replace("[true, true, true]", "[true, true, false]"))
    with pytest.raises(OneStrideError, match=r"hit: episode 1 \(attributes\), episode 2 \(attributes\)$"):
        Store.open(store.path).verify()
    report = repair(store.path)
    assert report.lost == ["episode 1", "episode 2"]
    assert [info.attributes["seed"] for info in Store.open(store.path).episodes] == [1]
    assert (store.path / ".damaged" / home.name).is_dir()


def test_a_segment_without_checksums_of_attributes_is_read_and_its_altered_ones_are_held_back(
    store: Store, make_episode: MakeEpisode, same_episode: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions before wrote them."""
    add = Table.add

    def without(table: Table, name: str, stream: str, column: list[int]) -> None:
        if name != "attributes":
            add(table, name, stream, column)

    with monkeypatch.context() as patch:
        patch.setattr(Table, "add", without)
        for number in (1, 2):
            store.append([make_episode(number, length=10)])
    old = Store.open(store.path)
    old.verify()
    assert same_episode(old.read_episode(0), make_episode(1, length=10))
    group = old.segments[0].path / "zarr.json"
    group.write_text(group.read_text() + " ")
    with pytest.raises(OneStrideError, match="no episode of it is hit"):
        Store.open(store.path).verify()
    about = old.segments[1].path / "meta" / "episodes" / "zarr.json"
    about.write_text(about.read_text().replace('"seed": 2', '"seed": 7'))
    with pytest.raises(OneStrideError, match=r"hit: episode 1 \(attributes, of which this older segment has no check"):
        Store.open(store.path).verify()
    assert repair(store.path).lost == ["episode 1"]
    assert [info.attributes["seed"] for info in Store.open(store.path).episodes] == [1]


def test_sound_episodes_of_a_damaged_segment_are_kept_with_their_edits(
    tmp_path: Path, schema: Schema, make_episode: MakeEpisode, same_episode: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onestride.datasets.segments.CHUNK_BYTES", 10 * 12)
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    store.append([make_episode(0, length=10)])
    identity = store.append([make_episode(number, length=10) for number in range(1, 6)])
    store.append([make_episode(6, length=10)])
    relabel(store, [4], {"task": "kept"})
    delete(store, [3])
    _flip(_chunk(store, 1, "data/position", "c.1.0"))
    report = repair(store.path)
    after = Store.open(store.path)
    assert [info.attributes["seed"] for info in after.episodes] == [0, 1, 4, 5, 6]
    assert after.episodes[2].attributes["task"] == "kept"
    assert report.lost == ["episode 2"]
    assert report.salvaged == [identity]
    assert (store.path / ".damaged" / identity).is_dir()
    for number, seed in ((0, 0), (1, 1), (3, 5), (4, 6)):
        assert same_episode(after.read_episode(number), make_episode(seed, length=10))
    assert after.dropped == ()
    assert not repair(store.path).changed


def test_an_episode_that_is_gone_is_said_to_be_lost(recorded: Store) -> None:
    _flip(_chunk(recorded, 1, "data/action"))
    shutil.rmtree(recorded.path / "segments" / recorded.episodes[3].segment)
    report = repair(recorded.path)
    assert report.lost == ["episode 1", "episode 3"]
    assert [info.attributes["seed"] for info in Store.open(recorded.path).episodes] == [0, 2]


@pytest.mark.parametrize("spoil", ["truncate", "remove", "flip"])
def test_a_damaged_manifest_is_rebuilt_from_the_segments(
    recorded: Store, make_episode: MakeEpisode, same_episode: Same, spoil: str
) -> None:
    delete(recorded, [1])
    manifest = recorded.path / "manifest.json"
    content = manifest.read_bytes()
    manifest.unlink()
    if spoil != "remove":
        manifest.write_bytes(content[: len(content) // 2] if spoil == "truncate" else content.replace(b"1", b"2"))
    with pytest.raises(OneStrideError, match="expected"):
        Store.open(recorded.path)
    report = repair(recorded.path)
    assert report.manifest_rebuilt
    after = Store.open(recorded.path)
    assert after.num_episodes == 4, "edits were in the manifest"
    assert all(same_episode(after.read_episode(number), make_episode(number, length=10)) for number in range(4))


def test_the_schema_cannot_be_repaired(recorded: Store) -> None:
    header = recorded.path / "zarr.json"
    header.write_text(header.read_text().replace('"m"', '"n"', 1))
    with pytest.raises(OneStrideError, match="altered file"):
        repair(recorded.path)
    header.write_text("{")
    with pytest.raises(OneStrideError, match="truncated or damaged"):
        repair(recorded.path)


def test_repair_waits_for_no_writer(recorded: Store) -> None:
    with recorded.writer(), pytest.raises(OneStrideError, match="only writer"):
        repair(recorded.path)


def test_damaged_video_names_its_episode_and_spares_the_others(tmp_path: Path) -> None:
    schema = Schema(
        features=(
            Feature(name="action", role="action", shape=(1,), dtype="float32"),
            Feature(name="image", role="observation", shape=(32, 32, 3), dtype="uint8", codec="video"),
        ),
        control_rate=20.0,
        label="action",
        label_source="human",
    )
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 12, 32, 32, 3)).astype(np.uint8)
    store.append(
        [
            Episode({"action": np.zeros((12, 1), np.float32), "image": one}, {"base": synthetic_clock(12, 20.0)})
            for one in images
        ]
    )
    seen = [store.read_episode(number) for number in range(3)]
    file = next(store.path.glob("segments/*/video/image.mp4"))
    _flip(file, file.stat().st_size // 2)
    with pytest.raises(OneStrideError, match=r"hit: episode 1 \(video/image\)"):
        Store.open(store.path).read("image")
    report = repair(store.path)
    assert report.lost == ["episode 1"]
    after = Store.open(store.path)
    for number, episode in enumerate((seen[0], seen[2])):
        np.testing.assert_array_equal(after.read_episode(number).data["image"], episode.data["image"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_read_and_not_written(recorded: Store, make_episode: MakeEpisode) -> None:
    _read_only(recorded, make_episode)


def test_a_read_only_store_is_refused_by_the_lock(
    recorded: Store, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where the tests run as root, whom no permission stops: the kernel's answer is made up."""
    real = os.open

    def refused(path: str, flags: int, *rest: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refused)
    _check_refusals(recorded, make_episode)


def _read_only(store: Store, make_episode: MakeEpisode) -> None:
    folders = [store.path, *(path for path in store.path.rglob("*"))]
    for path in folders:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        _check_refusals(store, make_episode)
    finally:
        for path in folders:
            path.chmod(0o755 if path.is_dir() else 0o644)


def _check_refusals(store: Store, make_episode: MakeEpisode) -> None:
    again = Store.open(store.path)
    again.verify()
    assert again.read("position").shape == (40, 3)
    for write in (
        lambda: again.append([make_episode(5)]),
        lambda: delete(again, [0]),
        lambda: repair(store.path),
    ):
        with pytest.raises(OneStrideError, match="expected a writable store"):
            write()
    assert Store.open(store.path).num_episodes == 4

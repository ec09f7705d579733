"""Diffusion Policy's zarr, both ways: the published Push-T file, and our own stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from onestride.datasets.converters import Options, convert
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
SameEpisode = Callable[[Episode, Episode], bool]


@pytest.fixture(scope="module")
def pusht(shared_data: Path) -> Path:
    path = shared_data / "diffusion_policy" / "pusht_cchi_v7_replay.zarr"
    if not path.is_dir():
        pytest.skip(f"no Push-T file at {path}")
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A small replay buffer, with float pictures that hold whole numbers."""
    path = tmp_path / "toy.zarr"
    random = np.random.default_rng(0)
    root = zarr.create_group(str(path), zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    arrays = {
        "action": random.normal(size=(30, 2)).astype(np.float32),
        "img": random.integers(256, size=(30, 4, 4, 3)).astype(np.float32),
        "state": random.normal(size=(30, 5)).astype(np.float32),
        "stage": random.integers(3, size=30),
    }
    for name, rows in arrays.items():
        chunks = (7, *rows.shape[1:])
        data.create_array(name, data=rows, chunks=chunks, compressors=numcodecs.Blosc("zstd", 5, 2))
    meta.create_array("episode_ends", data=np.array([10, 11, 30]), chunks=(3,))
    return path


def plain(path: Path, name: str) -> np.ndarray:
    """An array of a Zarr v2 group, decoded chunk by chunk with nothing but numcodecs and its JSON."""
    about = json.loads((path / name / ".zarray").read_bytes())
    assert (about["zarr_format"], about["order"], about["filters"]) == (2, "C", None)
    codec = numcodecs.get_codec(about["compressor"])
    shape, rows = about["shape"], about["chunks"][0]
    assert about["chunks"][1:] == shape[1:]
    found = np.empty(shape, about["dtype"])
    for number in range(-(-shape[0] // rows)):
        content: Any = codec.decode((path / name / ".".join([str(number), *"0" * (len(shape) - 1)])).read_bytes())
        chunk = np.frombuffer(content, about["dtype"]).reshape(about["chunks"])
        part = found[number * rows : (number + 1) * rows]
        part[:] = chunk[: len(part)]
    return found


def _compare(source: Path, again: Path, names: list[str]) -> None:
    for name in names:
        before, after = zarr.open_array(str(source / name), mode="r"), zarr.open_array(str(again / name), mode="r")
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
        for start in range(0, before.shape[0], 2000):
            rows = slice(start, start + 2000)
            assert np.asarray(before[rows]).tobytes() == np.asarray(after[rows]).tobytes(), name


def test_push_t_comes_over_and_goes_back_to_the_bit(pusht: Path, tmp_path: Path) -> None:
    report = convert(pusht, tmp_path / "s", options=Options(leave_out=("img",)))
    store = Store.open(tmp_path / "s")
    assert (report.format, store.num_episodes, store.num_steps) == ("diffusion-policy zarr", 206, 25650)
    for name in ("state", "action", "keypoint", "n_contacts"):
        assert store.read(name).tobytes() == plain(pusht, f"data/{name}").tobytes()
    np.testing.assert_array_equal(np.cumsum(store.lengths), plain(pusht, "meta/episode_ends"))
    schema = store.schema
    assert schema.feature("state").names == ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
    assert schema.feature("action").units == ("px", "px")
    assert schema.feature("n_contacts").role == "info"
    assert (schema.environment, schema.control_rate) == ("diffusion_policy/pusht", 10.0)
    convert(store.path, tmp_path / "again.zarr", to="diffusion_policy")
    _compare(pusht, tmp_path / "again.zarr", ["data/state", "data/action", "data/keypoint", "meta/episode_ends"])
    np.testing.assert_array_equal(plain(tmp_path / "again.zarr", "data/state"), plain(pusht, "data/state"))


@pytest.mark.slow
def test_push_t_with_its_pictures_comes_over_and_goes_back_to_the_bit(pusht: Path, tmp_path: Path) -> None:
    """2.8 GB of float pictures, in blocks."""
    report = convert(pusht, tmp_path / "s")
    assert any("data/img" in line and "whole numbers from 0 to 255" in line for line in report.kept)
    convert(tmp_path / "s", tmp_path / "again.zarr", to="diffusion_policy")
    _compare(pusht, tmp_path / "again.zarr", ["data/img"])


def test_pictures_in_float_keep_their_bits(toy: Path, tmp_path: Path) -> None:
    report = convert(toy, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert store.read("img").tobytes() == plain(toy, "data/img").tobytes()
    assert store.read("img").dtype == np.float32
    assert any("img" in line and "whole numbers from 0 to 255" in line for line in report.kept)
    assert store.schema.feature("stage").role == "info"
    assert store.lengths.tolist() == [10, 1, 19]
    convert(store.path, tmp_path / "again.zarr", to="diffusion_policy")
    _compare(toy, tmp_path / "again.zarr", ["data/action", "data/img", "data/state", "data/stage", "meta/episode_ends"])


def test_float_pictures_are_kept_as_uint8_where_asked_for_and_whole(toy: Path, tmp_path: Path) -> None:
    report = convert(toy, tmp_path / "s", options=Options(as_uint8=("img",)))
    assert "data/img: img (4, 4, 3) uint8, float32 of the same numbers" in report.changed
    found = Store.open(tmp_path / "s").read("img")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, plain(toy, "data/img"))
    with pytest.raises(OneStrideError, match=r"got 'state', available: img"):
        convert(toy, tmp_path / "t", options=Options(as_uint8=("state",)))
    pictures = zarr.open_array(str(toy / "data" / "img"), mode="r+")
    for wrong in (0.5, -1.0, 256.0, np.inf):
        pictures[12, 1, 1, 1] = wrong
        with pytest.raises(OneStrideError, match=r"data/img: expected whole numbers from 0 to 255"):
            convert(toy, tmp_path / "t", options=Options(as_uint8=("img",)))
        assert not (tmp_path / "t").exists()


def test_store_to_zarr_to_store_is_the_same_to_the_bit(
    store: Store, make_episode: MakeEpisode, same_episode: SameEpisode, tmp_path: Path
) -> None:
    schema = store.schema.model_copy(
        update={"features": tuple(one for one in store.schema.features if one.stream == "base")}
    )
    single = Store.create(tmp_path / "single", schema, Provenance.now("test"))
    for number in range(4):
        episode = make_episode(number, length=5 + number, final=number in (1, 3))
        data = {one.name: episode.data[one.name] for one in schema.features}
        clock = episode.timestamps["base"] + np.arange(5 + number) ** 2
        single.append([Episode(data, {"base": clock}, episode.final, {**episode.attributes, "list": [None, 1]})])
    convert(single.path, tmp_path / "x.zarr", to="diffusion_policy")
    convert(tmp_path / "x.zarr", tmp_path / "back")
    back = Store.open(tmp_path / "back")
    assert back.schema == single.schema
    for number in range(4):
        assert same_episode(back.read_episode(number), single.read_episode(number)), number
    assert back.provenance.parents == (single.dataset_id,)


def test_a_recorded_clock_becomes_the_clock(toy: Path, tmp_path: Path) -> None:
    seconds = 1.6e9 + np.arange(30) * 0.1 + np.random.default_rng(0).uniform(0, 0.01, 30)
    zarr.open_group(str(toy), mode="r+")["data"].create_array("timestamp", data=seconds)  # type: ignore[union-attr]
    convert(toy, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    clock = store.read_episode(2).timestamps["base"]
    np.testing.assert_allclose(clock * 1e-9, seconds[11:] - seconds[11], atol=1e-6)
    assert store.read("timestamp").tobytes() == seconds.tobytes()


def test_chunks_that_are_not_there_are_told(toy: Path, tmp_path: Path) -> None:
    (toy / "data" / "state" / "2.0").unlink()
    report = convert(toy, tmp_path / "s")
    assert any("data/state: 1 of 5 chunks are not there" in line for line in report.changed)


def _spoil(path: Path, name: str, **changes: Any) -> None:
    described = path / name / ".zarray"
    described.write_text(json.dumps({**json.loads(described.read_bytes()), **changes}))


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("data/state", {"compressor": {"id": "pickle"}}, "unknown codec: got 'pickle'"),
        ("data/state", {"filters": [{"id": "pickle"}]}, "unknown codec: got 'pickle'"),
        ("data/state", {"dtype": "|O"}, "expected an array of plain values"),
        ("data/state", {"shape": [29, 5]}, "data/state: expected 30 rows"),
        ("data/state", {"shape": "x"}, "expected the description of a Zarr v2 array"),
        ("data/state", {"shape": [30, 500], "chunks": [7, 500]}, "expected a readable Zarr v2 group"),
        ("data/action", {"dtype": "<f8"}, "expected"),
        ("meta/episode_ends", {"dtype": "<f8"}, "meta/episode_ends: expected"),
    ],
)
def test_a_spoilt_description_is_one_error(
    toy: Path, tmp_path: Path, name: str, changes: dict[str, Any], says: str
) -> None:
    _spoil(toy, name, **changes)
    with pytest.raises(OneStrideError, match=says) as caught:
        convert(toy, tmp_path / "s")
    assert str(toy) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["toy.zarr"]


@pytest.mark.parametrize("ends", [[10, 10, 30], [10, 5, 30], [0, 30], [10, 29], []])
def test_ends_that_are_none_are_one_error(toy: Path, tmp_path: Path, ends: list[int]) -> None:
    meta: Any = zarr.open_group(str(toy), mode="r+")["meta"]
    del meta["episode_ends"]
    if ends:
        meta.create_array("episode_ends", data=np.array(ends))
    with pytest.raises(OneStrideError, match=r"episode_ends|expected 29 rows"):
        convert(toy, tmp_path / "s")

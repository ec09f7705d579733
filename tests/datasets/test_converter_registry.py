"""The registry: which format is made, where it goes, and that nothing is ever half there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from onestride.datasets.converters import READERS, WRITERS, Options, convert, target_format
from onestride.datasets.converters.npz_rows import opened
from onestride.datasets.converters.placing import placed
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def single(store: Store, make_episode: MakeEpisode, tmp_path: Path) -> Store:
    """Three episodes on one clock."""
    features = tuple(one for one in store.schema.features if one.stream == "base")
    made = Store.create(
        tmp_path / "single", store.schema.model_copy(update={"features": features}), Provenance.now("test")
    )
    for number in range(3):
        episode = make_episode(number, length=6)
        data = {one.name: episode.data[one.name] for one in features}
        split: list[str] = ["val"] if number == 2 else ["train"]
        clock = {"base": episode.timestamps["base"]}
        made.append([Episode(data, clock, episode.final, {**episode.attributes, "split": list(split)})])
    return made


@pytest.mark.parametrize(
    ("name", "to", "target"),
    [
        ("x.hdf5", None, "robomimic"),
        ("x.H5", None, "robomimic"),
        ("x.npz", None, "ogbench"),
        ("x.mcap", None, "mcap"),
        ("x.zarr", None, "store"),
        ("x", None, "store"),
        ("x.zarr", "diffusion_policy", "diffusion_policy"),
        ("x.hdf5", "store", "store"),
    ],
)
def test_the_ending_chooses_where_no_one_says(name: str, to: str | None, target: str) -> None:
    assert target_format(Path(name), to) == target


def test_an_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(OneStrideError, match="target format: got 'rlds', available: store, robomimic, ogbench"):
        target_format(Path("x"), "rlds")


def test_every_writer_has_a_reader() -> None:
    assert {writer.format for writer in WRITERS.values()} <= set(READERS)


@pytest.mark.parametrize(("name", "to"), [("x.hdf5", None), ("x.npz", None), ("x", "diffusion_policy")])
def test_a_failed_export_leaves_nothing_and_harms_nothing(
    single: Store, tmp_path: Path, name: str, to: str | None
) -> None:
    before = single.dataset_id

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    there = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        convert(single.path, tmp_path / name, to=to, progress=interrupt)
    assert sorted(tmp_path.iterdir()) == there
    convert(single.path, tmp_path / name, to=to)
    with pytest.raises(OneStrideError, match="--overwrite"):
        convert(single.path, tmp_path / name, to=to)
    with pytest.raises(KeyboardInterrupt):
        convert(single.path, tmp_path / name, to=to, overwrite=True, progress=interrupt)
    back = convert(tmp_path / name, tmp_path / "back")
    assert (back.episodes, back.steps) == (3, 18)
    convert(single.path, tmp_path / name, to=to, overwrite=True)
    assert Store.open(single.path).dataset_id == before
    Store.open(single.path).verify()


def test_a_damaged_segment_is_one_error_and_no_export(single: Store, tmp_path: Path) -> None:
    chunk = next(single.path.glob("segments/*/data/action/c.*"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    for name in ("x.hdf5", "x.npz"):
        with pytest.raises(OneStrideError, match="altered after it was committed"):
            convert(single.path, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_a_companion_goes_with_its_file(single: Store, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    convert(single.path, folder / "x.npz")
    assert sorted(path.name for path in folder.iterdir()) == ["x-val.npz", "x.npz"]
    (folder / "x.npz").unlink()
    with pytest.raises(OneStrideError, match=r"x-val\.npz, which exists"):
        convert(single.path, folder / "x.npz")
    alone = Store.create(tmp_path / "alone", single.schema, single.provenance)
    alone.append([single.read_episode(0)])
    convert(alone.path, folder / "x.npz", overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["x.npz"], "an old validation part would not belong to it"
    (folder / "x-val.npz").write_text("precious")
    with pytest.raises(OneStrideError, match="expected a OGBench npz to overwrite"):
        convert(single.path, folder / "x.npz", overwrite=True)
    assert (folder / "x-val.npz").read_text() == "precious"


def test_from_one_foreign_format_to_another(single: Store, tmp_path: Path) -> None:
    convert(single.path, tmp_path / "x.hdf5")
    there = sorted(path.name for path in tmp_path.iterdir())
    seen: list[tuple[int, int]] = []
    report = convert(tmp_path / "x.hdf5", tmp_path / "y.npz", progress=lambda *done: seen.append(done))
    assert (report.format, report.to, report.steps) == ("robomimic HDF5", "ogbench", 18)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*there, "y.npz", "y-val.npz"])
    assert seen[-1] == (6, 6)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    convert(tmp_path / "y.npz", tmp_path / "back")
    back = Store.open(tmp_path / "back")
    for name in ("action", "state.qpos"):
        assert back.read(name).tobytes() == single.read(name).tobytes()


def test_a_source_is_never_written_over(single: Store, tmp_path: Path) -> None:
    convert(single.path, tmp_path / "x.hdf5")
    for destination in (tmp_path / "x.hdf5", tmp_path / "x.hdf5" / "y", tmp_path / "link.hdf5"):
        if destination.name.startswith("link"):
            destination.symlink_to(tmp_path / "x.hdf5")
        with pytest.raises(OneStrideError, match="which is only read"):
            convert(tmp_path / "x.hdf5", destination, overwrite=True)
    with h5py.File(tmp_path / "x.hdf5", "r") as file:
        data: Any = file["data"]
        assert len(data) == 3
    with pytest.raises(OneStrideError, match="which is only read"):
        convert(single.path, single.path / "inside.hdf5")


def test_an_option_that_means_nothing_is_refused(single: Store, tmp_path: Path) -> None:
    with pytest.raises(OneStrideError, match="option for store to robomimic: got 'mapping', available: leave_out"):
        convert(single.path, tmp_path / "x.hdf5", options=Options(mapping=tmp_path / "map.yaml"))


def test_a_store_needs_a_format(single: Store, tmp_path: Path) -> None:
    with pytest.raises(OneStrideError, match="expected --to or an ending"):
        convert(single.path, tmp_path / "other")
    empty = Store.create(tmp_path / "empty", single.schema, single.provenance)
    with pytest.raises(OneStrideError, match="expected a store with episodes"):
        convert(empty.path, tmp_path / "x.hdf5")


def test_placing_puts_everything_back_when_the_last_step_fails(tmp_path: Path) -> None:
    destination = tmp_path / "x"
    destination.write_text("old")
    with pytest.raises(RuntimeError), placed(destination) as work:
        work.write_text("new")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert destination.read_text() == "old"
    with placed(destination, (tmp_path / "gone",)) as work:
        work.write_text("new")
        work.with_name("beside").write_text("also new")
    assert sorted((path.name, path.read_text()) for path in tmp_path.iterdir()) == [
        ("beside", "also new"),
        ("x", "new"),
    ]


@pytest.mark.parametrize("struck", range(1, 5))
def test_ctrl_c_between_two_moves_takes_them_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, struck: int) -> None:
    """It strikes right before or right after one of the two renames."""
    (tmp_path / "x").write_text("old")
    rename, moments = Path.rename, iter(range(1, 5))

    def interrupted(source: Path, target: Path) -> Path:
        if source.name == target.name == "x" and next(moments, 0) == struck:
            raise KeyboardInterrupt
        moved = rename(source, target)
        if source.name == target.name == "x" and next(moments, 0) == struck:
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), placed(tmp_path / "x") as work:
        work.write_text("new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "old")]


def test_a_store_that_is_written_to_is_not_replaced(
    single: Store, tmp_path: Path, make_episode: MakeEpisode, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onestride.datasets.lock.PATIENCE", 0.05)
    convert(single.path, tmp_path / "x.hdf5")
    store.append([make_episode(0)])
    with store.writer(target_bytes=0) as writer:
        with pytest.raises(OneStrideError, match="expected to be the only writer"):
            convert(tmp_path / "x.hdf5", store.path, overwrite=True)
        writer.add(make_episode(1))
    assert Store.open(store.path).num_episodes == 2
    (tmp_path / f".{store.path.name}.12345678.old").mkdir()
    report = convert(tmp_path / "x.hdf5", store.path, overwrite=True, progress=lambda *_: _refused(store, make_episode))
    assert any(f".{store.path.name}.12345678.old, which lies beside it" in line for line in report.left_out)
    before = (store.path / "manifest.json").read_bytes()
    with pytest.raises(OneStrideError, match="got another one that took its place"):
        store.append([make_episode(2)])
    with pytest.raises(OneStrideError, match="got one changed since"):
        store.edit("nothing", store.manifest.segments)
    assert (store.path / "manifest.json").read_bytes() == before


def _refused(store: Store, make_episode: MakeEpisode) -> None:
    """What came in while the store is being replaced would go with it."""
    with pytest.raises(OneStrideError, match="expected to be the only writer"):
        store.append([make_episode(9)])


def test_a_source_that_the_disk_does_not_give_is_one_error(tmp_path: Path) -> None:
    """Reading a process's memory from its first byte is an input/output error, as of a broken disk."""
    with pytest.raises(
        OneStrideError, match=r"/proc/self/mem: expected a dataset that can be read, got: .*Input/output"
    ):
        convert(Path("/proc/self/mem"), tmp_path / "s")


def test_lengths_beyond_any_memory_are_one_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name in ("actions", "obs/x"):
            file.create_dataset(f"data/demo_0/{name}", shape=(1 << 44, 7), dtype="f4", chunks=(1024, 7))
    with pytest.raises(OneStrideError, match=r"x\.hdf5: expected a readable HDF5 file, got: .*allocate"):
        convert(tmp_path / "x.hdf5", tmp_path / "s")
    np.savez(tmp_path / "x.npz", actions=np.zeros((3, 2)))
    with (
        pytest.raises(OneStrideError, match=r"x\.npz: expected a readable npz file, got: .*allocate"),
        opened(tmp_path / "x.npz"),
    ):
        np.zeros(1 << 48)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("meta/info.json", "expected JSON, got"),
        ("zarr.json", "dataset format: got"),
        ("metadata.yaml", "expected rosbag2's metadata"),
    ],
)
def test_brackets_without_end_are_one_error(tmp_path: Path, name: str, says: str) -> None:
    path = tmp_path / "x" / name
    path.parent.mkdir(parents=True)
    path.write_text("rosbag2_bagfile_information: " * name.endswith("yaml") + "[" * 10_000)
    with pytest.raises(OneStrideError, match=says):
        convert(tmp_path / "x", tmp_path / "s")


def test_a_place_that_cannot_be_written_is_one_error(single: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(np.zeros(3).tobytes())
    with pytest.raises(OneStrideError, match="expected a writable place"):
        convert(single.path, tmp_path / "file" / "x.hdf5")

"""`convert` and `inspect`: what a person and what a program reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tyro

from onestride.datasets.commands_convert import Convert
from onestride.datasets.commands_inspect import Inspect
from onestride.datasets.schema import Episode
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def filled(store: Store, make_episode: MakeEpisode) -> Store:
    store.append([make_episode(number, length=4 + number) for number in range(3)])
    return store


def test_inspect_json_tells_what_the_store_holds(filled: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (filled.path / ".staging" / "half").mkdir()
    assert Inspect(filled.path, json=True)() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dataset_id"] == filled.dataset_id
    assert (told["episodes"], told["steps"], told["lengths"]) == (3, 15, {"min": 4, "max": 6})
    assert told["success_rate"] == pytest.approx(2 / 3)
    assert told["dropped"] == [".staging/half"]
    assert told["provenance"]["seed"] == 7
    features = {one["name"]: one for one in told["features"]}
    np.testing.assert_array_equal(features["position"]["max"], filled.read("position").max(axis=0).astype(float))
    assert features["position"]["units"] == ["m", "m", "m"]
    assert features["camera"]["mean"] is None


def test_inspect_shows_a_table(filled: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert Inspect(filled.path)() == 0
    shown = capsys.readouterr().out
    for word in (filled.dataset_id, "4 to 6 each", "0.67", "position", "toy/reach-v0", "nothing"):
        assert word in shown


def test_inspect_of_an_empty_store(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert Inspect(store.path, json=True)() == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["lengths"], told["success_rate"]) == (0, None, None)


def test_inspect_refuses_what_is_damaged(filled: Store, tmp_path: Path) -> None:
    with pytest.raises(OneStrideError, match="got nothing there"):
        Inspect(tmp_path / "nowhere")()
    with pytest.raises(OneStrideError, match="expected a store"):
        Inspect(tmp_path)()
    segment = filled.episodes[0].segment
    chunk = next(filled.path.glob("segments/*/data/action/c.*"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(OneStrideError, match=f"segment {segment}"):
        Inspect(filled.path)()
    (filled.path / "manifest.json").write_text('{"format"')
    with pytest.raises(OneStrideError, match=r"manifest\.json: expected a manifest"):
        Inspect(filled.path)()


def test_convert_reports_on_stdout_and_moves_on_stderr(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shared_data / "robomimic" / "lift_ph_10demos.hdf5"
    if not source.is_file():
        pytest.skip(f"no robomimic file at {source}")
    destination = tmp_path / "lift.zarr"
    assert Convert(source, destination, json=True)() == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["episodes"], told["steps"], told["format"]) == (10, 531, "robomimic HDF5")
    assert told["dataset_id"] == Store.open(destination).dataset_id
    assert Convert(source, destination, overwrite=True)() == 0
    shown = capsys.readouterr().out
    for word in ("kept", "changed", "left out", "says 9666, counted 531", "agentview_image"):
        assert word in shown


def test_the_command_line_takes_them_as_written() -> None:
    command = tyro.cli(Convert, args=["a.hdf5", "b.zarr", "--overwrite", "--json"])
    assert command == Convert(Path("a.hdf5"), Path("b.zarr"), overwrite=True, json=True)
    assert tyro.cli(Inspect, args=["b.zarr"]) == Inspect(Path("b.zarr"))

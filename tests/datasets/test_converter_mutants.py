"""Mutants of every format: either they still make sense, or they are one error of ours, and nothing is half there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestride.datasets.converters import convert
from onestride.datasets.store import Store
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError

ROWS = 12
NUMBERS = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
KEYS = ("observations", "actions", "terminals", "qpos")


def _rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _robomimic(folder: Path) -> Path:
    path = folder / "x.hdf5"
    with h5py.File(path, "w") as file:
        for name in ("demo_0", "demo_1"):
            demo = file.create_group(f"data/{name}")
            demo["obs/observations"], demo["actions"] = _rows(0, ROWS, 3), _rows(1, ROWS, 2)
            demo["states/qpos"], demo["dones"] = _rows(2, ROWS, 4), np.zeros(ROWS, np.int64)
            demo.attrs["num_samples"] = ROWS
    return path


def _ogbench(folder: Path) -> Path:
    path = folder / "x.npz"
    ends = np.arange(ROWS) % 6 == 5
    np.savez_compressed(
        path, observations=_rows(0, ROWS, 3), actions=_rows(1, ROWS, 2), terminals=ends, qpos=_rows(2, ROWS, 4)
    )
    return path


def _diffusion_policy(folder: Path) -> Path:
    path = folder / "x.zarr"
    root = zarr.create_group(str(path), zarr_format=2)
    data = root.create_group("data")
    for name, rows in {
        "observations": _rows(0, ROWS, 3),
        "action": _rows(1, ROWS, 2),
        "qpos": _rows(2, ROWS, 4),
    }.items():
        data.create_array(name, data=rows, chunks=(5, rows.shape[1]))
    root.create_group("meta").create_array("episode_ends", data=np.array([6, 12]))
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    "robomimic": _robomimic,
    "ogbench": _ogbench,
    "diffusion_policy": _diffusion_policy,
}
every_format = pytest.mark.parametrize("kind", MAKERS)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One sound dataset of each format, both as found and as we export it."""
    made = {}
    for kind, make in MAKERS.items():
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = make(folder)
        convert(made[kind], folder / "store")
        made[f"{kind} ours"] = folder / f"ours{made[kind].suffix}"
        convert(folder / "store", made[f"{kind} ours"], to=kind)
    return made


def _copy(original: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    copy = folder / original.name
    shutil.copytree(original, copy) if original.is_dir() else shutil.copy(original, copy)
    return copy


def _files(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def _sound_or_refused(path: Path) -> bool:
    """Convert; whether it was refused. In both cases the source is untouched and nothing is half there."""
    before = tree_sha256(path.parent)
    store = path.parent.with_name(f"{path.parent.name}.store")
    shutil.rmtree(store, ignore_errors=True)
    there = set(path.parent.parent.iterdir())
    try:
        convert(path, store)
    except OneStrideError as error:
        assert str(error).strip()
        assert "\n" not in str(error)
        assert set(path.parent.parent.iterdir()) == there
        refused = True
    else:
        Store.open(store).verify()
        refused = False
    assert tree_sha256(path.parent) == before, "the source was touched"
    return refused


@pytest.mark.parametrize("kind", [name for kind in MAKERS for name in (kind, f"{kind} ours")])
@NUMBERS
@given(data=st.data())
def test_truncated_files(kind: str, originals: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    path = _copy(originals[kind], tmp_path / "m")
    file = data.draw(st.sampled_from(_files(path)))
    content = file.read_bytes()
    kept = data.draw(st.integers(0, max(0, len(content) - 1)))
    file.write_bytes(content[:kept])
    if not path.is_dir():
        assert _sound_or_refused(path), "an archive without its end is no archive"
    else:
        _sound_or_refused(path)


@pytest.mark.parametrize("kind", [name for kind in MAKERS for name in (kind, f"{kind} ours")])
@NUMBERS
@given(data=st.data())
def test_flipped_bytes(kind: str, originals: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    path = _copy(originals[kind], tmp_path / "m")
    file = data.draw(st.sampled_from(_files(path)))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, max(0, len(content) - 1)))
        if content:
            content[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(bytes(content))
    _sound_or_refused(path)


@every_format
@NUMBERS
@given(data=st.data())
def test_missing_keys_wrong_lengths_and_what_is_not_finite(
    kind: str, originals: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    path = _copy(originals[kind], tmp_path / "m")
    change = data.draw(st.sampled_from(["missing", "short", "not finite", "other kind", "empty"]))
    key = data.draw(st.sampled_from(KEYS))
    value = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    row = data.draw(st.integers(0, ROWS - 1))
    edit: dict[str, Callable[..., bool]] = {
        "robomimic": _edit_robomimic,
        "ogbench": _edit_ogbench,
        "diffusion_policy": _edit_diffusion_policy,
    }
    needed = edit[kind](path, change, key, value, row)
    refused = _sound_or_refused(path)
    if needed:
        assert refused, f"{change} {key}"


def _changed(rows: np.ndarray, change: str, value: float, row: int) -> np.ndarray:
    if change == "short":
        return rows[:-1]
    if change == "empty":
        return rows[:0]
    if change == "other kind":
        return rows.astype("S8")
    rows = rows.astype(np.float32)
    rows[row] = value
    return rows


def _edit_robomimic(path: Path, change: str, key: str, value: float, row: int) -> bool:
    name = {"observations": "obs/observations", "terminals": "dones", "qpos": "states/qpos"}.get(key, key)
    with h5py.File(path, "r+") as file:
        demo: Any = file["data/demo_0"]
        rows = demo[name][...]
        del demo[name]
        if change != "missing":
            demo[name] = _changed(rows, change, value, row)
    return change in ("short", "not finite", "empty") or key == "actions"


def _edit_ogbench(path: Path, change: str, key: str, value: float, row: int) -> bool:
    content = dict(np.load(path))
    rows = content.pop(key)
    if change != "missing":
        content[key] = _changed(rows, change, value, row)
    np.savez(path, **content)
    return change == "not finite" or (key != "qpos" and not (key == "observations" and change == "other kind"))


def _edit_diffusion_policy(path: Path, change: str, key: str, value: float, row: int) -> bool:
    root: Any = zarr.open_group(str(path), mode="r+")
    group, name = ("meta", "episode_ends") if key == "terminals" else ("data", "action" if key == "actions" else key)
    rows = root[group][name][...]
    shutil.rmtree(path / group / name)
    if change != "missing":
        rows = _changed(rows, change, value, row % len(rows))
        root[group].create_array(name, data=rows.astype("S8") if rows.dtype.kind == "S" else rows)
    return change in ("short", "not finite", "empty") or name in ("action", "episode_ends")

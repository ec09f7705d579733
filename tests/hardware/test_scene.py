"""A scene's folder and its episode starts: read exactly as written, and refused by name where they cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from onestride.hardware.errors import OneStrideError
from onestride.hardware.scene import SCENE_FILE, Scene, find_scene, load_starts, save_starts, scene_folder

CONTENT = {
    "schema_version": 1,
    "environment": "bench/push-v0",
    "source": "bench 1.2",
    "robot": "ur5e_2f85",
    "model": "scene.xml",
    "physics_timestep": 0.002,
    "control_period": 0.05,
    "horizon": 200,
    "judged": "before",
    "objects": {"block": {"joint": "block_joint"}},
    "contacts": {"touch": {"body": "pad", "full_scale": 50.0}},
    "success": [{"object": "block", "target_body": "target", "tolerance": 0.04}],
}
finite = st.floats(allow_nan=False, allow_infinity=False)


def write(folder: Path, content: object = CONTENT, model: str | None = "<mujoco/>") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / SCENE_FILE).write_bytes(text)
    if model is not None:
        (folder / "scene.xml").write_text(model)
    return folder


# Scenes


def test_a_scene_is_read_as_written(tmp_path):
    scene = Scene.load(write(tmp_path / "scene"))
    assert json.loads(scene.description.model_dump_json(exclude={"camera"})) == CONTENT
    assert scene.model_path == tmp_path / "scene" / "scene.xml"


@pytest.mark.parametrize(("judged", "last"), [("before", 199), ("after", 200)])
def test_periods_follow_from_the_rates(tmp_path, judged, last):
    description = Scene.load(write(tmp_path, {**CONTENT, "judged": judged})).description
    assert description.substeps == 25
    assert description.last_judged == last


@pytest.mark.parametrize("name", [name for name in CONTENT if name not in ("schema_version", "judged")])
def test_a_missing_field_is_named(tmp_path, name):
    content = {key: value for key, value in CONTENT.items() if key != name}
    with pytest.raises(OneStrideError, match=rf"scene\.json: {name}: Field required"):
        Scene.load(write(tmp_path, content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version: .*less than or equal to 1"),
        ({"physics_timestep": 0.0}, "physics_timestep: .*greater than 0"),
        ({"horizon": 0}, "horizon: .*greater than 0"),
        ({"judged": "never"}, "judged: "),
        ({"colour": "blue"}, "colour: Extra inputs"),
        ({"success": [{"object": "block", "target_body": "t", "tolerance": float("nan")}]}, "tolerance: "),
    ],
)
def test_a_contradiction_is_named(tmp_path, change, message):
    with pytest.raises(OneStrideError, match=message):
        Scene.load(write(tmp_path, {**CONTENT, **change}))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b"null"])
def test_a_file_that_is_no_description_is_refused(tmp_path, content):
    with pytest.raises(OneStrideError, match=r"scene\.json: "):
        Scene.load(write(tmp_path, content))


def test_a_folder_without_a_scene_says_how_to_make_one(tmp_path):
    with pytest.raises(OneStrideError, match=r"not a scene: expected .*scene\.json; export one with `onestride scene"):
        Scene.load(tmp_path)


def test_a_scene_without_its_model_is_refused(tmp_path):
    with pytest.raises(OneStrideError, match=r"expected the model .*scene\.xml, which does not exist"):
        Scene.load(write(tmp_path, model=None))


# Where scenes are kept


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "onestride" / "scenes"


def test_each_version_of_an_environment_has_its_own_folder(cache):
    names = [("bench/push-v0", "bench 1.2"), ("bench/push-v0", "bench 1.3"), ("bench/push-v1", "bench 1.2")]
    folders = {scene_folder(environment, source) for environment, source in names}
    assert len(folders) == 3
    assert {folder.parent for folder in folders} == {cache}
    assert not any(" " in folder.name for folder in folders)


def test_the_newest_scene_is_found(cache):
    for version, age in (("bench 1.2", 100), ("bench 1.3", 50), ("bench 1.1", 200)):
        folder = write(scene_folder("bench/push-v0", version))
        os.utime(folder, (1e9 - age, 1e9 - age))
    scene_folder("bench/push-v0", "unfinished").mkdir()
    assert find_scene("bench/push-v0").folder == scene_folder("bench/push-v0", "bench 1.3")
    assert len(list(cache.iterdir())) == 4


def test_a_scene_that_was_never_made_says_how_to_make_it(cache):
    write(scene_folder("bench/push-v0", "bench 1.2"))
    with pytest.raises(
        OneStrideError, match="no scene of bench/pull-v0 on this machine; make it: onestride scene bench/pull"
    ):
        find_scene("bench/pull-v0")
    assert cache.is_dir()


# Episode starts


@settings(deadline=None)
@given(st.data(), arrays(float, array_shapes(min_dims=2, max_dims=2, max_side=5), elements=finite))
def test_starts_are_read_bit_for_bit(tmp_path_factory, data, states):
    seeds = data.draw(st.lists(st.integers(0, 2**31), min_size=len(states), max_size=len(states)))
    path = tmp_path_factory.mktemp("starts") / "starts.json"
    save_starts(path, seeds, states)
    read_seeds, read_states = load_starts(path)
    assert read_seeds == seeds
    assert read_states.tobytes() == states.tobytes()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"seeds": null, "states": [[1.0]]}',
        b'{"seeds": [1], "states": [[1.0], [2.0]]}',
        b'{"seeds": [1], "states": [1.0]}',
        b'{"seeds": [1, 2], "states": [[1.0], [2.0, 3.0]]}',
        b'{"seeds": [1], "states": [[NaN]]}',
        b'{"seeds": [1], "states": [["a"]]}',
    ],
)
def test_starts_that_are_none_are_refused(tmp_path, content):
    path = tmp_path / "starts.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OneStrideError, match=r"starts\.json: expected "):
        load_starts(path)


def test_nothing_unreadable_comes_from_an_unusual_dtype(tmp_path):
    save_starts(tmp_path / "starts.json", [1], np.array([[1, 2, 3]], dtype=np.int32).astype(float))
    assert load_starts(tmp_path / "starts.json")[1].dtype == np.float64

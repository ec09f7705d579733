"""The robomimic reader against the file itself, and against every trap such files are known for."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from onestride.datasets.converters import convert
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError

STANDARD = ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object"]


@pytest.fixture(scope="module")
def lift(shared_data: Path) -> Path:
    path = shared_data / "robomimic" / "lift_ph_10demos.hdf5"
    if not path.is_file():
        pytest.skip(f"no robomimic file at {path}")
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A small file of the same form, written by hand."""
    path = tmp_path / "toy.hdf5"
    random = np.random.default_rng(0)
    env = {"env_name": "Toy", "env_kwargs": {"control_freq": 10, "robots": ["Panda"], "reward_shaping": False}}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(env)
        for name, length in (("demo_10", 4), ("demo_2", 6)):
            demo = data.create_group(name)
            states = random.normal(size=(length + 1, 3))
            demo["obs/object"], demo["next_obs/object"] = states[:-1], states[1:]
            demo["obs/camera"] = np.zeros((length, 4, 4, 3), np.uint8)
            demo["next_obs/camera"] = np.zeros((length, 4, 4, 3), np.uint8)
            demo["actions"] = random.uniform(-1, 1, size=(length, 7))
            demo["rewards"] = np.arange(length) == length - 1
            demo["dones"] = (np.arange(length) == length - 1).astype(np.int64)
            demo["states/qpos"] = random.normal(size=(length, 2)).astype(np.float32)
            demo.attrs["model_file"] = "<mujoco/>"
    return path


def _open(path: Path) -> Any:
    return h5py.File(path, "r")


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    with h5py.File(path, "r+") as file:
        change(file["data"])


def _replace(data: Any, path: str, rows: np.ndarray) -> None:
    del data[path]
    data[path] = rows


def test_the_real_demonstrations_come_over_to_the_bit(lift: Path, tmp_path: Path) -> None:
    report = convert(lift, tmp_path / "lift.zarr")
    store = Store.open(tmp_path / "lift.zarr")
    assert (report.episodes, report.steps) == (store.num_episodes, store.num_steps) == (10, 531)
    with _open(lift) as file:
        for number in range(10):
            demo, episode = file[f"data/demo_{number}"], store.read_episode(number)
            low = [key for key in demo["obs"] if demo["obs"][key].ndim == 2]
            pictures = [key for key in demo["obs"] if demo["obs"][key].ndim == 4]
            assert (len(low), len(pictures)) == (11, 2)
            for key in [*low, *pictures]:
                assert episode.data[key].tobytes() == demo["obs"][key][...].tobytes()
                assert episode.final[key].tobytes() == demo["next_obs"][key][-1].tobytes()
            pairs = {"actions": "action", "rewards": "reward", "dones": "terminal", "states": "state.flat"}
            for theirs, ours in pairs.items():
                assert episode.data[ours].dtype == demo[theirs].dtype
                assert episode.data[ours].tobytes() == demo[theirs][...].tobytes()
            np.testing.assert_array_equal(episode.data["mask"], 1 - demo["dones"][...])
            xml = demo.attrs["model_file"].encode()
            split = "train" if f"demo_{number}".encode() in file["mask/train"][...] else "valid"
            packed = str(episode.attributes.pop("model_file"))
            assert zlib.decompress(base64.b64decode(packed)) == xml
            assert episode.attributes == {
                "demo": f"demo_{number}",
                "split": [split],
                "success": True,
                "model_file_sha256": hashlib.sha256(xml).hexdigest(),
            }
            np.testing.assert_array_equal(np.diff(episode.timestamps["base"]), 50_000_000)
        assert store.provenance.extra["env_args"] == json.loads(file["data"].attrs["env_args"])
    schema = store.schema
    assert [one.name for one in schema.by_role("observation")][:4] == STANDARD
    assert schema.feature("action").names == ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
    assert schema.feature("robot0_eef_quat").names == ("qx", "qy", "qz", "qw")
    assert schema.feature("robot0_eef_pos").units == ("m", "m", "m")
    assert (schema.environment, schema.robot, schema.control_rate) == ("robomimic/Lift", None, 20.0)
    assert schema.label_source == "human"
    assert store.provenance.sources[0].sha256 == hashlib.sha256(lift.read_bytes()).hexdigest()
    assert "synthetic" in str(store.provenance.extra["timestamps"])
    assert any("9666" in line and "531" in line for line in report.changed)
    assert schema.feature("agentview_image").dtype == "uint8"
    assert schema.feature("agentview_image").role == "observation"
    assert report.left_out == []


def test_windows_of_the_real_demonstrations_use_the_final_observation(lift: Path, tmp_path: Path) -> None:
    convert(lift, tmp_path / "lift.zarr")
    windows = Windows(Store.open(tmp_path / "lift.zarr"), observations=STANDARD, horizon=1)
    batch = windows.at(np.arange(531))
    with _open(lift) as file:
        rows = [
            np.concatenate([file[f"data/demo_{number}/next_obs/{key}"][...] for key in STANDARD], axis=1)
            for number in range(10)
        ]
    np.testing.assert_array_equal(batch["next_observations"][:, 0], np.concatenate(rows).astype(np.float32))


def test_converting_twice_gives_the_same_dataset(toy: Path, tmp_path: Path) -> None:
    ids = {convert(toy, tmp_path / name).dataset_id for name in ("a", "b")}
    assert len(ids) == 1


def test_gaps_groups_and_attributes(toy: Path, tmp_path: Path) -> None:
    _edit(toy, lambda data: data["demo_2"].attrs.update({"num_samples": 99, "operator": "Ada", "list": [1, 2]}))
    _edit(toy, lambda data: data.attrs.update({"total": 3901, "date": "1 5 2021"}))
    _edit(toy, lambda data: data.parent.create_group("rest"))
    report = convert(toy, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert [info.attributes["demo"] for info in store.episodes] == ["demo_2", "demo_10"]
    assert [info.length for info in store.episodes] == [6, 4]
    assert store.episodes[0].attributes["operator"] == "Ada"
    assert store.schema.feature("state.qpos").dtype == "float32"
    assert store.schema.control_rate == 10.0
    assert store.schema.feature("action").names == (), "no OSC_POSE, no names"
    assert store.schema.feature("reward").dtype == "bool", "as recorded"
    assert store.provenance.extra["attributes"] == {"date": "1 5 2021"}
    text = "\n".join([*report.changed, *report.left_out])
    for told in (
        "says 3901, counted 10",
        "num_samples: wrong in 1",
        "attribute list",
        "rest: not",
    ):
        assert told in text
    store.verify()


def test_next_obs_that_tells_more_is_kept(toy: Path, tmp_path: Path) -> None:
    """One bit of difference is enough: -0.0 is not 0.0."""

    def change(data: Any) -> None:
        data["demo_2/obs/object"][3] = 0.0
        data["demo_2/next_obs/object"][2] = -0.0

    _edit(toy, change)
    report = convert(toy, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert any("next_obs/object: differs" in line and "demo_2" in line for line in report.changed)
    with _open(toy) as file:
        kept = store.read_episode(0)
        assert kept.data["next_object"].tobytes() == file["data/demo_2/next_obs/object"][...].tobytes()
        assert kept.final["object"].tobytes() == file["data/demo_2/next_obs/object"][-1].tobytes()


def test_what_is_missing_is_missing_and_what_is_partial_is_reported(toy: Path, tmp_path: Path) -> None:
    def change(data: Any) -> None:
        for demo in data.values():
            del demo["dones"], demo["next_obs"], demo["states"]
        del data["demo_2/rewards"], data.attrs["env_args"]

    _edit(toy, change)
    report = convert(toy, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert {one.role for one in store.schema.features} == {"observation", "action"}
    assert "rewards: only in 1 of 2 demonstrations" in report.left_out
    assert "env_args: missing or not a JSON object" in report.left_out
    assert any("20 Hz assumed" in line for line in report.changed)
    assert store.schema.environment is None
    assert store.read_episode(0).final == {}
    assert "success" not in store.episodes[0].attributes
    assert Windows(store, observations=None, horizon=2).sample(4)["masks"].min() == 1.0


def _nan_action(data: Any) -> None:
    data["demo_2/actions"][5, 2] = np.nan


def _nan_after(data: Any) -> None:
    data["demo_10/next_obs/object"][3, 1] = np.inf


def _short_rewards(data: Any) -> None:
    _replace(data, "demo_10/rewards", np.zeros(3))


def _other_width(data: Any) -> None:
    _replace(data, "demo_10/obs/object", np.zeros((4, 5)))


def _no_actions(data: Any) -> None:
    del data["demo_10/actions"]


def _no_steps(data: Any) -> None:
    _replace(data, "demo_2/actions", np.zeros((0, 7)))


def _no_demos(data: Any) -> None:
    for name in list(data):
        del data[name]


def _no_data(data: Any) -> None:
    data.parent.move("data", "dada")


def _broken_link(data: Any) -> None:
    del data["demo_2"]
    data["demo_2"] = h5py.SoftLink("/nowhere")


def _odd_key(data: Any) -> None:
    for demo in data.values():
        demo["obs/left arm"] = demo["obs/object"][...]


def _odd_name(data: Any) -> None:
    data.move("demo_2", b"demo_\xdf")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_nan_action, r"data/demo_2/actions: expected finite numbers, got nan at step 5, action\[2\]"),
        (_nan_after, r"data/demo_10/next_obs/object: expected finite numbers, got inf at step 3, object\[1\]"),
        (_short_rewards, "data/demo_10/rewards: expected 4 rows as in actions"),
        (_other_width, "data/demo_10/obs/object: expected rows of"),
        (_no_actions, "data/demo_10/actions: expected actions of shape .*got none"),
        (_no_steps, "data/demo_2/actions: expected actions"),
        (_no_demos, "expected groups data/demo_<i>, got none"),
        (_no_data, "expected a group 'data', got: dada"),
        (_broken_link, "expected a readable HDF5 file"),
        (_odd_key, "expected usable feature names, got: .*'left arm'"),
        (_odd_name, "expected a readable HDF5 file"),
    ],
)
def test_a_spoilt_file_is_one_error_and_no_half_store(
    toy: Path, tmp_path: Path, spoil: Callable[[Any], None], says: str
) -> None:
    _edit(toy, spoil)
    with pytest.raises(OneStrideError, match=says) as caught:
        convert(toy, tmp_path / "s")
    assert str(caught.value).startswith(str(toy))
    assert [path.name for path in tmp_path.iterdir()] == ["toy.hdf5"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_error_and_no_half_store(toy: Path, tmp_path: Path, share: float) -> None:
    content = toy.read_bytes()
    toy.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(OneStrideError, match=r"toy\.hdf5"):
        convert(toy, tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.hdf5"]


def test_noise_in_the_file_is_never_a_foreign_traceback(toy: Path, tmp_path: Path) -> None:
    """Overwritten stretches either do not matter, or are one error of ours."""
    content = toy.read_bytes()
    random = np.random.default_rng(1)
    refused = 0
    for trial in range(30):
        place = int(random.integers(8, len(content) - 64))
        toy.write_bytes(content[:place] + random.bytes(64) + content[place + 64 :])
        try:
            convert(toy, tmp_path / f"s{trial}")
        except OneStrideError:
            refused += 1
            assert not (tmp_path / f"s{trial}").exists()
    assert refused > 0


def test_ctrl_c_leaves_no_half_store(toy: Path, tmp_path: Path) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(toy, tmp_path / "s", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["toy.hdf5"]


def test_the_format_is_told_by_content(toy: Path, tmp_path: Path) -> None:
    disguised = toy.rename(tmp_path / "data.npz")
    assert convert(disguised, tmp_path / "s").format == "robomimic HDF5"
    (tmp_path / "text.hdf5").write_text("not HDF5")
    with pytest.raises(OneStrideError, match=r"unknown dataset format: .*available: robomimic HDF5"):
        convert(tmp_path / "text.hdf5", tmp_path / "t")
    with pytest.raises(OneStrideError, match="got nothing there"):
        convert(tmp_path / "missing.hdf5", tmp_path / "t")


def test_an_existing_destination_is_kept_unless_told(toy: Path, tmp_path: Path) -> None:
    destination = tmp_path / "s"
    first = convert(toy, destination).dataset_id
    with pytest.raises(OneStrideError, match="--overwrite"):
        convert(toy, destination)
    _edit(toy, _nan_action)
    with pytest.raises(OneStrideError, match="finite"):
        convert(toy, destination, overwrite=True)
    assert Store.open(destination).dataset_id == first, "a failed conversion costs nothing"
    _edit(toy, lambda data: data["demo_2/actions"].write_direct(np.ones((6, 7))))
    assert convert(toy, destination, overwrite=True).dataset_id != first
    Store.open(destination).verify()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").touch()
    with pytest.raises(OneStrideError, match="expected a store to overwrite"):
        convert(toy, tmp_path / "folder", overwrite=True)
    with pytest.raises(OneStrideError, match="which is only read"):
        convert(toy, toy, overwrite=True)
    assert (tmp_path / "folder" / "precious").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "s", "toy.hdf5"]

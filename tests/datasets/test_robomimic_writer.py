"""The robomimic writer: round trips to the bit, and robomimic's own loader on what we write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from real_robomimic import sequence_dataset

from onestride.datasets.converters import Options, Report, convert
from onestride.datasets.converters.robomimic_environment import upgraded
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

MakeEpisode = Callable[..., Episode]
SameEpisode = Callable[[Episode, Episode], bool]


@pytest.fixture(scope="module")
def lift(shared_data: Path) -> Path:
    path = shared_data / "robomimic" / "lift_ph_10demos.hdf5"
    if not path.is_file():
        pytest.skip(f"no robomimic file at {path}")
    return path


@pytest.fixture(scope="module")
def lift_again(lift: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The real file, through a store, as a robomimic file again."""
    folder = tmp_path_factory.mktemp("lift")
    convert(lift, folder / "store")
    return folder / "again.hdf5", convert(folder / "store", folder / "again.hdf5")


def _open(path: Path, mode: str = "r") -> Any:
    return h5py.File(path, mode)


def contents(path: Path) -> dict[str, Any]:
    """Every data set and every attribute of an HDF5 file, bits and dtypes."""
    found: dict[str, Any] = {}

    def visit(name: str, node: Any) -> None:
        for key, value in node.attrs.items():
            found[f"{name}@{key}"] = value if isinstance(value, str) else np.asarray(value).tobytes()
        if isinstance(node, h5py.Dataset):
            found[name] = (node.dtype.str, node.shape, node[...].tobytes())

    with _open(path) as file:
        file.visititems(visit)
    return found


def test_hdf5_to_store_to_hdf5_is_the_same_to_the_bit(lift: Path, lift_again: tuple[Path, Report]) -> None:
    before, after = contents(lift), contents(lift_again[0])
    assert len(before) > 300
    assert [name for name in before if name not in after] == []
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"data@env_args", "data@total"}, "the one upgraded, the other counted"
    added = {name for name in after if name not in before}
    assert added == {"data@onestride", *(f"data/demo_{number}@onestride" for number in range(10))}
    with _open(lift_again[0]) as file:
        assert file["data"].attrs["total"] == 531


def test_robomimics_own_loader_sees_what_was_recorded(lift: Path, lift_again: tuple[Path, Report]) -> None:
    keys = ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object", "agentview_image"]
    rows = ["actions", "rewards", "dones"]
    settings = {"seq_length": 4, "frame_stack": 1, "filter_by_attribute": "train"}
    theirs = sequence_dataset(lift, keys, rows, **settings)
    ours = sequence_dataset(lift_again[0], keys, rows, **settings)
    assert (ours.n_demos, len(ours)) == (theirs.n_demos, len(theirs)) == (7, ours.total_num_sequences)
    for index in range(0, len(theirs), 37):
        left, right = theirs[index], ours[index]
        assert left.keys() == right.keys()
        for name in rows:
            np.testing.assert_array_equal(left[name], right[name])
        for group in ("obs", "next_obs"):
            for key in keys:
                np.testing.assert_array_equal(left[group][key], right[group][key])


def test_robosuite_makes_the_environment_from_the_exported_arguments(lift_again: tuple[Path, Report]) -> None:
    robosuite = pytest.importorskip("robosuite", reason="needs robosuite (requirements/stage2.txt)")
    with _open(lift_again[0]) as file:
        arguments = json.loads(file["data"].attrs["env_args"])
    settings = {
        key: value for key, value in arguments["env_kwargs"].items() if "camera" not in key and "gpu" not in key
    }
    settings.update(use_camera_obs=False, has_offscreen_renderer=False)
    environment = robosuite.make(arguments["env_name"], **settings)
    arm = environment.robots[0].part_controllers["right"]
    assert (environment.action_dim, environment.control_freq, arm.input_type) == (7, 20, "delta")
    np.testing.assert_allclose(arm.kp, 150.0)
    np.testing.assert_allclose(arm.kd, 2 * np.sqrt(150.0), err_msg="damping 1 is a ratio in robosuite 1.5")
    np.testing.assert_allclose(arm.output_max, [0.05, 0.05, 0.05, 0.5, 0.5, 0.5])
    environment.close()


def test_arguments_in_the_new_form_stay_as_they_are() -> None:
    report = Report()
    new = {"env_name": "Lift", "env_kwargs": {"controller_configs": {"type": "BASIC", "body_parts": {}}}}
    assert upgraded(new, report) == new
    assert upgraded({}, report) == {}
    assert report.changed == []


def test_two_robots_get_a_configuration_each() -> None:
    pytest.importorskip("robosuite", reason="needs robosuite (requirements/stage2.txt)")
    part = {"type": "OSC_POSE", "kp": 150, "damping": 1, "control_delta": False}
    kwargs = {"robots": ["Panda", "Sawyer"], "controller_configs": [part, part]}
    made: Any = upgraded({"env_name": "TwoArmLift", "env_kwargs": kwargs}, Report())
    configs = made["env_kwargs"]["controller_configs"]
    assert len(configs) == 2
    for config in configs:
        arm = config["body_parts"]["right"]
        assert (arm["type"], arm["input_type"], arm["damping_ratio"]) == ("OSC_POSE", "absolute", 1)
        assert "damping" not in arm
    assert part == {"type": "OSC_POSE", "kp": 150, "damping": 1, "control_delta": False}, "not changed in place"


def test_store_to_hdf5_to_store_is_the_same_to_the_bit(
    store: Store, make_episode: MakeEpisode, same_episode: SameEpisode, tmp_path: Path
) -> None:
    """Measured clocks, final values, odd attributes: all of it but the second clock."""
    schema = store.schema.model_copy(
        update={"features": tuple(one for one in store.schema.features if one.stream == "base")}
    )
    single = Store.create(tmp_path / "single", schema, Provenance.now("test", seed=3))
    odd = {
        "list": [1, [2.5, None]],
        "split": ["train", "b"],
        "": "empty",
        "num_samples": 7,
        "big": 2**80,
        "demo": "x/y",
    }
    for number in range(3):
        episode = make_episode(number, length=5 + number)
        names = [one.name for one in schema.features]
        attributes = {**episode.attributes, **(odd if number == 1 else {})}
        clock = episode.timestamps["base"] + (np.arange(5 + number) ** 2 if number == 2 else 0)
        single.append([Episode({n: episode.data[n] for n in names}, {"base": clock}, episode.final, attributes)])
    convert(single.path, tmp_path / "x.hdf5")
    report = convert(tmp_path / "x.hdf5", tmp_path / "back")
    back = Store.open(tmp_path / "back")
    assert back.schema == single.schema
    assert back.provenance.parents == (single.dataset_id,)
    assert back.provenance.extra["parent"]["seed"] == 3  # type: ignore[index, call-overload]
    for number in range(3):
        assert same_episode(back.read_episode(number), single.read_episode(number)), number
        assert list(back.episodes[number].attributes) == list(single.episodes[number].attributes)
    assert report.left_out == []


def test_names_that_collide_keep_a_data_set_each(store: Store, make_episode: MakeEpisode, tmp_path: Path) -> None:
    _, state, action, *_ = store.schema.features
    states = tuple(state.model_copy(update={"name": name}) for name in ("state.x", "x"))
    schema = store.schema.model_copy(update={"features": (*states, action)})
    whole = Store.create(tmp_path / "whole", schema, Provenance.now("test"))
    known = make_episode(1, length=5)
    data = {"state.x": np.zeros((5, 2, 2)), "x": np.ones((5, 2, 2)), "action": known.data["action"]}
    whole.append([Episode(data, {"base": known.timestamps["base"]}, {}, {})])
    convert(whole.path, tmp_path / "x.hdf5")
    convert(tmp_path / "x.hdf5", tmp_path / "back")
    back = Store.open(tmp_path / "back")
    assert back.schema == whole.schema
    for name, rows in data.items():
        np.testing.assert_array_equal(back.read(name), rows, err_msg=name)


def test_a_second_clock_comes_onto_the_control_clock_and_is_told(
    store: Store, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    store.append([make_episode(number, length=6) for number in range(2)])
    report = convert(store.path, tmp_path / "x.hdf5")
    assert any("'video' (camera): the latest row" in line for line in report.changed)
    episode = store.read_episode(0)
    base, video = episode.timestamps["base"], episode.timestamps["video"]
    expected = [episode.data["camera"][max(0, int((video <= now).sum()) - 1)] for now in base]
    with _open(tmp_path / "x.hdf5") as file:
        np.testing.assert_array_equal(file["data/demo_0/obs/camera"][...], expected)
        assert "next_obs/camera" not in file["data/demo_0"]
    assert any("next_obs/camera" in line for line in report.left_out)
    assert Store.open(store.path).dataset_id == store.dataset_id


def test_unknown_last_observations_are_not_made_up(store: Store, make_episode: MakeEpisode, tmp_path: Path) -> None:
    store.append([make_episode(number, length=6, final=number != 1) for number in range(3)])
    report = convert(store.path, tmp_path / "x.hdf5")
    assert any("next_obs/position: not every episode" in line for line in report.left_out)
    with _open(tmp_path / "x.hdf5") as file:
        assert all("next_obs/position" not in demo for demo in file["data"].values())


def test_what_robomimic_adds_to_our_file_is_read(lift_again: tuple[Path, Report], tmp_path: Path) -> None:
    copy = tmp_path / "copy.hdf5"
    copy.write_bytes(lift_again[0].read_bytes())
    with _open(copy, "r+") as file:
        file["mask/20_percent"] = np.array([b"demo_0", b"demo_4"])
        file["data/demo_3"].attrs["quality"] = 4
        file["data/demo_5"].attrs["num_samples"] = 3
        for demo in file["data"].values():
            demo["obs/extra"] = np.ones((len(demo["actions"]), 2), np.float32)
    report = convert(copy, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    splits = [info.attributes["split"] for info in store.episodes]
    assert "20_percent" in splits[0] and "20_percent" in splits[4] and "20_percent" not in splits[1]  # type: ignore[operator]
    assert store.episodes[3].attributes["quality"] == 4
    assert store.schema.feature("extra").role == "observation"
    assert any("num_samples: wrong in 1" in line for line in report.changed)


def test_left_out_on_demand(lift: Path, tmp_path: Path) -> None:
    options = Options(leave_out=("obs/agentview_image", "robot0_eye_in_hand_image"))
    report = convert(lift, tmp_path / "s", options=options)
    assert not any("image" in one.name for one in Store.open(tmp_path / "s").schema.features)
    assert sum("as asked for" in line for line in report.left_out) == 2
    with pytest.raises(OneStrideError, match="data set to leave out: got 'nothing', available: obs/"):
        convert(lift, tmp_path / "t", options=Options(leave_out=("nothing",)))


def test_a_scalar_action_becomes_a_column(tmp_path: Path) -> None:
    features = (
        Feature(name="x", role="observation", shape=(2,), dtype="float32"),
        Feature(name="push", role="action", shape=(), dtype="float32"),
    )
    schema = Schema(features=features, control_rate=None, label="push", label_source="sent")
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    push = np.linspace(0, 1, 4, dtype=np.float32)
    store.append([Episode({"x": np.ones((4, 2), np.float32), "push": push}, {"base": synthetic_clock(4, 7.0)})])
    report = convert(store.path, tmp_path / "x.hdf5")
    with _open(tmp_path / "x.hdf5") as file:
        np.testing.assert_array_equal(file["data/demo_0/actions"][...], push[:, None])
        assert json.loads(file["data"].attrs["env_args"])["env_name"] == "unknown"
    assert any("env_args: none were recorded" in line for line in report.changed)

"""MCAP as we write it: read back to the bit, and read by plain `mcap`, by `rosbags` and by our own rosbag2 reader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestride.datasets.converters import Options, Report, convert
from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import DTYPES, Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

mcap_reader = pytest.importorskip("mcap.reader", reason="needs the extra `rosbag`")
highlevel = pytest.importorskip("rosbags.highlevel", reason="needs the extra `rosbag`")

Same = Callable[[Episode, Episode], bool]
MakeEpisode = Callable[..., Episode]


def _feature(name: str, role: Any, shape: tuple[int, ...], dtype: str, **more: Any) -> Feature:
    return Feature(name=name, role=role, shape=shape, dtype=dtype, **more)


@pytest.fixture
def arm(tmp_path: Path) -> Store:
    """Joints, an action, a camera and a second rate; measured times."""
    schema = Schema(
        features=(
            _feature("q", "observation", (2,), "float32", names=("a", "b"), units=("rad",) * 2),
            _feature("state.qvel", "state", (2,), "float64", names=("a", "b"), units=("rad/s",) * 2),
            _feature("action", "action", (2,), "float32"),
            _feature("reward", "reward", (), "float16"),
            _feature("done", "terminal", (), "bool"),
            _feature("camera", "observation", (4, 6, 3), "uint8", stream="camera"),
            _feature("depth", "observation", (4, 6), "uint16", stream="camera"),
        ),
        control_rate=50.0,
        label="action",
        label_source="human",
    )
    store = Store.create(tmp_path / "arm", schema, Provenance.now("test"))
    episodes = []
    for number, begins in enumerate((10**18, 10**18 + 10**10)):
        random = np.random.default_rng(number)
        lengths = {"base": 9, "camera": 3}
        clocks = {
            "base": begins + np.cumsum(random.integers(1, 40_000_000, 9)),
            "camera": begins + np.cumsum(random.integers(1, 99_000_000, 3)),
        }
        data = {
            one.name: (random.normal(size=(lengths[one.stream], *one.shape)) * 90).astype(one.dtype)
            for one in schema.features
        }
        final = {"q": random.normal(size=2).astype(np.float32)}
        episodes.append(Episode(data, clocks, final, {"task": "ü", "n": number}))
    store.append(episodes)
    return store


def test_what_returns_is_what_left(arm: Store, tmp_path: Path, same_episode: Same) -> None:
    report = convert(arm.path, tmp_path / "out.mcap")
    assert report.to == "mcap"
    assert "q: /q, sensor_msgs/msg/JointState" in report.kept
    assert "camera: /camera, sensor_msgs/msg/Image" in report.kept
    back = convert(tmp_path / "out.mcap", tmp_path / "back")
    store = Store.open(tmp_path / "back")
    assert back.format == "onestride MCAP"
    assert store.schema == arm.schema
    assert all(same_episode(arm.read_episode(number), store.read_episode(number)) for number in range(2))
    assert store.dataset_id == arm.dataset_id, "the same bytes"
    assert store.provenance.parents == (arm.dataset_id,)


def test_any_ros_tool_reads_it(arm: Store, tmp_path: Path) -> None:
    """Plain mcap sees topics, definitions and times; rosbags decodes every message by the definitions in the file."""
    convert(arm.path, tmp_path / "out.mcap")
    with (tmp_path / "out.mcap").open("rb") as file:
        reader = mcap_reader.make_reader(file)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        assert {one.encoding for one in summary.schemas.values()} == {"ros2msg"}
        times = [message.log_time for _, channel, message in reader.iter_messages() if channel.topic == "/q"]
    assert times == arm.read_time().tolist()
    with highlevel.AnyReader([tmp_path / "out.mcap"]) as reader:
        found: dict[str, list[Any]] = {}
        for connection, _, raw in reader.messages():
            found.setdefault(connection.topic, []).append(reader.deserialize(raw, connection.msgtype))
    assert [tuple(message.name) for message in found["/q"]] == [("a", "b")] * 18
    np.testing.assert_array_equal([message.position for message in found["/q"]], arm.read("q"))
    stamps = [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in found["/q"]]
    assert stamps == times
    np.testing.assert_array_equal([message.velocity for message in found["/state/qvel"]], arm.read("state.qvel"))
    np.testing.assert_array_equal([message.data for message in found["/action"]], arm.read("action"))
    shown = found["/camera"][4]
    assert (shown.encoding, shown.height, shown.width, shown.step) == ("rgb8", 4, 6, 18)
    assert shown.data.tobytes() == arm.read("camera")[4].tobytes()
    events = [json.loads(message.data) for message in found["/onestride/episode"]]
    assert [one["event"] for one in events] == ["begin", "end"] * 2
    assert events[2]["attributes"] == {"task": "ü", "n": 1}


def test_our_own_rosbag2_reader_takes_it_with_a_mapping(arm: Store, tmp_path: Path) -> None:
    from onestride.datasets.converters import rosbag2

    convert(arm.path, tmp_path / "out.mcap")
    mapping = {
        "base": "/q",
        "topics": {
            "/q": {"features": {"q": {"role": "observation", "field": "position", "joints": ["b", "a"]}}},
            "/action": {"align": "hold", "features": {"action": {"role": "action", "field": "data"}}},
            "/camera": {"features": {"camera": {"role": "observation"}}},
        },
        "episodes": {"by": "gap", "seconds": 1.0},
    }
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(mapping))
    source = rosbag2.read(tmp_path / "out.mcap", Report(), Options(mapping=tmp_path / "m.yaml"))
    episodes = list(source.episodes)
    assert len(episodes) == 2
    for number, episode in enumerate(episodes):
        expected = arm.read_episode(number)
        np.testing.assert_array_equal(episode.data["q"], expected.data["q"][:, ::-1])
        np.testing.assert_array_equal(episode.data["action"], expected.data["action"])
        np.testing.assert_array_equal(episode.data["camera"], expected.data["camera"])
        np.testing.assert_array_equal(episode.timestamps["base"], expected.timestamps["base"])


def test_episodes_that_overlap_are_moved_apart_and_back(
    tmp_path: Path, schema: Schema, make_episode: MakeEpisode, same_episode: Same
) -> None:
    """Synthetic clocks all begin at nothing; in one recording they cannot."""
    store = Store.create(tmp_path / "toy", schema, Provenance.now("test"))
    store.append([make_episode(number, number + 2) for number in range(3)])
    report = convert(store.path, tmp_path / "out.mcap")
    assert any("2 of 3 episodes moved" in line for line in report.changed)
    with (tmp_path / "out.mcap").open("rb") as file:
        times = [
            message.log_time for _, _, message in mcap_reader.make_reader(file).iter_messages(log_time_order=False)
        ]
    assert times == sorted(times)
    convert(tmp_path / "out.mcap", tmp_path / "back")
    back = Store.open(tmp_path / "back")
    assert all(same_episode(store.read_episode(number), back.read_episode(number)) for number in range(3))


SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
ROLES = st.sampled_from(("observation", "state", "info"))
PARTS = st.lists(st.tuples(SHAPES, st.sampled_from(DTYPES), ROLES, st.sampled_from(("base", "slow"))), max_size=5)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PARTS, st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 99), st.booleans())
def test_any_store_returns_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    same_episode: Same,
    parts: list[tuple[tuple[int, ...], str, Any, str]],
    lengths: list[int],
    seed: int,
    joints: bool,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    others = [_feature(f"f-{n}.{n}", role, shape, dtype, stream=s) for n, (shape, dtype, role, s) in enumerate(parts)]
    more: dict[str, Any] = {"names": ("a", "b"), "units": ("rad", "rad")} if joints else {}
    action = _feature("action", "action", (2,), "float32", **more)
    schema = Schema(features=(*others, action), control_rate=None, label="action", label_source="unknown")
    random = np.random.default_rng(seed)
    store = Store.create(folder / "s", schema, Provenance.now("test"))
    for number, length in enumerate(lengths):
        rows = {"base": length, "slow": int(random.integers(0, 3))}
        data = {one.name: _bits(one, rows[one.stream], random) for one in schema.features}
        clocks = {name: np.cumsum(random.integers(-2 if name == "x" else 0, 9, rows[name])) for name in schema.streams}
        store.append([Episode(data, {name: clock - 5 for name, clock in clocks.items()}, {}, {"number": number})])
    convert(store.path, folder / "out.mcap")
    convert(folder / "out.mcap", folder / "back")
    back = Store.open(folder / "back")
    assert back.schema == schema
    assert all(same_episode(store.read_episode(n), back.read_episode(n)) for n in range(len(lengths)))
    with highlevel.AnyReader([folder / "out.mcap"]) as reader:
        for connection, _, raw in reader.messages():
            reader.deserialize(raw, connection.msgtype)


def _bits(feature: Feature, length: int, random: np.random.Generator) -> np.ndarray:
    """Every bit pattern but the infinite ones."""
    if feature.dtype == "bool":
        return random.integers(0, 2, (length, *feature.shape)).astype(bool)
    size = length * feature.size * np.dtype(feature.dtype).itemsize
    values = np.frombuffer(random.bytes(size), feature.dtype).reshape(length, *feature.shape).copy()
    if values.dtype.kind == "f":
        values[~np.isfinite(values)] = -0.0
    return values


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_one_error_and_no_half_store(arm: Store, tmp_path: Path, share: float) -> None:
    path = tmp_path / "out.mcap"
    convert(arm.path, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(OneStrideError, match=r"out\.mcap: expected") as caught:
        convert(path, tmp_path / "back")
    assert "\n" not in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["arm", "out.mcap"]


def test_noise_is_refused_or_does_not_matter(arm: Store, tmp_path: Path, same_episode: Same) -> None:
    """Chunks carry checksums: what is read is what was written."""
    path = tmp_path / "out.mcap"
    convert(arm.path, path)
    content = path.read_bytes()
    random = np.random.default_rng(1)
    refused = 0
    for trial in range(60):
        place = int(random.integers(64, len(content) - 8))
        path.write_bytes(content[:place] + random.bytes(8) + content[place + 8 :])
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        try:
            convert(path, tmp_path / f"s{trial}")
        except OneStrideError:
            refused += 1
            assert not (tmp_path / f"s{trial}").exists()
            continue
        finally:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == before
        store = Store.open(tmp_path / f"s{trial}")
        assert all(same_episode(arm.read_episode(number), store.read_episode(number)) for number in range(2))
    assert refused > 30


def test_what_is_left_out_on_demand(arm: Store, tmp_path: Path) -> None:
    convert(arm.path, tmp_path / "out.mcap", options=Options(leave_out=("camera", "depth")))
    convert(tmp_path / "out.mcap", tmp_path / "back")
    store = Store.open(tmp_path / "back")
    assert [one.name for one in store.schema.features] == ["q", "state.qvel", "action", "reward", "done"]
    assert store.schema.streams == ("base",)
    np.testing.assert_array_equal(store.read("action"), arm.read("action"))


def test_times_beyond_what_ros_can_hold_are_refused(tmp_path: Path) -> None:
    schema = Schema(
        features=(_feature("action", "action", (1,), "float32"),), control_rate=1.0, label="action", label_source="sent"
    )
    store = Store.create(tmp_path / "s", schema, Provenance.now("test"))
    clock = synthetic_clock(2, 1.0) + (1 << 62)
    store.append([Episode({"action": np.zeros((2, 1), np.float32)}, {"base": clock}, {}, {})])
    with pytest.raises(OneStrideError, match="expected times before 2038"):
        convert(store.path, tmp_path / "out.mcap")
    assert not (tmp_path / "out.mcap").exists()

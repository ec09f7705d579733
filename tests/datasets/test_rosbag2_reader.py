"""The rosbag2 reader against ROS's own conformance bags, against bags written by `rosbags`, and against traps."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bag_samples import ARM, MS, mapping_file, plain_messages, read_bag
from bags import call, flag, floats, header, image, joints, make, write_bag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestride.datasets.converters import Report, convert
from onestride.hardware.errors import OneStrideError

mcap_reader = pytest.importorskip("mcap.reader", reason="needs the extra `rosbag`")


def _bags(shared_data: Path) -> list[Path]:
    root = shared_data / "rosbag2"
    if not root.is_dir():
        pytest.skip(f"no bags at {root}")
    files = [path for path in root.rglob("*") if path.suffix in (".mcap", ".db3")]
    return sorted({*files, *(path.parent for path in files if (path.parent / "metadata.yaml").is_file())})


def _counted(path: Path) -> dict[str, int]:
    """Messages by topic, by the storages' own libraries."""
    counts: dict[str, int] = {}
    files = [path] if path.is_file() else [one for one in path.iterdir() if one.suffix in (".mcap", ".db3")]
    for file in files:
        if file.suffix == ".db3":
            query = (
                "SELECT topics.name, count(*) FROM messages JOIN topics ON topic_id = topics.id GROUP BY topics.name"
            )
            found = dict(sqlite3.connect(f"file:{file}?immutable=1", uri=True).execute(query).fetchall())
        else:
            found = {}
            with file.open("rb") as opened:
                for _, channel, _ in mcap_reader.make_reader(opened).iter_messages():
                    found[channel.topic] = found.get(channel.topic, 0) + 1
        for topic, count in found.items():
            counts[topic] = counts.get(topic, 0) + count
    return counts


def test_every_real_bag_is_read_whole_and_lists_its_topics(shared_data: Path, tmp_path: Path) -> None:
    """Split ones, ones without index, ones whose metadata disagree: no message is missing."""
    from onestride.datasets.converters.rosbag2_bag import open_bag
    from onestride.datasets.converters.rosbag2_mapping import load_mapping

    bags = _bags(shared_data)
    assert len(bags) > 40
    for path in bags:
        expected = _counted(path)
        bag = open_bag(path, Report())
        times = []
        got: dict[str, int] = {}
        for message in bag.messages(bag.topics):
            got[message.topic] = got.get(message.topic, 0) + 1
            times.append(message.received)
        assert got == expected, path
        assert times == sorted(times), path
        with pytest.raises(OneStrideError, match="expected a mapping") as caught:
            convert(path, tmp_path / "s")
        listing, _, mapping = str(caught.value).partition("A mapping to begin with:\n")
        for topic, count in expected.items():
            assert f"  {topic}: " in listing and f", {count} messages, " in listing, path
        (tmp_path / "starter.yaml").write_text(mapping)
        load_mapping(tmp_path / "starter.yaml")
        assert not (tmp_path / "s").exists()


def test_a_folder_without_metadata_is_read_in_the_order_of_its_files(shared_data: Path) -> None:
    from onestride.datasets.converters.rosbag2_bag import open_bag

    for kind in ("mcap", "sqlite3"):
        folder = shared_data / f"rosbag2/official/rosbag2_py/test/resources/{kind}/reindex_test_bags/multiple_files"
        report = Report()
        bag = open_bag(folder, report)
        assert [path.stem[-1] for path in bag.files] == ["0", "1", "2"]
        assert sum(1 for _ in bag.messages(["/chatter"])) == 1324 + 1324 + 529
        assert "metadata.yaml: missing" in report.changed[0]


def test_the_real_sensor_messages_become_features(shared_data: Path, tmp_path: Path) -> None:
    topics = {
        "/joint_state": {"features": {"q": {"role": "observation", "field": "position", "unit": "rad"}}},
        "/range": {"align": "hold", "features": {"action": {"role": "action", "field": "range"}}},
        "/imu": {"features": {"imu": {"role": "observation", "field": "orientation"}}},
        "/image": {"features": {"camera": {"role": "observation"}}},
        "/joy": {"features": {"axes": {"role": "info", "field": "axes"}, "keys": {"role": "info", "field": "buttons"}}},
        "/laser_scan": {"features": {"ranges": {"role": "observation", "field": "ranges"}}},
        "/nav_sat_fix/gps": {"features": {"height": {"role": "info", "field": "altitude"}}},
        "/point_cloud": {"features": {"corner": {"role": "info", "field": "points[0]"}}},
    }
    bag = shared_data / "rosbag2/all_sensor_msgs.mcap"
    store, report = read_bag(bag, tmp_path, base="/joint_state", topics=topics)
    from rosbags.highlevel import AnyReader

    expected: dict[str, list[Any]] = {}
    with AnyReader([bag]) as reader:
        for connection, time, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            expected.setdefault(connection.topic, []).append((time, message))
    episode = store.read_episode(0)
    np.testing.assert_array_equal(episode.data["q"], [message.position for _, message in expected["/joint_state"]])
    assert episode.timestamps["base"].tolist() == [time for time, _ in expected["/joint_state"]]
    assert store.schema.feature("q").names == tuple(expected["/joint_state"][0][1].name)
    turned = expected["/imu"][0][1].orientation
    assert episode.data["imu"].tolist() == [[turned.w, turned.x, turned.y, turned.z]]
    assert store.schema.feature("imu").names == ("qw", "qx", "qy", "qz")
    shown = expected["/image"][0][1]
    assert episode.data["camera"].tobytes() == shown.data.tobytes()
    assert episode.data["camera"].shape == (1, shown.height, shown.width, 3)
    dtypes = {name: episode.data[name].dtype.name for name in ("axes", "keys", "ranges", "height", "corner", "action")}
    assert dtypes == {
        "axes": "float32", "keys": "int32", "ranges": "float32", "height": "float64", "corner": "float32",
        "action": "float32",
    }  # fmt: skip
    assert any(line.startswith("/rosout: 117 messages") for line in report.left_out)
    assert any("quaternion reordered" in line for line in report.changed)


def test_definitions_in_the_bag_are_used_and_missing_ones_told(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "rosbag2/official/rosbag2_py/test/resources"
    topics = {"b_basictypes": {"features": {"action": {"role": "action", "field": "float64_value"}}}}
    changes: dict[str, Any] = {"base": "b_basictypes", "topics": topics}
    store, _ = read_bag(root / "mcap/convert_a", tmp_path, **changes)
    assert store.num_steps == 50
    with pytest.raises(OneStrideError, match="definition of the message type test_msgs/msg/BasicTypes"):
        read_bag(root / "sqlite3/convert_a", tmp_path, **changes)


def test_calls_of_a_real_service_begin_episodes(shared_data: Path, tmp_path: Path) -> None:
    """Recorded by rosbag2: each call has several events, and counts once."""
    folder = shared_data / "rosbag2/official/rosbag2_cpp/test/rosbag2_cpp/bags"
    topics = {"/parameter_events": {"features": {"action": {"role": "action", "field": "stamp.nanosec"}}}}
    marker = {"by": "marker", "start": "/add_two_ints"}
    from onestride.datasets.converters.rosbag2_bag import open_bag
    from onestride.datasets.converters.rosbag2_mapping import ByMarker, load_mapping
    from onestride.datasets.converters.rosbag2_survey import survey_episodes

    for name in ("topics_and_services.mcap", "topics_and_services.db3"):
        bag = open_bag(folder / name, Report())
        mapping = load_mapping(mapping_file(tmp_path / "m", base="/parameter_events", topics=topics, episodes=marker))
        assert isinstance(mapping.episodes, ByMarker)
        events = bag.topics["/add_two_ints/_service_event"].count
        assert events == 6
        calls = len(survey_episodes(bag, mapping, Report()))
        sequences = {
            message.content[16:32] + message.content[36:44]
            for message in bag.messages(["/add_two_ints/_service_event"])
        }
        assert 1 <= calls == len(sequences) < events


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_joints_come_by_name_and_unusable_messages_are_counted(tmp_path: Path, storage: str) -> None:
    messages = [
        ("/command", 5, floats(1, 2)),
        ("/state", 10, joints("ab", (1, 2))),
        ("/state", 20, joints("ba", (4, 3))),
        ("/state", 30, joints("", ())),
        ("/state", 40, joints("a", (9,))),
        ("/state", 50, joints("cab", (0, 5, 6))),
        ("/state", 60, joints((), (7, 8))),
        ("/state", 70, joints("ab", (7,))),
    ]
    store, report = read_bag(write_bag(tmp_path / "bag", messages, storage), tmp_path)
    episode = store.read_episode(0)
    assert episode.data["q"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert episode.timestamps["base"].tolist() == [10, 20, 50]
    assert store.schema.feature("q").names == ARM
    assert set(report.left_out) == {
        "/state: 1 messages skipped: position: empty",
        "/state: 1 messages skipped: without joint b",
        "/state: 1 messages skipped: no joint names",
        "/state: 1 messages skipped: 1 values for 2 joint names",
    }


def test_without_named_joints_the_first_message_gives_the_order(tmp_path: Path) -> None:
    messages = [
        ("/state", 10 + n, joints(names, values)) for n, (names, values) in enumerate((("ba", (1, 2)), ("ab", (4, 3))))
    ]
    topics = {"/state": {"features": {"q": {"role": "action", "field": "position", "unit": "rad"}}}}
    store, _ = read_bag(write_bag(tmp_path / "bag", messages), tmp_path, topics=topics)
    assert store.schema.feature("q").names == ("b", "a")
    assert store.read("q").tolist() == [[1, 2], [3, 4]]


TIMES = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TIMES, TIMES, TIMES, st.sampled_from(("hold", "next")), st.sampled_from((None, 5)))
def test_alignment_and_other_rates_by_their_definitions(
    tmp_path_factory: pytest.TempPathFactory,
    base: list[int],
    commands: list[int],
    slow: list[int],
    align: str,
    oldest: int | None,
) -> None:
    """Against the definitions, tick by tick."""
    folder = tmp_path_factory.mktemp("align")
    base, commands, slow = sorted(base), sorted(commands), sorted(slow)
    messages = [("/state", time, joints(ARM, (n, 0))) for n, time in enumerate(base)]
    messages += [("/command", time, floats(n, 0)) for n, time in enumerate(commands)]
    messages += [("/slow", time, floats(n)) for n, time in enumerate(slow)]
    bag = write_bag(folder / "bag", sorted(messages, key=lambda one: one[1]))
    features = {"slow": {"role": "observation", "field": "data"}}
    command = {"align": align, "features": {"action": {"role": "action", "field": "data"}}}
    if oldest is not None:
        command["max_age"] = oldest / 1e9
    topics = {
        "/state": {"features": {"q": {"role": "observation", "field": "position", "joints": list(ARM)}}},
        "/command": command,
        "/slow": {"features": features},
    }
    expected = []
    for tick, time in enumerate(base):
        if align == "hold":
            there = [n for n, one in enumerate(commands) if one <= time]
            chosen = there[-1] if there else None
        else:
            there = [n for n, one in enumerate(commands) if one >= time]
            chosen = there[0] if there else None
        if chosen is not None and (oldest is None or abs(commands[chosen] - time) <= oldest):
            expected.append((tick, time, chosen))
    if not expected:
        with pytest.raises(OneStrideError, match="expected an episode with usable ticks"):
            read_bag(bag, folder, topics=topics)
        return
    store, report = read_bag(bag, folder, topics=topics)
    episode = store.read_episode(0)
    assert episode.data["q"][:, 0].tolist() == [tick for tick, _, _ in expected]
    assert episode.timestamps["base"].tolist() == [time for _, time, _ in expected]
    assert episode.data["action"][:, 0].tolist() == [chosen for _, _, chosen in expected]
    assert episode.data["command.time"].tolist() == [commands[chosen] for _, _, chosen in expected]
    assert episode.timestamps["slow"].tolist() == slow
    assert episode.data["slow"][:, 0].tolist() == list(range(len(slow)))
    index = [sum(one <= time for one in slow) - 1 for _, time, _ in expected]
    assert store.read_index("slow").tolist() == index
    lost = len(base) - len(expected)
    assert [line for line in report.left_out if "ticks left out" in line] == (
        [f"{lost} ticks left out: no message on /command ({align})"] if lost else []
    )


def test_gaps_end_episodes_and_early_commands_belong_to_the_next(tmp_path: Path) -> None:
    messages = plain_messages(3)
    later = [(topic, time + 10 * 10**9, message) for topic, time, message in plain_messages(2)]
    messages += [("/command", 10 * 10**9 + 900 * MS, floats(99, 0)), *later]
    store, report = read_bag(write_bag(tmp_path / "bag", messages), tmp_path, episodes={"by": "gap", "seconds": 1.0})
    assert store.lengths.tolist() == [2, 2]
    assert store.read_episode(1).data["action"][0].tolist() == [99, 0], "sent before the first tick, held at it"
    assert "1 ticks left out: no message on /command (hold)" in report.left_out
    assert store.schema.control_rate == 100.0


@pytest.mark.parametrize("kind", ["topics", "flag", "service"])
def test_markers_begin_and_end_episodes(tmp_path: Path, kind: str) -> None:
    marks = {
        "topics": [("/on", make("std_msgs/Empty")), ("/off", make("std_msgs/Empty"))],
        "flag": [("/on", flag(True)), ("/on", flag(False))],
        "service": [("/on/_service_event", call(1, 7, 1)), ("/off/_service_event", call(1, 7, 1))],
    }[kind]
    start, stop = 10**9 + 19 * MS, 10**9 + 41 * MS
    messages = [*plain_messages(), ("/on", 0, flag(False))] if kind == "flag" else plain_messages()
    messages += [(marks[0][0], start, marks[0][1]), (marks[1][0], stop, marks[1][1])]
    if kind == "service":
        messages += [(marks[0][0], start + 1, call(2, 7, 1)), (marks[1][0], stop + 1, call(3, 7, 1))]
    if kind == "flag":
        messages.append(("/on", start + 5 * MS, flag(True)))
    episodes = {"by": "marker", "start": "/on"} | ({"field": "data"} if kind == "flag" else {"stop": "/off"})
    bag = write_bag(tmp_path / "bag", sorted(messages, key=lambda one: one[1]))
    store, report = read_bag(bag, tmp_path, episodes=episodes)
    assert store.num_episodes == 1
    assert store.read("q")[:, 0].tolist() == [3, 4], "ticks 2 to 4, of which the first has no command yet"
    assert any("messages outside every episode" in line for line in report.left_out)


def test_starts_without_stops(tmp_path: Path) -> None:
    """Every start is the former episode's end; an unmatched one reaches to the end of the recording."""
    messages = [*plain_messages(), ("/on", 10**9 - 1, flag(True)), ("/on", 10**9 + 29 * MS, flag(True))]
    bag = write_bag(tmp_path / "bag", sorted(messages, key=lambda one: one[1]))
    store, report = read_bag(bag, tmp_path, episodes={"by": "marker", "start": "/on"})
    assert store.lengths.tolist() == [2, 2]
    assert "/on: the last episode has no end, taken to the recording's" in report.changed
    assert "2 ticks left out: no message on /command (hold)" in report.left_out


def test_attributes_come_from_topics(tmp_path: Path) -> None:
    messages = [*plain_messages(), ("/success", 2 * 10**9, flag(False)), ("/success", 2 * 10**9 + 1, flag(True))]
    attributes = {"success": {"topic": "/success"}}
    store, _ = read_bag(write_bag(tmp_path / "bag", messages), tmp_path, attributes=attributes, task="reach")
    assert store.episodes[0].attributes == {"bag": "bag", "task": "reach", "success": True}


def test_the_senders_clock(tmp_path: Path) -> None:
    """Stamps may arrive out of order, and may never have been set."""
    stamps = (30, 10, 20, 0)
    messages = [("/state", 100 + n, joints(ARM, (n, 0), time)) for n, time in enumerate(stamps)]
    messages = [("/command", 5, floats(1, 1)), *messages]
    topics = yaml.safe_load(mapping_file(tmp_path / "m").read_text())["topics"]
    topics["/command"]["clock"] = "received"
    store, report = read_bag(write_bag(tmp_path / "bag", messages), tmp_path, clock="stamped", topics=topics)
    assert store.read_time().tolist() == [10, 20, 30]
    assert store.read("q")[:, 0].tolist() == [1, 2, 0]
    assert "/state: 1 messages skipped: header.stamp was never set" in report.left_out
    with pytest.raises(OneStrideError, match=r"Float64MultiArray: expected header.stamp .*got no header"):
        read_bag(tmp_path / "bag", tmp_path, clock="stamped")


def test_pictures_of_every_encoding(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (4, 6, 3), np.uint8)
    depth = random.integers(0, 60000, (4, 6), np.uint16)
    metres = random.normal(size=(4, 6)).astype(np.float32)
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.fromarray(colour).save(file, "PNG")
    packed = np.frombuffer(file.getvalue(), np.uint8)
    png = make("sensor_msgs/CompressedImage", header=header(), format="png", data=packed)
    shown = {
        "rgb": (image(colour, "rgb8", padding=5), colour),
        "bgr": (image(colour[..., ::-1], "bgr8"), colour),
        "grey": (image(colour[..., 0], "mono8", padding=1), colour[..., 0]),
        "depth": (image(depth, "16UC1"), depth),
        "metres": (image(metres, "32FC1"), metres),
        "png": (png, colour),
    }
    messages = plain_messages(1) + [(f"/{name}", 10**9, message) for name, (message, _) in shown.items()]
    topics = yaml.safe_load(mapping_file(tmp_path / "m").read_text())["topics"]
    topics["/command"]["align"] = "next"
    topics |= {f"/{name}": {"features": {f"i.{name}": {"role": "observation"}}} for name in shown}
    bag = write_bag(tmp_path / "bag", sorted(messages, key=lambda one: one[1]))
    store, report = read_bag(bag, tmp_path, topics=topics)
    for name, (_, expected) in shown.items():
        np.testing.assert_array_equal(store.read(f"i.{name}")[0], expected, err_msg=name)
    assert "/bgr: i.bgr: channels reordered from bgr8" in report.changed


def test_poses_and_twists_are_named(tmp_path: Path) -> None:
    point = make("geometry_msgs/Point", x=1.0, y=2.0, z=3.0)
    turn = make("geometry_msgs/Quaternion", x=0.1, y=0.2, z=0.3, w=0.9)
    pose = make(
        "geometry_msgs/PoseStamped", header=header(), pose=make("geometry_msgs/Pose", position=point, orientation=turn)
    )
    vectors = [make("geometry_msgs/Vector3", x=a, y=b, z=c) for a, b, c in ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))]
    twist = make("geometry_msgs/Twist", linear=vectors[0], angular=vectors[1])
    topics = {
        "/pose": {"features": {"pose": {"role": "observation"}}},
        "/twist": {"align": "hold", "features": {"action": {"role": "action"}}},
    }
    bag = write_bag(tmp_path / "bag", [("/twist", 9, twist), ("/pose", 10, pose)])
    store, _ = read_bag(bag, tmp_path, base="/pose", topics=topics)
    assert store.schema.feature("pose").names == ("x", "y", "z", "qw", "qx", "qy", "qz")
    assert store.read("pose").tolist() == [[1, 2, 3, 0.9, 0.1, 0.2, 0.3]]
    assert store.schema.feature("action").names == ("vx", "vy", "vz", "wx", "wy", "wz")
    assert store.read("action").tolist() == [[1, 2, 3, 4, 5, 6]]

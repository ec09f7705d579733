"""Messages in blocks against the same messages as `rosbags` hands them over, one by one."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_samples import MS, read_bag
from bags import floats, image, rosbag2, write_bag

from onestride.datasets.converters import Report
from onestride.hardware.errors import OneStrideError

storage = pytest.importorskip(
    "onestride.datasets.converters.rosbag2_storage", reason="needs the extra `rosbag`", exc_type=ImportError
)
from onestride.datasets.converters.rosbag2_bag import open_bag  # noqa: E402

Row = tuple[str, int, bytes]


def _mixed(count: int = 60, begins: int = 10**9) -> list[tuple[str, int, Any]]:
    """Three topics, many messages at one instant, and some that are larger than a block."""
    random = np.random.default_rng(begins % 97)
    found: list[tuple[str, int, Any]] = []
    for number in range(count):
        time = begins + (number // 3) * MS
        if number % 20 == 7:
            found.append(("/camera", time, image(random.integers(0, 255, (700, 800, 3), np.uint8), "rgb8")))
        found.append(("/a" if number % 2 else "/b", time, floats(*random.normal(size=number % 5))))
    return found


def _reference(bag: Path, topics: tuple[str, ...]) -> list[Row]:
    with rosbag2.Reader(bag) as reader:
        wanted = [one for one in reader.connections if one.topic in topics]
        # Without connections it would read all.
        found = reader.messages(connections=wanted) if wanted else ()
        return [(link.topic, time, bytes(content)) for link, time, content in found]


def _rows(blocks: Any) -> list[Row]:
    return [row for block in blocks for row in block.rows()]


@pytest.mark.parametrize("kind", ["mcap", "sqlite3"])
@pytest.mark.parametrize("topics", [("/a", "/b", "/camera"), ("/b",), ("/camera",), ("/none",)])
def test_blocks_hold_what_rosbags_reads(tmp_path: Path, kind: str, topics: tuple[str, ...]) -> None:
    bag = write_bag(tmp_path / "bag", _mixed(), kind)
    opened = open_bag(bag, Report())
    blocks = list(opened.blocks(topics))
    assert _rows(blocks) == _reference(bag, topics)
    for block in blocks:
        sizes = [len(content) for content in block.contents]
        assert sum(sizes[:-1]) < storage.BLOCK_BYTES, "a block ends with the message that fills it"
    assert [(one.topic, one.received, one.content) for one in opened.messages(topics)] == _rows(blocks)


@pytest.mark.parametrize("kind", ["mcap", "sqlite3"])
def test_files_that_overlap_are_merged_by_time(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    expected = []
    for number, begins in enumerate((10**9, 10**9 + 5 * MS, 5 * 10**9)):
        bag = write_bag(tmp_path / f"bag{number}", _mixed(30, begins), kind)
        file = next(path for path in bag.iterdir() if path.suffix != ".yaml")
        file.rename(folder / f"split_{number}{file.suffix}")
        expected += _reference(bag.parent / "split" / f"split_{number}{file.suffix}", ("/a", "/b"))
    opened = open_bag(folder, Report())
    assert _rows(opened.blocks(["/a", "/b"])) == sorted(expected, key=lambda row: row[1])
    times = [time for topic, time, _ in expected if topic == "/a"]
    np.testing.assert_array_equal(opened.received("/a"), sorted(times))


def test_cutting_keeps_the_order() -> None:
    block = storage.Block.of_rows([("/a" if n % 3 else "/b", n, bytes([n])) for n in range(10)])
    assert len(block.cut(2, 7)) == 5
    assert list(block.cut(2).rows()) == list(block.rows())[2:]
    received, contents = block.of("/b")
    assert received.tolist() == [0, 3, 6, 9]
    assert contents == [b"\0", b"\3", b"\6", b"\x09"]
    assert block.of("/none")[1] == []


@pytest.mark.parametrize("value", ["'words'", "NULL", "3"])
def test_messages_that_are_none_are_one_error(tmp_path: Path, value: str) -> None:
    bag = write_bag(tmp_path / "bag", _mixed(20), "sqlite3")
    file = next(bag.glob("*.db3"))
    with sqlite3.connect(file) as base:
        base.execute("CREATE TABLE loose(id INTEGER PRIMARY KEY, topic_id, timestamp, data)")
        base.execute("INSERT INTO loose SELECT id, topic_id, timestamp, data FROM messages")
        base.execute("DROP TABLE messages")
        base.execute("ALTER TABLE loose RENAME TO messages")
        base.execute(f"UPDATE messages SET data = {value} WHERE id = 11")
    base.close()
    with pytest.raises(OneStrideError, match=rf"{file.name}: expected a readable rosbag2 file"):
        list(open_bag(bag, Report()).blocks(["/a", "/b", "/camera"]))


def test_an_empty_message_is_told_and_not_passed_over(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", [("/state", 10**9, floats(1, 2)), ("/command", 10**9, floats(1, 2))], "sqlite3")
    with sqlite3.connect(next(bag.glob("*.db3"))) as base:
        base.execute("UPDATE messages SET data = X'' WHERE id = 2")
    base.close()
    topics = {
        "/state": {"features": {"q": {"role": "observation", "field": "data"}}},
        "/command": {"align": "next", "features": {"action": {"role": "action", "field": "data"}}},
    }
    with pytest.raises(OneStrideError, match="/command"):
        read_bag(bag, tmp_path, topics=topics)

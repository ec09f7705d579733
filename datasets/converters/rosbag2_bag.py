"""A rosbag2 recording as topics and messages: sqlite3 or MCAP, one file or a folder of splits, with or without index.

The storage files are read one by one, and their topics are believed rather than `metadata.yaml`'s: where the two
disagree about the quality of service, a reader that joins them silently yields nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from onestride.datasets.converters import Report
from onestride.datasets.converters.rosbag2 import METADATA, SUFFIXES, is_storage
from onestride.datasets.converters.rosbag2_storage import DAMAGE, Block, blocks_of, merged, opened, times_of
from onestride.hardware.errors import OneStrideError, unknown


@dataclass
class Topic:
    """What is known of a topic without decoding a message."""

    name: str
    type: str
    count: int = 0
    first: int | None = None
    """Received [ns]."""
    last: int | None = None

    @property
    def rate(self) -> float | None:
        """Mean rate [Hz]."""
        if self.first is None or self.last is None or self.last <= self.first:
            return None
        return (self.count - 1) * 1e9 / (self.last - self.first)


class Message(NamedTuple):
    """One recorded message, not decoded."""

    topic: str
    type: str
    received: int
    """By the recorder [ns]."""
    content: bytes


@dataclass
class Bag:
    """An opened recording; see `open_bag`."""

    path: Path
    files: tuple[Path, ...]
    topics: dict[str, Topic] = field(default_factory=dict)
    _types: Any = None
    _broken: dict[str, str] = field(default_factory=dict)
    """Type -> why its definition is of no use."""
    _received: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    _spans: list[tuple[int, int, Path]] = field(default_factory=list)
    """Files with messages: received [ns] from, to."""

    @property
    def types(self) -> Any:
        """The fields of every message type."""
        return self._types.fielddefs

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Messages of some topics in the order they were received.

        Raises:
            OneStrideError: a file is damaged.
        """
        for block in self.blocks(topics):
            for topic, received, content in block.rows():
                yield Message(topic, self.topics[topic].type, received, content)

    def blocks(self, topics: Collection[str]) -> Iterator[Block]:
        """The same, many at once.

        Raises:
            OneStrideError: a file is damaged.
        """
        for run in self._runs():
            files = [blocks_of(path, topics) for path in run]
            yield from merged(files) if len(files) > 1 else files[0]

    def decode(self, message: Message) -> Any:
        """The message as an object with the fields of its type.

        Raises:
            OneStrideError: the type is not known, or the bytes are not of that type.
        """
        self.check_type(message.type)
        try:
            return self._types.deserialize_cdr(message.content, normal_type(message.type))
        except DAMAGE as error:
            raise OneStrideError(
                f"{self.path}: expected {message.type} on {message.topic} at {message.received} ns, got: {error}"
            ) from error

    def encode(self, message: Any) -> bytes:
        """A message's bytes, as `decode` takes them.

        Raises:
            ValueError, TypeError, OverflowError: a value that its field cannot hold.
        """
        try:
            return bytes(self._types.serialize_cdr(message, message.__msgtype__))
        except (SerdeError, struct.error) as error:
            raise ValueError(f"expected a {message.__msgtype__} that fits its type, got: {error}") from error

    def received(self, topic: str) -> NDArray[np.int64]:
        """When each message of a topic was received [ns]; looked up once."""
        if topic not in self._received:
            times = [times_of(path, topic) for run in self._runs() for path in run]
            self._received[topic] = np.sort(np.concatenate([np.zeros(0, np.int64), *times]))
        return self._received[topic]

    def check_type(self, name: str) -> None:
        """Whether messages of a type can be decoded.

        Raises:
            OneStrideError: no definition of it in the bag nor among ROS 2's own types, or one that cannot be read.
        """
        usual = normal_type(name)
        if usual in self._types.fielddefs:
            return
        reason = self._broken.get(usual, "none in the bag, and it is not one of ROS 2's own")
        raise OneStrideError(f"{self.path}: expected a definition of the message type {name}, got {reason}")

    def topic(self, name: str) -> Topic:
        """The topic of that name.

        Raises:
            OneStrideError: there is none; lists those with messages.
        """
        if name not in self.topics:
            raise unknown("topic", name, [one.name for one in self.topics.values() if one.count])
        return self.topics[name]

    def _runs(self) -> Iterator[list[Path]]:
        """Files one after the other; those that overlap in time together."""
        run: list[Path] = []
        ends = 0
        for start, end, path in sorted(self._spans, key=itemgetter(0)):
            if run and start >= ends:
                yield run
                run = []
            run.append(path)
            ends = max(ends, end)
        if run:
            yield run


def storage_files(path: Path) -> tuple[Path, ...]:
    """The storage files of a recording in order; empty where `path` is none."""
    if path.is_file():
        return (path,) if is_storage(path) else ()
    listed = _listed(path)
    return listed if listed is not None else _found(path)


def open_bag(path: Path, report: Report) -> Bag:
    """Look through a recording: topics, types, counts, spans. Reads no more than indices where there are any.

    Raises:
        OneStrideError: a file is missing or damaged.
    """
    files = storage_files(path)
    if not files:
        raise OneStrideError(f"expected .mcap or .db3 files in {path}, got none")
    if path.is_dir() and not (path / METADATA).is_file():
        report.changed.append(f"{METADATA}: missing, the files are read in the order of their numbers")
    bag = Bag(path, files)
    definitions: dict[str, Any] = {}
    for file in files:
        with opened(file) as reader:
            if reader.message_count:
                bag._spans.append((reader.start_time, reader.end_time, file))
            for connection in reader.connections:
                topic = bag.topics.setdefault(connection.topic, Topic(connection.topic, connection.msgtype))
                if normal_type(topic.type) != normal_type(connection.msgtype):
                    raise OneStrideError(
                        f"{file}: expected {topic.type} on {topic.name} as before, got {connection.msgtype}"
                    )
                topic.count += connection.msgcount
                definitions.setdefault(normal_type(connection.msgtype), connection.msgdef)
    bag._types, bag._broken = _type_store(definitions)
    _check_counts(path, bag, report)
    return bag


def survey_times(bag: Bag) -> None:
    """Fill in when each topic's messages were received; reads every message's head."""
    for message in bag.messages(bag.topics):
        topic = bag.topics[message.topic]
        topic.first = message.received if topic.first is None else topic.first
        topic.last = message.received


def normal_type(name: str) -> str:
    """A type's full name: `pkg/msg/Type`, which old bags shorten to `pkg/Type`."""
    package, _, rest = name.partition("/")
    return name if "/" in rest else f"{package}/msg/{rest}"


def _listed(folder: Path) -> tuple[Path, ...] | None:
    """The files that `metadata.yaml` names; None where there is no such file."""
    path = folder / METADATA
    if not path.is_file():
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        about = content["rosbag2_bagfile_information"]
        names = [Path(str(name)).name for name in about["relative_file_paths"]]
        compressed = str(about.get("compression_mode") or "none").lower()
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OneStrideError(
            f"{path}: expected rosbag2's metadata, got a damaged file; without it, the files are read as they are"
        ) from error
    if compressed != "none":
        raise OneStrideError(
            f"{path}: expected a bag without compression of its {compressed}s, which MCAP does by itself: "
            "run `ros2 bag convert` first"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise OneStrideError(f"{path}: expected the files it names, got none of the name {', '.join(missing)}")
    return tuple(folder / name for name in names)


def _found(folder: Path) -> tuple[Path, ...]:
    """Storage files of a folder without metadata, `_2` before `_10`."""
    if not folder.is_dir():
        return ()

    def natural(path: Path) -> list[tuple[bool, int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]

    return tuple(sorted((path for path in folder.iterdir() if path.suffix in SUFFIXES), key=natural))


def _type_store(definitions: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """ROS 2's own types, overruled by what the bag brings along; definitions that cannot be read are noted."""
    store = get_typestore(Stores.ROS2_JAZZY)
    broken: dict[str, str] = {}
    for name, definition in definitions.items():
        if definition.format == MessageDefinitionFormat.NONE or not definition.data.strip():
            continue
        try:
            types = _parsed(name, definition)
            if any(store.fielddefs.get(key) != value for key, value in types.items()):
                store = _overruled(store, types)
        except Exception as error:
            # The parser raises what its grammar happens to raise.
            broken[name] = f"one that cannot be read: {str(error).partition(chr(10))[0]}"
    return store, broken


def _overruled(store: Any, types: dict[str, Any]) -> Any:
    """A store in which the bag's definitions replace the usual ones."""
    fresh = get_typestore(Stores.EMPTY)
    fresh.register({**store.fielddefs, **types})
    return fresh


def _parsed(name: str, definition: Any) -> dict[str, Any]:
    if definition.format == MessageDefinitionFormat.MSG:
        return dict(get_types_from_msg(definition.data, name))
    return dict(get_types_from_idl(definition.data))


def _check_counts(path: Path, bag: Bag, report: Report) -> None:
    """Compare what the index promises with what is there."""
    metadata = path / METADATA
    if not metadata.is_file():
        return
    about = yaml.safe_load(metadata.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
    said, counted = about.get("message_count"), sum(topic.count for topic in bag.topics.values())
    if said != counted:
        report.changed.append(f"{METADATA}: says {said} messages, counted {counted}")

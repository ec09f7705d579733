"""Writing a store as MCAP: every stream at its own rate, readable by any ROS tool, and by us to the bit.

Reference: https://mcap.dev/spec, profile `ros2`
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import Writer

from onestride.datasets.converters import Options, Progress, Report
from onestride.datasets.converters.mcap_messages import (
    EPISODE_TOPIC,
    STRING,
    Wire,
    definition,
    final_topic,
    string_message,
    wires,
)
from onestride.datasets.converters.mcap_reader import LIBRARY
from onestride.datasets.converters.passport import NAME, issue
from onestride.datasets.converters.streaming import episodes, wanted
from onestride.datasets.schema import Episode
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

PAUSE = 10**9
"""Between episodes that have to be moved apart [ns]."""
_LATEST = (1 << 31) * 10**9
"""What `builtin_interfaces/Time` can hold [ns]."""


def write(store: Store, path: Path, report: Report, options: Options, progress: Progress) -> None:
    """Write a store as one MCAP file.

    Args:
        store: what to write.
        path: the file to make.
        report: told what is kept and changed.
        options: `leave_out` names features.
        progress: told about each episode.

    Raises:
        OneStrideError: times that MCAP cannot hold.
    """
    kept = wanted(store.schema, options.leave_out, report)
    schema = store.schema.model_copy(update={"features": tuple(kept)})
    travelling = wires(schema)
    passport = replace(issue(store, {name: wire.topic for name, wire in travelling.items()}), schema=schema)
    moved = 0
    with path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start(profile="ros2", library=LIBRARY)
        note = json.dumps(passport.to_json())
        # MCAP has checksums for chunks, not for metadata.
        writer.add_metadata(NAME, {"passport": note, "sha256": hashlib.sha256(note.encode()).hexdigest()})
        channels = _Channels(writer)
        ended = 0
        for number, episode in enumerate(episodes(store, list(travelling))):
            begins, ends = _extent(episode)
            in_order = begins >= 0 if number == 0 else begins > ended
            shift = 0 if in_order else ended + PAUSE - begins
            moved += shift != 0
            ended = ends + shift
            if not ended < _LATEST:
                raise OneStrideError(f"episode {number}: expected times before 2038, got {ended} ns")
            _write_episode(number, episode, shift, travelling, channels)
            progress(number + 1, store.num_episodes)
        writer.finish()
    _report(store, travelling, moved, report)


class _Channels:
    """Channels and schemas of the file, made when they are first used."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}

    def add(self, topic: str, type_name: str, time: int, message: bytes) -> None:
        """Write one message."""
        if topic not in self._channels:
            self._channels[topic] = self._register(topic, type_name)
        self._writer.add_message(self._channels[topic], time, message, time)

    def _register(self, topic: str, type_name: str) -> int:
        if type_name not in self._schemas:
            self._schemas[type_name] = self._writer.register_schema(type_name, "ros2msg", definition(type_name))
        return int(self._writer.register_channel(topic, "cdr", self._schemas[type_name]))


def _extent(episode: Episode) -> tuple[int, int]:
    """First and last time [ns] of all streams."""
    clocks = [clock for clock in episode.timestamps.values() if len(clock)]
    return min(int(clock[0]) for clock in clocks), max(int(clock[-1]) for clock in clocks)


def _write_episode(number: int, episode: Episode, shift: int, travelling: dict[str, Wire], channels: _Channels) -> None:
    begins, ends = (time + shift for time in _extent(episode))
    about = {"episode": number, "event": "begin", "shift": shift, "attributes": episode.attributes}
    channels.add(EPISODE_TOPIC, STRING, begins, string_message(json.dumps(about, allow_nan=False)))
    for time, wire, message in _messages(episode, shift, travelling):
        channels.add(wire.topic, wire.type, time, message)
    for name, value in episode.final.items():
        wire = travelling[name]
        rows = np.asarray(value)[np.newaxis]
        channels.add(final_topic(wire.topic), wire.type, ends, wire.encode(rows, [ends])[0])
    closing = {"episode": number, "event": "end"}
    channels.add(EPISODE_TOPIC, STRING, ends, string_message(json.dumps(closing)))


def _messages(episode: Episode, shift: int, travelling: dict[str, Wire]) -> list[tuple[int, Wire, bytes]]:
    """Every row of an episode, by time; rows of one feature in their order."""
    found = []
    for name, wire in travelling.items():
        times = (episode.timestamps[wire.feature.stream] + shift).tolist()
        found += list(zip(times, [wire] * len(times), wire.encode(episode.data[name], times), strict=True))
    found.sort(key=lambda one: one[0])
    return found


def _report(store: Store, travelling: dict[str, Wire], moved: int, report: Report) -> None:
    for name, wire in travelling.items():
        report.kept.append(f"{name}: {wire.topic}, {wire.type}")
        if wire.dtype != wire.feature.dtype:
            report.changed.append(f"{name}: {wire.feature.dtype} as {wire.dtype}, which holds it exactly")
        if wire.feature.codec == "video":
            report.changed.append(f"{name}: decoded frames, as the store's loss left them")
    report.kept.append(f"attributes, schema and provenance: in {EPISODE_TOPIC} and the file's metadata")
    if moved:
        report.changed.append(
            f"time: {moved} of {store.num_episodes} episodes moved, so that none overlap; {EPISODE_TOPIC} says how far"
        )

"""Writing a store as MCAP: every stream at its own rate, readable by any ROS tool, and by us to the bit.

Reference: https://mcap.dev/spec, profile `ros2`
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from onestride.datasets.ahead import ahead, portions
from onestride.datasets.converters import AHEAD_BYTES, Options, Progress, Report
from onestride.datasets.converters.mcap_chunks import ChunkWriter
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
from onestride.datasets.converters.mcap_records import Layout, batches, single
from onestride.datasets.converters.passport import NAME, issue
from onestride.datasets.converters.streaming import episodes, wanted
from onestride.datasets.schema import Episode, Schema
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
        writer = ChunkWriter(file, profile="ros2", library=LIBRARY)
        note = json.dumps(passport.to_json())
        # MCAP has checksums for chunks, not for metadata.
        writer.add_metadata(NAME, {"passport": note, "sha256": hashlib.sha256(note.encode()).hexdigest()})
        layouts = _layouts(schema, travelling, writer)
        ended = 0
        with ahead(portions(episodes(store, list(travelling)), AHEAD_BYTES)) as read:
            for number, episode in enumerate(chain.from_iterable(read)):
                begins, ends = _extent(episode)
                in_order = begins >= 0 if number == 0 else begins > ended
                shift = 0 if in_order else ended + PAUSE - begins
                moved += shift != 0
                ended = ends + shift
                if not ended < _LATEST:
                    raise OneStrideError(f"episode {number}: expected times before 2038, got {ended} ns")
                _write_episode(number, episode, shift, travelling, layouts, writer)
                progress(number + 1, store.num_episodes)
        writer.finish()
    _report(store, travelling, moved, report)


def _layouts(schema: Schema, travelling: dict[str, Wire], writer: ChunkWriter) -> list[Layout]:
    """The messages of one step of each stream."""
    layouts = []
    for stream in schema.streams:
        mine = tuple(wire for wire in travelling.values() if wire.feature.stream == stream)
        if mine:
            layouts.append(Layout(stream, mine, tuple(_channel(writer, wire.topic, wire.type) for wire in mine)))
    return layouts


def _channel(writer: ChunkWriter, topic: str, type_name: str) -> int:
    return writer.channel(topic, type_name, definition(type_name))


def _extent(episode: Episode) -> tuple[int, int]:
    """First and last time [ns] of all streams."""
    clocks = [clock for clock in episode.timestamps.values() if len(clock)]
    return min(int(clock[0]) for clock in clocks), max(int(clock[-1]) for clock in clocks)


def _write_episode(
    number: int, episode: Episode, shift: int, travelling: dict[str, Wire], layouts: list[Layout], writer: ChunkWriter
) -> None:
    begins, ends = (time + shift for time in _extent(episode))
    marker = _channel(writer, EPISODE_TOPIC, STRING)
    about = {"episode": number, "event": "begin", "shift": shift, "attributes": episode.attributes}
    writer.add(single(marker, begins, string_message(json.dumps(about, allow_nan=False))))
    for batch in batches(episode, layouts, shift):
        writer.add(batch)
    for name, value in episode.final.items():
        wire = travelling[name]
        channel = _channel(writer, final_topic(wire.topic), wire.type)
        writer.add(single(channel, ends, wire.message(np.asarray(value), ends)))
    writer.add(single(marker, ends, string_message(json.dumps({"episode": number, "event": "end"}))))


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

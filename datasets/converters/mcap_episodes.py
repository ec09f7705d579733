"""Reading back the MCAP files that we wrote: the same episodes, to the bit, without a mapping."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Chunk
from mcap.stream_reader import get_chunk_data_stream
from numpy.typing import NDArray

from onestride.datasets.converters import Options, Report, Source
from onestride.datasets.converters.mcap_messages import EPISODE_TOPIC, Wire, final_topic, string_of, wires
from onestride.datasets.converters.mcap_runs import Bytes, Run, RunReader
from onestride.datasets.converters.passport import NAME, Passport, origin, read_passport
from onestride.datasets.converters.spilling import Growing
from onestride.datasets.provenance import Provenance
from onestride.datasets.provenance import Source as SourceFile
from onestride.datasets.schema import Array, Episode, Schema
from onestride.hardware.errors import OneStrideError

VERSION = 1
"""Of what this reader makes of a file, see `Provenance.command_version`."""

# What the library and the decompressors below it raise on damaged files.
_DAMAGE = (McapError, struct.error, zlib.error, OSError, ValueError, KeyError, TypeError, IndexError, EOFError)
_DAMAGE_TOO = (OverflowError, MemoryError, AssertionError, RuntimeError, AttributeError)


@dataclass
class _Growing:
    """An episode between its two markers."""

    number: int
    shift: int
    attributes: dict[str, Any]
    rows: dict[str, Growing] = field(default_factory=dict)
    """By feature, as bytes."""
    times: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)
    """Their times [ns]."""
    final: dict[str, Bytes] = field(default_factory=dict)


def read(path: Path, report: Report, options: Options) -> Source:
    """Look through a file, and make its episodes available one by one.

    Raises:
        OneStrideError: truncated or damaged, or not as we write it.
    """
    passport, count = _about(path)
    schema = _schema(passport, options)
    report.kept += [f"{wire.topic}: {name}" for name, wire in wires(schema).items()]
    report.kept.append("times, attributes and final values: as they were")
    return Source(schema, partial(_provenance, path, passport, schema), count, _episodes(path, schema))


def _provenance(path: Path, passport: Passport, schema: Schema) -> Provenance:
    return Provenance.now(
        "convert mcap",
        command_version=VERSION,
        packages=("mcap", "rosbags"),
        sources=(SourceFile.of(path),),
        environment=schema.environment,
        **origin(passport),
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, IO[bytes]]]:
    try:
        with path.open("rb") as file:
            yield make_reader(file, validate_crcs=True), file
    except OneStrideError as error:
        if str(error).startswith(str(path)):
            raise
        raise OneStrideError(f"{path}: {error}") from error
    except (*_DAMAGE, *_DAMAGE_TOO) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise OneStrideError(f"{path}: expected a readable MCAP file, got: {reason}") from error
    except Exception as error:
        # The decompressors have errors of their own, without a common root.
        if type(error).__module__.partition(".")[0] not in ("zstandard", "lz4", "_zstd"):
            raise
        raise OneStrideError(f"{path}: expected a readable MCAP file, got: {error}") from error


def _about(path: Path) -> tuple[Passport, int]:
    with _opened(path) as (reader, _):
        notes = [one.metadata for one in reader.iter_metadata() if one.name == NAME]
        summary = reader.get_summary()
        passport = read_passport(_unaltered(notes[0])) if notes else None
        if passport is None or summary is None or summary.statistics is None:
            raise OneStrideError(f"{path}: expected the note and the summary of our own export, got none")
        markers = [one.id for one in summary.channels.values() if one.topic == EPISODE_TOPIC]
        counted = sum(summary.statistics.channel_message_counts.get(one, 0) for one in markers)
    return passport, counted // 2


def _unaltered(note: dict[str, str]) -> str:
    if hashlib.sha256(note["passport"].encode()).hexdigest() != note["sha256"]:
        raise OneStrideError("expected the note of our own export, got an altered one")
    return note["passport"]


def _schema(passport: Passport, options: Options) -> Schema:
    """As it was, but pictures that were video stay the decoded ones unless video is asked for."""
    codec = options.codec or "lossless"
    features = tuple(
        one.model_copy(update={"codec": codec}) if one.codec == "video" else one for one in passport.schema.features
    )
    return passport.schema.model_copy(update={"features": features})


def _episodes(path: Path, schema: Schema) -> Iterator[Episode]:
    travelling = wires(schema)
    by_topic = {wire.topic: (wire, False) for wire in travelling.values()}
    by_topic |= {final_topic(wire.topic): (wire, True) for wire in travelling.values()}
    growing: _Growing | None = None
    expected = 0
    with _opened(path) as (reader, file):
        topics = {number: one.topic for number, one in reader.get_summary().channels.items()}
        cut = RunReader([number for number, topic in topics.items() if topic == EPISODE_TOPIC])
        for run in _runs(reader, file, cut):
            topic = topics[run.channel]
            if topic == EPISODE_TOPIC:
                finished, growing = _mark(run.bodies.tobytes(), growing, expected)
                if finished is not None:
                    expected += 1
                    yield _finish(finished, schema, travelling)
                continue
            if growing is None or topic not in by_topic:
                raise OneStrideError(f"{path}: expected an episode around each message, got {topic}")
            _take(growing, *by_topic[topic], run)
        if growing is not None:
            raise OneStrideError(f"{path}: expected an end of episode {growing.number}, got none")


def _runs(reader: Any, file: IO[bytes], cut: RunReader) -> Iterator[Run]:
    """Every message in the order of the file, chunk by chunk, each verified before it is looked at."""
    for index in reader.get_summary().chunk_indexes:
        file.seek(index.chunk_start_offset + 9)
        stream, length = get_chunk_data_stream(Chunk.read(ReadDataStream(file)), validate_crc=True)
        yield from cut.runs(stream.read(length))


def _mark(content: bytes, growing: _Growing | None, expected: int) -> tuple[_Growing | None, _Growing | None]:
    """(the episode that has ended, the one that grows) after a marker."""
    about = json.loads(string_of(content))
    begins = about["event"] == "begin"
    if about["episode"] != expected or begins != (growing is None):
        raise OneStrideError(f"expected episode {expected} to begin and end once, got {about['event']} at another")
    if not begins:
        return growing, None
    return None, _Growing(expected, int(about["shift"]), dict(about["attributes"]))


def _take(growing: _Growing, wire: Wire, is_final: bool, run: Run) -> None:
    payloads = wire.payloads(run.bodies)
    name = wire.feature.name
    if is_final:
        growing.final[name] = payloads[-1:].copy()
        return
    growing.rows.setdefault(name, _nothing(wire)).extend(payloads.copy())
    growing.times.setdefault(name, []).append(run.times - growing.shift)


def _nothing(wire: Wire) -> Growing:
    return Growing((wire.size,), "uint8")


def _finish(growing: _Growing, schema: Schema, travelling: dict[str, Wire]) -> Episode:
    data: dict[str, Array] = {}
    clocks: dict[str, Array] = {}
    for name, wire in travelling.items():
        data[name] = wire.decode(growing.rows.get(name, _nothing(wire)).taken())
        clock = np.concatenate([np.zeros(0, np.int64), *growing.times.get(name, [])])
        known = clocks.setdefault(wire.feature.stream, clock)
        if not np.array_equal(known, clock):
            raise OneStrideError(
                f"{wire.topic}: expected the times of stream {wire.feature.stream!r}, got others in episode "
                f"{growing.number}"
            )
    final = {name: travelling[name].decode(payload)[0] for name, payload in growing.final.items()}
    return Episode(data, {name: clocks[name] for name in schema.streams}, final, growing.attributes)

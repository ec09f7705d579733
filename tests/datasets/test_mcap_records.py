"""MCAP in arrays against MCAP message by message: the same bytes out, the same messages in, valid to the library."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestride.datasets.schema import Episode, Feature, Schema
from onestride.hardware.errors import OneStrideError

mcap_reader = pytest.importorskip("mcap.reader", reason="needs the extra `rosbag`")
stream_reader = pytest.importorskip("mcap.stream_reader")

from mcap.records import Chunk, Message, MessageIndex  # noqa: E402

from onestride.datasets.converters import mcap_chunks, mcap_records, mcap_runs  # noqa: E402
from onestride.datasets.converters.mcap_messages import definition, wires  # noqa: E402

KINDS = {
    "q": Feature(
        name="q", role="observation", shape=(2,), dtype="float32", names=("a", "b"), units=("rad",) * 2, stream="base"
    ),
    "action": Feature(name="action", role="action", shape=(3,), dtype="float16"),
    "depth": Feature(name="depth", role="observation", shape=(2, 3), dtype="uint16", stream="slow"),
    "flag": Feature(name="flag", role="info", shape=(), dtype="bool", stream="slow"),
    "other": Feature(name="other", role="info", shape=(2, 2), dtype="int64", stream="third"),
}
SCHEMA = Schema(features=tuple(KINDS.values()), control_rate=None, label="action", label_source="unknown")
LENGTHS = st.fixed_dictionaries({"base": st.integers(1, 30), "slow": st.integers(0, 9), "third": st.integers(0, 30)})


def _episode(lengths: dict[str, int], random: np.random.Generator) -> Episode:
    data = {one.name: random.integers(0, 99, (lengths[one.stream], *one.shape)) for one in SCHEMA.features}
    clocks = {name: 10**18 + np.cumsum(random.integers(0, 3, lengths[name]) * 10**9) for name in SCHEMA.streams}
    return Episode({name: rows.astype(KINDS[name].dtype) for name, rows in data.items()}, clocks, {}, {})


def _write(path: Path, episodes: list[Episode], shift: int) -> dict[str, list[tuple[int, bytes]]]:
    """Write episodes in batches; what each topic should hold, made message by message."""
    travelling, expected = wires(SCHEMA), {}
    with path.open("wb") as file:
        writer = mcap_chunks.ChunkWriter(file, "ros2", "test")
        channels = {name: writer.channel(one.topic, one.type, definition(one.type)) for name, one in travelling.items()}
        by_stream = {s: [one for one in travelling.values() if one.feature.stream == s] for s in SCHEMA.streams}
        layouts = [
            mcap_records.Layout(stream, tuple(mine), tuple(channels[one.feature.name] for one in mine))
            for stream, mine in by_stream.items()
        ]
        for episode in episodes:
            for batch in mcap_records.batches(episode, layouts, shift):
                writer.add(batch)
            for name, wire in travelling.items():
                times = (episode.timestamps[wire.feature.stream] + shift).tolist()
                rows = zip(episode.data[name], times, strict=True)
                expected.setdefault(wire.topic, []).extend((time, wire.message(row, time)) for row, time in rows)
        writer.finish()
    return expected


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LENGTHS, min_size=1, max_size=3), st.integers(0, 99), st.sampled_from((300, 5000, 1 << 20)))
def test_batches_hold_what_single_messages_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: list[dict[str, int]], seed: int, size: int
) -> None:
    monkeypatch.setattr(mcap_records, "BATCH_BYTES", size)
    monkeypatch.setattr(mcap_chunks, "CHUNK_BYTES", size)
    random = np.random.default_rng(seed)
    path = tmp_path / "x.mcap"
    expected = _write(path, [_episode(one, random) for one in lengths], 7)
    found: dict[str, list[tuple[int, bytes]]] = {topic: [] for topic in expected}
    with path.open("rb") as file:
        reader = mcap_reader.make_reader(file, validate_crcs=True)
        for _, channel, message in reader.iter_messages(log_time_order=False):
            assert message.log_time == message.publish_time
            found[channel.topic].append((message.log_time, message.data))
        counts = reader.get_summary().statistics.channel_message_counts
        topics = {one.topic: counts.get(number, 0) for number, one in reader.get_summary().channels.items()}
    assert found == expected
    assert topics == {topic: len(messages) for topic, messages in expected.items()}
    _check_indexes(path)


def _check_indexes(path: Path) -> None:
    """Every entry of a message index leads to the message it tells of, and none is missing."""
    with path.open("rb") as file:
        records = list(stream_reader.StreamReader(file, emit_chunks=True, validate_crcs=True).records)
    chunks = [place for place, one in enumerate(records) if isinstance(one, Chunk)]
    for place in chunks:
        stream, length = stream_reader.get_chunk_data_stream(records[place], validate_crc=True)
        content, entries = stream.read(length), 0
        for one in records[place + 1 :]:
            if not isinstance(one, MessageIndex):
                break
            for time, offset in one.records:
                head = struct.unpack_from("<BQHIQ", content, offset)
                assert (head[0], head[2], head[4]) == (5, one.channel_id, time)
                entries += 1
        assert entries == sum(isinstance(one, Message) for one in stream_reader.breakup_chunk(records[place]))


def test_within_an_episode_messages_are_in_order_of_time(tmp_path: Path) -> None:
    _write(tmp_path / "x.mcap", [_episode({"base": 30, "slow": 9, "third": 17}, np.random.default_rng(3))], 0)
    with (tmp_path / "x.mcap").open("rb") as file:
        reader = mcap_reader.make_reader(file)
        times = [message.log_time for _, _, message in reader.iter_messages(log_time_order=False)]
    assert times == sorted(times)
    assert len(set(times)) > 10


MESSAGES = st.tuples(st.integers(1, 3), st.integers(0, 2))
STRETCHES = st.lists(st.tuples(st.lists(MESSAGES, min_size=1, max_size=4), st.integers(1, 30)), max_size=6)
APART = 3


@settings(max_examples=200, deadline=None)
@given(STRETCHES, st.booleans())
def test_runs_are_the_messages_of_the_library(
    stretches: list[tuple[list[tuple[int, int]], int]], with_schema: bool
) -> None:
    """Patterns that repeat, that break off, that another channel interrupts."""
    records, number = [], 0
    for pattern, count in stretches:
        for channel, size in pattern * count:
            number += 1
            data = struct.pack("<BQHIQQ", 5, 22 + size, channel, number, 10 + number, 3) + bytes([number % 256]) * size
            records.append(data)
        if with_schema:
            records.append(struct.pack("<BQ", 0x55, 4) + b"more")
    content = b"".join(records)
    chunk = Chunk("", content, 0, 0, 0, len(content))
    messages = [one for one in stream_reader.breakup_chunk(chunk) if isinstance(one, Message)]
    expected = [(one.channel_id, one.log_time, one.data) for one in messages]
    found = []
    for run in mcap_runs.RunReader([APART]).runs(content):
        bodies = [body.tobytes() for body in run.bodies]
        found += list(zip([run.channel] * len(bodies), run.times.tolist(), bodies, strict=True))
    for channel in (1, 2, APART):
        assert [one for one in found if one[0] == channel] == [one for one in expected if one[0] == channel]
    assert _between(found) == _between(expected)


def _between(messages: list[tuple[int, int, bytes]]) -> list[list[tuple[int, int, bytes]]]:
    """The messages from one of the channel apart to the next, in any order."""
    groups: list[list[tuple[int, int, bytes]]] = [[]]
    for one in messages:
        if one[0] == APART:
            groups += [[one], []]
        else:
            groups[-1].append(one)
    return [sorted(group) for group in groups]


def test_a_pattern_is_read_in_few_runs() -> None:
    """Otherwise nothing is gained."""
    step = b"".join(struct.pack("<BQHIQQ", 5, 26, channel, 0, 1, 1) + b"data" for channel in (1, 2))
    runs = list(mcap_runs.RunReader([APART]).runs(step * 1000))
    assert len(runs) == 4
    assert sum(len(run.times) for run in runs) == 2000


@pytest.mark.parametrize("cut", [1, 8, 12, 30, 34])
def test_a_record_that_is_cut_off_is_one_error(cut: int) -> None:
    content = struct.pack("<BQHIQQ", 5, 26, 1, 0, 1, 1) + b"data"
    with pytest.raises(OneStrideError, match="expected whole records in a chunk"):
        list(mcap_runs.RunReader([]).runs(content * 3 + content[:cut]))

"""Writing MCAP chunk by chunk from batches of records; everything around the messages is the library's.

`mcap.writer.Writer` takes messages one by one, some 10 µs each: for low-dimensional data a multiple of all else.

Reference: https://mcap.dev/spec
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

import lz4.frame  # type: ignore[import-untyped]
import numpy as np
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)
from mcap.writer import MCAP0_MAGIC

from onestride.datasets.converters.mcap_records import Batch, Times

CHUNK_BYTES = 1 << 20
"""A chunk is closed at this size."""


class ChunkWriter:
    """An MCAP file that grows by batches of messages.

    Args:
        stream: open for writing, at its beginning.
        profile: of the file.
        library: who wrote it.
    """

    def __init__(self, stream: IO[bytes], profile: str, library: str) -> None:
        self._stream = stream
        self._schemas: dict[str, Schema] = {}
        self._channels: dict[str, Channel] = {}
        self._counts: dict[int, int] = {}
        self._metadata: list[MetadataIndex] = []
        self._chunks: list[ChunkIndex] = []
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self._index: dict[int, list[tuple[Times, Times]]] = {}
        self._pool = ThreadPoolExecutor(1)
        self._waiting: Future[tuple[Chunk, dict[int, bytes]]] | None = None
        stream.write(MCAP0_MAGIC + _bytes(Header(profile, library)))

    def add_metadata(self, name: str, content: dict[str, str]) -> None:
        """Write a note, before the first message."""
        record = _bytes(Metadata(name=name, metadata=content))
        self._metadata.append(MetadataIndex(offset=self._stream.tell(), length=len(record), name=name))
        self._stream.write(record)

    def channel(self, topic: str, type_name: str, definition: bytes) -> int:
        """The channel of a topic, new at its first call."""
        if topic not in self._channels:
            if type_name not in self._schemas:
                number = len(self._schemas) + 1
                self._schemas[type_name] = Schema(id=number, data=definition, encoding="ros2msg", name=type_name)
                self._append(_bytes(self._schemas[type_name]))
            number, schema = len(self._channels) + 1, self._schemas[type_name].id
            self._channels[topic] = Channel(
                id=number, topic=topic, message_encoding="cdr", metadata={}, schema_id=schema
            )
            self._append(_bytes(self._channels[topic]))
        return self._channels[topic].id

    def add(self, batch: Batch) -> None:
        """Append messages; closes the chunk when it is large enough."""
        for channel, times, offsets in batch.index:
            self._index.setdefault(channel, []).append((times, offsets + self._size))
            self._counts[channel] = self._counts.get(channel, 0) + len(times)
        self._append(batch.content.data)
        if self._size >= CHUNK_BYTES:
            self._close_chunk()

    def finish(self) -> None:
        """Write what is left, the indexes and the summary."""
        self._close_chunk()
        self._settle()
        self._pool.shutdown()
        self._stream.write(_bytes(DataEnd(0)))
        start = self._stream.tell()
        summary, offsets = b"", b""
        for opcode, records in self._summary():
            group = b"".join(map(_bytes, records))
            offset = SummaryOffset(group_opcode=opcode, group_start=start + len(summary), group_length=len(group))
            summary, offsets = summary + group, offsets + _bytes(offset)
        head = struct.pack("<BQQQ", Opcode.FOOTER, 20, start, start + len(summary))
        checksum = zlib.crc32(summary + offsets + head)
        self._stream.write(summary + offsets + _bytes(Footer(start, start + len(summary), checksum)) + MCAP0_MAGIC)

    def _append(self, part: bytes | memoryview) -> None:
        self._parts.append(part)
        self._size += len(part)

    def _close_chunk(self) -> None:
        """Compress in the background what was gathered, while the next is gathered."""
        self._settle()
        if self._index:
            self._waiting = self._pool.submit(_chunk, self._parts, self._index)
            self._parts, self._size, self._index = [], 0, {}

    def _settle(self) -> None:
        """Write the chunk that was compressed."""
        if self._waiting is None:
            return
        chunk, indexes = self._waiting.result()
        self._waiting = None
        start, record = self._stream.tell(), _bytes(chunk)
        places = np.cumsum([start + len(record), *map(len, indexes.values())]).tolist()
        self._stream.write(b"".join([record, *indexes.values()]))
        self._chunks.append(
            ChunkIndex(
                message_start_time=chunk.message_start_time,
                message_end_time=chunk.message_end_time,
                chunk_start_offset=start,
                chunk_length=len(record),
                message_index_offsets=dict(zip(indexes, places, strict=False)),
                message_index_length=places[-1] - places[0],
                compression=chunk.compression,
                compressed_size=len(chunk.data),
                uncompressed_size=chunk.uncompressed_size,
            )
        )

    def _summary(self) -> list[tuple[Opcode, Sequence[McapRecord]]]:
        statistics = Statistics(
            attachment_count=0,
            channel_count=len(self._channels),
            channel_message_counts=self._counts,
            chunk_count=len(self._chunks),
            message_count=sum(self._counts.values()),
            metadata_count=len(self._metadata),
            message_start_time=min((one.message_start_time for one in self._chunks), default=0),
            message_end_time=max((one.message_end_time for one in self._chunks), default=0),
            schema_count=len(self._schemas),
        )
        return [
            (Opcode.SCHEMA, list(self._schemas.values())),
            (Opcode.CHANNEL, list(self._channels.values())),
            (Opcode.STATISTICS, [statistics]),
            (Opcode.CHUNK_INDEX, self._chunks),
            (Opcode.METADATA_INDEX, self._metadata),
        ]


def _chunk(
    parts: list[bytes | memoryview], index: dict[int, list[tuple[Times, Times]]]
) -> tuple[Chunk, dict[int, bytes]]:
    """A chunk, and for each channel the record of where its messages are."""
    content = b"".join(parts)
    entries = {channel: _entries(found) for channel, found in index.items()}
    chunk = Chunk(
        compression="lz4",
        data=lz4.frame.compress(content),
        message_start_time=min(int(one[:, 0].min()) for one in entries.values()),
        message_end_time=max(int(one[:, 0].max()) for one in entries.values()),
        uncompressed_crc=zlib.crc32(content),
        uncompressed_size=len(content),
    )
    return chunk, {channel: _message_index(channel, one) for channel, one in entries.items()}


def _entries(found: list[tuple[Times, Times]]) -> Times:
    """(time [ns], offset) of each message."""
    return np.concatenate([np.stack(one, axis=1) for one in found])


def _message_index(channel: int, entries: Times) -> bytes:
    size = 16 * len(entries)
    return struct.pack("<BQHI", Opcode.MESSAGE_INDEX, 6 + size, channel, size) + entries.astype("<u8").tobytes()


def _bytes(record: McapRecord) -> bytes:
    builder: Any = RecordBuilder()
    record.write(builder)
    return bytes(builder.end())

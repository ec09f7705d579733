"""The least that any converter of a format has to do, for formats that are no plain arrays.

The format's own library, or the fastest there is, reads or writes the same content and looks at none of it: no schema,
no check, no episode. What is left of the raw copy's rate then is the most that could be had.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped]
import pyarrow.parquet as pq
from mcap.records import Chunk
from mcap.stream_reader import StreamReader


@dataclass(frozen=True)
class Floor:
    """What no converter can leave out, done by the fastest library for it and nothing else."""

    load: Callable[[Path], object]
    """Bring the file's content into memory: decompressed, as its rows or messages, which nobody looks at."""
    save: Callable[[Path, Path], Callable[[], object] | None]
    """Given a finished file, what writes the same content at a new path; None = the format is only read."""
    told: str


def load_parquet(source: Path) -> object:
    """Every data table, read and decompressed by pyarrow."""
    return [pq.read_table(file) for file in sorted((source / "data").rglob("*.parquet"))]


def save_parquet(made: Path, target: Path) -> Callable[[], object]:
    """The same data tables written by pyarrow in as many row groups."""
    files = sorted((made / "data").rglob("*.parquet"))
    tables = [(pq.read_table(file), pq.ParquetFile(file).num_row_groups) for file in files]

    def write() -> None:
        target.mkdir()
        for number, (table, groups) in enumerate(tables):
            size = -(-len(table) // groups)
            pq.write_table(table, target / f"{number}.parquet", size, use_dictionary=False, write_page_checksum=True)

    return write


def mcap_chunks(source: Path) -> list[Chunk]:
    """The compressed chunks of an MCAP file."""
    with source.open("rb") as file:
        return [record for record in StreamReader(file, emit_chunks=True).records if isinstance(record, Chunk)]


def load_mcap(source: Path) -> object:
    """Every chunk, decompressed by lz4; not a message is looked at."""
    return [lz4.frame.decompress(chunk.data) for chunk in mcap_chunks(source)]


def save_mcap(made: Path, target: Path) -> Callable[[], object]:
    """The finished messages, compressed by lz4 chunk by chunk, and written."""
    contents = [lz4.frame.decompress(chunk.data) for chunk in mcap_chunks(made)]

    def write() -> None:
        with target.open("wb") as file:
            for content in contents:
                file.write(lz4.frame.compress(content))

    return write


def load_rosbag2(source: Path) -> object:
    """Every message as its bytes, fetched by sqlite3; none is decoded."""
    (file,) = source.glob("*.db3")
    with closing(sqlite3.connect(file)) as base:
        return base.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp, id").fetchall()


FLOORS: dict[str, Floor] = {
    "lerobot": Floor(load_parquet, save_parquet, "the same data tables, read or written by pyarrow"),
    "mcap": Floor(load_mcap, save_mcap, "the same chunks, decompressed or compressed by lz4"),
    "rosbag2 sqlite3": Floor(load_rosbag2, lambda *_: None, "the messages' bytes, fetched by sqlite3"),
}

"""One immutable segment: a Zarr v3 group of whole episodes, readable by plain `zarr.open`.

Layout of a segment with E episodes:

- `data/<feature>` (N, *shape): all episodes one after the other, N rows of the feature's stream.
- `final/<feature>` (E, *shape): value after each episode's last action; attribute `present` (E) says where known.
- `time/<stream>` (N,) int64 [ns]: measured.
- `index/<stream>` (N_base,) int64: last row of that stream available at each base step, -1 = none yet.
- `meta/episodes` (E, S, 2) int64: [start, stop) rows of each episode in each stream; attributes `streams` and
  `attributes` (one JSON object for each episode).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import JsonValue
from zarr.codecs import BloscCodec

from onestride.datasets.manifest import SegmentEntry
from onestride.datasets.schema import BASE, Array, Episode, Feature, Schema
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError

CHUNK_BYTES = 4 << 20
"""Uncompressed size of a chunk: segments are read whole, so few files beat fine access."""


def write_segment(path: Path, schema: Schema, episodes: Sequence[Episode]) -> None:
    """Write validated episodes as a new segment at `path`, which must not exist. Not yet durable."""
    group = zarr.open_group(str(path), mode="w-", zarr_format=3)
    for name in ("data", "final", "time", "index", "meta"):
        group.create_group(name)
    for feature in schema.features:
        rows = [episode.data[feature.name] for episode in episodes]
        _write(group, f"data/{feature.name}", np.concatenate(rows))
        _write_final(group, feature, episodes)
    bounds = _bounds(schema, episodes)
    for number, stream in enumerate(schema.streams):
        _write(group, f"time/{stream}", np.concatenate([episode.timestamps[stream] for episode in episodes]))
        if stream != BASE:
            _write(group, f"index/{stream}", _stream_index(stream, episodes, bounds[:, number, 0]))
    attributes = {"streams": list(schema.streams), "attributes": [episode.attributes for episode in episodes]}
    _write(group, "meta/episodes", bounds, attributes)


class Segment:
    """Reader of one committed segment; verifies its checksum before the first byte is used."""

    def __init__(self, path: Path, entry: SegmentEntry) -> None:
        self.path = path
        self.entry = entry

    def verify(self) -> None:
        """Compare the segment's files with the manifest.

        Raises:
            OneStrideError: a byte, a file or a name differs.
        """
        if not self.path.is_dir():
            raise OneStrideError(f"{self.path}: expected segment {self.entry.id}, got nothing there")
        checksum = tree_sha256(self.path)
        if checksum != self.entry.checksum:
            raise OneStrideError(
                f"{self.path}: expected segment {self.entry.id} with checksum {self.entry.checksum[:16]}…, "
                f"got {checksum[:16]}…: altered after it was committed"
            )

    def read(self, feature: str, rows: slice = slice(None)) -> Array:
        """Rows of a feature (N, *shape), all by default."""
        return np.asarray(self._group[f"data/{feature}"][rows])

    def final(self, feature: Feature) -> tuple[Array, NDArray[np.bool_]]:
        """Values after the last action (E, *shape), and where they are known (E,)."""
        count = len(self.entry.lengths)
        array: Any = self._group.get(f"final/{feature.name}")
        if array is None:
            return np.zeros((count, *feature.shape), feature.dtype), np.zeros(count, bool)
        return np.asarray(array[...]), np.asarray(array.attrs["present"], bool)

    def time(self, stream: str, rows: slice = slice(None)) -> NDArray[np.int64]:
        """Timestamps (N,) [ns] of a stream, all by default."""
        return np.asarray(self._group[f"time/{stream}"][rows], np.int64)

    def index(self, stream: str) -> NDArray[np.int64]:
        """Last row of a stream available at each base step (N_base,), -1 = none yet in that episode."""
        return np.asarray(self._group[f"index/{stream}"][...], np.int64)

    @cached_property
    def bounds(self) -> NDArray[np.int64]:
        """[start, stop) rows (E, S, 2) of each episode in each stream."""
        return np.asarray(self._group["meta/episodes"][...], np.int64)

    @cached_property
    def attributes(self) -> list[dict[str, JsonValue]]:
        """Attributes of each episode."""
        return list(self._group["meta/episodes"].attrs["attributes"])

    @cached_property
    def _group(self) -> Any:
        self.verify()
        return zarr.open_group(str(self.path), mode="r", zarr_format=3)


def _write(group: Any, name: str, array: Array, attributes: dict[str, Any] | None = None) -> None:
    row_bytes = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:])))
    rows = max(1, min(len(array), CHUNK_BYTES // row_bytes))
    group.create_array(
        name,
        data=np.ascontiguousarray(array),
        chunks=(rows, *array.shape[1:]),
        compressors=BloscCodec(cname="zstd", clevel=5),
        chunk_key_encoding={"name": "default", "separator": "."},
        attributes=attributes,
        # Left out, a chunk that equals the fill value reads back as it: -0.0 as 0.0 where zarr compares values.
        config={"write_empty_chunks": True},
    )


def _write_final(group: Any, feature: Feature, episodes: Sequence[Episode]) -> None:
    present = [feature.name in episode.final for episode in episodes]
    if not any(present):
        return
    absent = np.zeros(feature.shape, feature.dtype)
    values = np.stack([np.asarray(episode.final.get(feature.name, absent)) for episode in episodes])
    _write(group, f"final/{feature.name}", values, {"present": present})


def _bounds(schema: Schema, episodes: Sequence[Episode]) -> NDArray[np.int64]:
    lengths = [[len(episode.timestamps[stream]) for stream in schema.streams] for episode in episodes]
    stops = np.cumsum(np.asarray(lengths, np.int64), axis=0)
    bounds: NDArray[np.int64] = np.stack([stops - np.asarray(lengths), stops], axis=-1)
    return bounds


def _stream_index(stream: str, episodes: Sequence[Episode], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    parts = []
    for episode, start in zip(episodes, starts, strict=True):
        last = np.searchsorted(episode.timestamps[stream], episode.timestamps[BASE], side="right") - 1
        parts.append(np.where(last < 0, -1, last + start))
    index: NDArray[np.int64] = np.concatenate(parts).astype(np.int64)
    return index

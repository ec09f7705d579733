"""One immutable segment: a Zarr v3 group of whole episodes, readable by plain `zarr.open`.

Layout of a segment with E episodes:

- `data/<feature>` (N, *shape): all episodes one after the other, N rows of the feature's stream.
- `video/<feature>.mp4`: the same for a feature of the codec `video`; the group's attributes hold a note for each.
- `final/<feature>` (E, *shape): value after each episode's last action; attribute `present` (E) says where known.
- `time/<stream>` (N,) int64 [ns]: measured.
- `index/<stream>` (N_base,) int64: last row of that stream available at each base step, -1 = none yet.
- `meta/episodes` (E, S, 2) int64: [start, stop) rows of each episode in each stream; attributes `streams` and
  `attributes` (one JSON object for each episode).
- `meta/checksums` (E, K) uint32: see `checksums`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from onestride.datasets import checksums, video
from onestride.datasets.schema import BASE, Array, Episode, Feature, Schema

CHUNK_BYTES = 4 << 20
"""Uncompressed size of a chunk: few files, and what reading a single row has to decompress."""
LEVEL = 3
"""Of zstd: 2.5 times as fast as level 5 on joint states, for files 7 % larger (550 and 215 MB/s on one core)."""
BLOCK_BYTES = 16 << 20
"""What each of `WORKERS` holds in memory at once, besides the episodes, which may lie on disk."""
WORKERS = 2
"""Arrays that are written at once: compressing one hides the waiting for another's files."""
UNKNOWN_RATE = 30.0

VideoWriter = Callable[[Feature, Path], video.VideoNote]
"""Makes the video file of a feature at a path."""


class _Array(NamedTuple):
    """An array of a segment that is to be written: its parts, one after the other."""

    name: str
    stream: str
    """By which clock the parts belong to episodes, see `checksums`."""
    parts: Sequence[Array]
    attributes: dict[str, Any] | None = None


def write_segment(path: Path, schema: Schema, episodes: Sequence[Episode], videos: VideoWriter | None = None) -> None:
    """Write validated episodes as a new segment at `path`, which must not exist. Not yet durable.

    Args:
        path: folder to make.
        schema: of the episodes.
        episodes: their arrays may lie on disk (`np.memmap`).
        videos: makes the video files instead of encoding the episodes' images.
    """
    group = zarr.open_group(str(path), mode="w-", zarr_format=3)
    for name in ("data", "final", "time", "index", "meta"):
        group.create_group(name)
    sums = checksums.Table()
    bounds = _bounds(schema, episodes)
    _write_all(group, [one for feature in schema.features for one in _of_feature(feature, episodes)], sums)
    _write_videos(group, path, schema, episodes, sums, videos or _encoder(episodes))
    _write_all(group, list(_clocks(schema, episodes, bounds)), sums)
    attributes = {"streams": list(schema.streams), "attributes": [episode.attributes for episode in episodes]}
    _write(group, "meta/episodes", [bounds], attributes)
    _write(group, checksums.NAME, [sums.array], sums.attributes)


def video_file(segment: Path, feature: str) -> Path:
    """Where a segment keeps the video of a feature."""
    return segment / "video" / f"{feature}.mp4"


def _write_all(group: Any, arrays: Sequence[_Array], sums: checksums.Table) -> None:
    """Write several arrays at once, and note their checksums in the order given."""
    with ThreadPoolExecutor(WORKERS) as pool:
        written = pool.map(lambda one: _write(group, one.name, one.parts, one.attributes), arrays)
        for one, column in zip(arrays, written, strict=True):
            sums.add(one.name, one.stream, column)


def _write(group: Any, name: str, parts: Sequence[Array], attributes: dict[str, Any] | None = None) -> list[int]:
    """Write the parts one after the other as an array, block by block; the checksum of each."""
    length, shape, dtype = sum(map(len, parts)), parts[0].shape[1:], parts[0].dtype
    row_bytes = max(1, dtype.itemsize * int(np.prod(shape)))
    rows = max(1, min(length, CHUNK_BYTES // row_bytes))
    array = group.create_array(
        name,
        shape=(length, *shape),
        dtype=dtype,
        chunks=(rows, *shape),
        compressors=BloscCodec(cname="zstd", clevel=LEVEL),
        chunk_key_encoding={"name": "default", "separator": "."},
        attributes=attributes,
        # Left out, a chunk that equals the fill value reads back as it: -0.0 as 0.0 where zarr compares values.
        config={"write_empty_chunks": True},
    )
    # Whole chunks at a time: a chunk written in two goes would be read back and compressed again.
    step = rows * max(1, BLOCK_BYTES // (rows * row_bytes))
    for start in range(0, length, step):
        array[start : start + step] = _block(parts, start, min(start + step, length))
    return [checksums.checksum(part) for part in parts]


def _block(parts: Sequence[Array], start: int, stop: int) -> Array:
    """Rows [start, stop) of the parts, one after the other."""
    found, offset = [], 0
    for part in parts:
        low, high = max(start - offset, 0), min(stop - offset, len(part))
        if low < high:
            found.append(part[low:high])
        offset += len(part)
    return np.ascontiguousarray(found[0] if len(found) == 1 else np.concatenate(found))


def _of_feature(feature: Feature, episodes: Sequence[Episode]) -> Iterator[_Array]:
    """A feature's rows, and its values after the last action where an episode has one."""
    if feature.codec == "lossless":
        yield _Array(f"data/{feature.name}", feature.stream, [episode.data[feature.name] for episode in episodes])
    present = [feature.name in episode.final for episode in episodes]
    if any(present):
        absent = np.zeros(feature.shape, feature.dtype)
        values = [np.asarray(episode.final.get(feature.name, absent))[np.newaxis] for episode in episodes]
        yield _Array(f"final/{feature.name}", checksums.PER_EPISODE, values, {"present": present})


def _clocks(schema: Schema, episodes: Sequence[Episode], bounds: NDArray[np.int64]) -> Iterator[_Array]:
    """Every stream's timestamps, and its index to the base clock."""
    for number, stream in enumerate(schema.streams):
        yield _Array(f"time/{stream}", stream, [episode.timestamps[stream] for episode in episodes])
        if stream != BASE:
            yield _Array(f"index/{stream}", BASE, list(_stream_index(stream, episodes, bounds[:, number, 0])))


def _write_videos(
    group: Any,
    path: Path,
    schema: Schema,
    episodes: Sequence[Episode],
    sums: checksums.Table,
    write: VideoWriter,
) -> None:
    filmed = [feature for feature in schema.features if feature.codec == "video"]
    if not filmed:
        return
    notes: dict[str, Any] = {}
    folder = group.create_group("video")
    for feature in filmed:
        lengths = [len(episode.timestamps[feature.stream]) for episode in episodes]
        if sum(lengths):
            file = video_file(path, feature.name)
            notes[feature.name] = write(feature, file).model_dump(mode="json")
            sums.add(f"video/{feature.name}", feature.stream, video.packet_checksums(file, lengths))
    folder.attrs.update(notes)


def _encoder(episodes: Sequence[Episode]) -> VideoWriter:
    def encode(feature: Feature, file: Path) -> video.VideoNote:
        rate = nominal_rate([episode.timestamps[feature.stream] for episode in episodes])
        return video.encode(file, [episode.data[feature.name] for episode in episodes], rate or UNKNOWN_RATE)

    return encode


def nominal_rate(clocks: Sequence[NDArray[np.int64]]) -> float | None:
    """The median rate of clocks [Hz] in ns; None where no two ticks differ."""
    gaps = np.concatenate([np.zeros(0, np.int64), *(np.diff(clock) for clock in clocks)])
    period = float(np.median(gaps)) if len(gaps) else 0.0
    return 1e9 / period if period > 0 else None


def _bounds(schema: Schema, episodes: Sequence[Episode]) -> NDArray[np.int64]:
    lengths = [[len(episode.timestamps[stream]) for stream in schema.streams] for episode in episodes]
    stops = np.cumsum(np.asarray(lengths, np.int64), axis=0)
    bounds: NDArray[np.int64] = np.stack([stops - np.asarray(lengths), stops], axis=-1)
    return bounds


def _stream_index(stream: str, episodes: Sequence[Episode], starts: NDArray[np.int64]) -> Iterator[Array]:
    for episode, start in zip(episodes, starts, strict=True):
        last = np.searchsorted(episode.timestamps[stream], episode.timestamps[BASE], side="right") - 1
        yield np.where(last < 0, -1, last + start).astype(np.int64)

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

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestride.datasets import checksums, video
from onestride.datasets.schema import BASE, Array, Episode, Feature, Schema
from onestride.datasets.zarr_files import ArrayWriter, describe_group, write_group

CHUNK_BYTES = 4 << 20
"""Uncompressed size of a chunk: few files, and what reading a single row has to decompress."""
WORKERS = 2
"""Chunks in the making at once, each in memory plain and compressed, besides the episodes, which may lie on disk."""
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


class _Begun(NamedTuple):
    """An array that is being written."""

    array: _Array
    chunks: list[Future[None]]
    sums: Future[list[int]]

    def finish(self) -> list[int]:
        """Wait for its last chunk; the checksum of each part."""
        for chunk in self.chunks:
            chunk.result()
        return self.sums.result()


def write_segment(path: Path, schema: Schema, episodes: Sequence[Episode], videos: VideoWriter | None = None) -> None:
    """Write validated episodes as a new segment at `path`, which must not exist. Not yet durable.

    Args:
        path: folder to make.
        schema: of the episodes.
        episodes: their arrays may lie on disk (`np.memmap`).
        videos: makes the video files instead of encoding the episodes' images.
    """
    write_group(path)
    for name in ("data", "final", "time", "index", "meta"):
        write_group(path / name)
    sums, bounds = checksums.Table(), _bounds(schema, episodes)
    about = {"streams": list(schema.streams), "attributes": [episode.attributes for episode in episodes]}
    with _workers() as pool:
        rows = [_begin(pool, path, one) for feature in schema.features for one in _of_feature(feature, episodes)]
        clocks = [_begin(pool, path, one) for one in _clocks(schema, episodes, bounds)]
        _begin(pool, path, _Array("meta/episodes", BASE, [bounds], about)).finish()
        _note(rows, sums)
        _write_videos(path, schema, episodes, sums, videos or _encoder(episodes))
        _note(clocks, sums)
        said = [checksums.attributes_checksum(episode.attributes, episode.final) for episode in episodes]
        sums.add(checksums.ATTRIBUTES, checksums.PER_EPISODE, said)
        _begin(pool, path, _Array(checksums.NAME, checksums.PER_EPISODE, [sums.array], sums.attributes)).finish()


def video_file(segment: Path, feature: str) -> Path:
    """Where a segment keeps the video of a feature."""
    return segment / "video" / f"{feature}.mp4"


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Threads that give up what waits when something fails."""
    pool = ThreadPoolExecutor(WORKERS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(pool: ThreadPoolExecutor, path: Path, array: _Array) -> _Begun:
    """Have the parts written one after the other as an array of the segment at `path`, chunk by chunk."""
    parts = array.parts
    length, shape, dtype = sum(map(len, parts)), parts[0].shape[1:], parts[0].dtype
    rows = max(1, min(length, CHUNK_BYTES // max(1, dtype.itemsize * int(np.prod(shape)))))
    writer = ArrayWriter(path / array.name, (length, *shape), dtype, rows, array.attributes)
    starts = list(accumulate(map(len, parts), initial=0))

    def write(start: int) -> None:
        writer.write(start // rows, _block(parts, starts, start, min(start + rows, length)))

    chunks = [pool.submit(write, start) for start in range(0, length, rows)]
    return _Begun(array, chunks, pool.submit(lambda: [checksums.checksum(part) for part in parts]))


def _note(begun: Sequence[_Begun], sums: checksums.Table) -> None:
    """Finish several arrays, and note their checksums in the order given."""
    for one in begun:
        sums.add(one.array.name, one.array.stream, one.finish())


def _block(parts: Sequence[Array], starts: Sequence[int], start: int, stop: int) -> Array:
    """Rows [start, stop) of the parts, which begin at `starts`, one after the other."""
    first = bisect_right(starts, start) - 1
    last = bisect_right(starts, stop - 1)
    found = [
        part[max(start - offset, 0) : stop - offset]
        for part, offset in zip(parts[first:last], starts[first:last], strict=True)
    ]
    return found[0] if len(found) == 1 else np.concatenate(found)


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
    path: Path, schema: Schema, episodes: Sequence[Episode], sums: checksums.Table, write: VideoWriter
) -> None:
    filmed = [feature for feature in schema.features if feature.codec == "video"]
    if not filmed:
        return
    notes: dict[str, Any] = {}
    (path / "video").mkdir()
    for feature in filmed:
        lengths = [len(episode.timestamps[feature.stream]) for episode in episodes]
        if sum(lengths):
            file = video_file(path, feature.name)
            notes[feature.name] = write(feature, file).model_dump(mode="json")
            sums.add(f"video/{feature.name}", feature.stream, video.packet_checksums(file, lengths))
    describe_group(path / "video", notes)


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

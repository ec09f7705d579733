"""A check of every episode by itself, so that damage to a segment can be told by episode and not only by file.

`meta/checksums` (E, K) uint32: CRC-32 of each episode's rows in each of K arrays, named by the attribute `arrays`;
the attribute `streams` says by which clock an array's rows belong to episodes, "" = one row for each episode.
The column `attributes` is no array: CRC-32 of the canonical JSON of an episode's attributes and of the features whose
value after the last action is known. Segments from before there was this column are read as ever.
The manifest's SHA-256 decides whether a segment is sound; these say what is still sound in one that is not.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from onestride.datasets import video
from onestride.datasets.schema import Array
from onestride.hardware.durable import canonical_json
from onestride.hardware.errors import OneStrideError

NAME = "meta/checksums"
ATTRIBUTES = "attributes"
PER_EPISODE = ""
_BLOCK = 8 << 20

Damage = dict[int, list[str]]
"""Committed episode of a segment -> names of its arrays that are not what was committed."""


def checksum(rows: Array) -> int:
    """CRC-32 of the bytes of an array (T, ...); one on disk is read block by block."""
    if rows.nbytes <= _BLOCK:
        return zlib.crc32(np.ascontiguousarray(rows).data)
    step = max(1, _BLOCK // max(1, rows.nbytes // len(rows)))
    value = 0
    for start in range(0, len(rows), step):
        value = zlib.crc32(np.ascontiguousarray(rows[start : start + step]).data, value)
    return value


def attributes_checksum(attributes: Mapping[str, Any], final: Iterable[str]) -> int:
    """CRC-32 of an episode's attributes and of the names of those features whose final value is known."""
    # Once through JSON: keys that are numbers become words, by which they are then sorted.
    return zlib.crc32(canonical_json([json.loads(json.dumps(dict(attributes))), sorted(final)]))


class Table:
    """Gathers the checksums of a segment while it is written."""

    def __init__(self) -> None:
        self._columns: list[Sequence[int]] = []
        self._names: list[str] = []
        self._streams: list[str] = []

    def add(self, name: str, stream: str, column: Sequence[int]) -> None:
        """One checksum for each episode of an array."""
        self._columns.append(column)
        self._names.append(name)
        self._streams.append(stream)

    @property
    def array(self) -> NDArray[np.uint32]:
        """Checksums (E, K)."""
        return np.ascontiguousarray(np.array(self._columns, np.uint32).T)

    @property
    def attributes(self) -> dict[str, Any]:
        """What says whose they are."""
        return {"arrays": self._names, "streams": self._streams}


def find_damage(segment: Path, count: int) -> Damage | None:
    """What is damaged in a segment of `count` episodes; None where that cannot be told."""
    try:
        group: Any = zarr.open_group(str(segment), mode="r", zarr_format=3)
        recorded, episodes = group[NAME], group["meta/episodes"]
        names, streams = list(recorded.attrs["arrays"]), list(recorded.attrs["streams"])
        values = np.asarray(recorded[...])
        bounds = np.asarray(episodes[...], np.int64)
        columns = {str(stream): bounds[:, place] for place, stream in enumerate(episodes.attrs["streams"])}
        columns[PER_EPISODE] = np.stack([np.arange(count), np.arange(1, count + 1)], axis=-1)
        rows = [columns[stream] for stream in streams]
        if values.shape != (count, len(names)) or bounds.shape[0] != count:
            return None
    except Exception:  # damaged bytes make zarr, its codecs and json raise whatever they like
        return None
    found: Damage = {}
    for name, bound, column in zip(names, rows, values.T, strict=True):
        for episode, value in enumerate(_recomputed(segment, group, name, bound)):
            if value is None or value != column[episode]:
                found.setdefault(episode, []).append(name)
    return found


def covers_attributes(segment: Path) -> bool:
    """Whether a segment, the table of which can be read, has checksums of its episodes' attributes."""
    try:
        recorded: Any = zarr.open_array(str(segment / NAME), mode="r", zarr_format=3)
        return ATTRIBUTES in recorded.attrs["arrays"]
    except Exception:  # as above
        return False


def _recomputed(segment: Path, group: Any, name: str, bounds: NDArray[np.int64]) -> list[int | None]:
    """Each episode's checksum as its rows are now, None where they cannot be read."""
    if name == ATTRIBUTES:
        return _attributes_checksums(group, len(bounds))
    if name.startswith("video/"):
        try:
            return list(video.packet_checksums(segment / f"{name}.mp4", (bounds[:, 1] - bounds[:, 0]).tolist()))
        except OneStrideError:
            return [None] * len(bounds)
    return [_checksum_of(segment / name, group, name, int(start), int(stop)) for start, stop in bounds]


def _attributes_checksums(group: Any, count: int) -> list[int | None]:
    try:
        attributes = list(group["meta/episodes"].attrs["attributes"])
        present = {name: list(array.attrs["present"]) for name, array in group["final"].arrays()}
        known = [[name for name, told in present.items() if told[episode]] for episode in range(count)]
        return [attributes_checksum(*both) for both in zip(attributes, known, strict=True)]
    except Exception:  # as above
        return [None] * count


def _checksum_of(folder: Path, group: Any, name: str, start: int, stop: int) -> int | None:
    try:
        array = group[name]
        return checksum(np.asarray(array[start:stop])) if _can_be_decoded(folder, array, start, stop) else None
    except Exception:  # as above
        return None


def _can_be_decoded(folder: Path, array: Any, start: int, stop: int) -> bool:
    """Whether the chunks of some rows have the sizes that their headers claim.

    Blosc believes its header and reads past the end of a chunk that was cut off.
    """
    expected = int(np.prod(array.chunks)) * array.dtype.itemsize
    for number in range(start // array.chunks[0], -(-stop // array.chunks[0])):
        chunk = folder / ".".join(["c", str(number), *["0"] * (array.ndim - 1)])
        with chunk.open("rb") as file:
            # https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst: sizes plain, of a block, compressed.
            plain, block, compressed = struct.unpack("<3I", file.read(16)[4:])
        if (plain, compressed) != (expected, chunk.stat().st_size) or block > plain:
            return False
    return True

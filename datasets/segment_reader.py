"""Reading one committed segment: verified before its first byte is used, and every episode by itself when damaged."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import JsonValue

from onestride.datasets import checksums, video
from onestride.datasets.manifest import SegmentEntry
from onestride.datasets.schema import Array, Feature
from onestride.datasets.segments import video_file
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError

UNVOUCHED = "attributes, of which this older segment has no checksum"


class Segment:
    """Reader of one committed segment.

    Args:
        path: its folder.
        entry: what the manifest says of it.
        first: number under which readers see its first episode, for messages.
    """

    def __init__(self, path: Path, entry: SegmentEntry, first: int = 0) -> None:
        self.path = path
        self.entry = entry
        self.first = first
        self._arrays: dict[str, Any] = {}
        self._present: dict[str, NDArray[np.bool_]] = {}
        self._verified = False

    def verify(self) -> None:
        """Compare the segment's files with the manifest.

        Raises:
            OneStrideError: a byte, a file or a name differs; names the episodes that are hit.
        """
        if not self.path.is_dir():
            raise OneStrideError(f"{self.path}: expected segment {self.entry.id}, got nothing there")
        checksum = tree_sha256(self.path)
        if checksum != self.entry.checksum:
            raise OneStrideError(
                f"{self.path}: expected segment {self.entry.id} with checksum {self.entry.checksum[:16]}…, "
                f"got {checksum[:16]}…: altered after it was committed; {self._told(self.damage())}"
            )

    def verify_once(self) -> None:
        """`verify` unless this reader did so before."""
        if not self._verified:
            self.verify()
            self._verified = True

    def unverified(self) -> Segment:
        """A reader of the same segment that checks nothing: for what `damage` found sound."""
        reader = Segment(self.path, self.entry.model_copy(update={"meta": ""}), self.first)
        reader.__dict__["_group"] = zarr.open_group(str(self.path), mode="r", zarr_format=3)
        return reader

    def damage(self) -> checksums.Damage | None:
        """Committed episode -> what of it is altered or unreadable; None where that cannot be told."""
        count = len(self.entry.lengths)
        found = checksums.find_damage(self.path, count)
        if found is None or self._attributes_vouched_for():
            return found
        return {index: [*found.get(index, []), UNVOUCHED] for index in range(count)}

    def read(self, feature: str, rows: slice = slice(None)) -> Array:
        """Rows of a feature (N, *shape), all by default."""
        if feature in self.video_notes:
            note = self.video_notes[feature]
            start, stop, _ = rows.indices(note.frames)
            return video.decode(video_file(self.path, feature), note, start, max(start, stop))
        return np.asarray(self._array(f"data/{feature}")[rows])

    def final(self, feature: Feature) -> tuple[Array, NDArray[np.bool_]]:
        """Values after the last action (E, *shape), and where they are known (E,)."""
        array = self._final(feature.name)
        if array is None:
            empty = np.zeros((len(self.entry.lengths), *feature.shape), feature.dtype)
            return empty, self.final_present(feature)
        return np.asarray(array[...]), self.final_present(feature)

    def final_present(self, feature: Feature) -> NDArray[np.bool_]:
        """Of which episodes (E,) the value after the last action is known; not to be written to."""
        if feature.name not in self._present:
            array = self._final(feature.name)
            empty = np.zeros(len(self.entry.lengths), bool)
            self._present[feature.name] = empty if array is None else np.asarray(array.attrs["present"], bool)
        return self._present[feature.name]

    def _final(self, feature: str) -> Any:
        name = f"final/{feature}"
        if name not in self._arrays:
            self._arrays[name] = self._group.get(name)
        return self._arrays[name]

    def time(self, stream: str, rows: slice = slice(None)) -> NDArray[np.int64]:
        """Timestamps (N,) [ns] of a stream, all by default."""
        return np.asarray(self._array(f"time/{stream}")[rows], np.int64)

    def index(self, stream: str, rows: slice = slice(None)) -> NDArray[np.int64]:
        """Last row of a stream available at each base step (N_base,), -1 = none yet in that episode."""
        return np.asarray(self._array(f"index/{stream}")[rows], np.int64)

    @cached_property
    def bounds(self) -> NDArray[np.int64]:
        """[start, stop) rows (E, S, 2) of each episode in each stream."""
        return np.asarray(self._episodes[...], np.int64)

    @cached_property
    def attributes(self) -> list[dict[str, JsonValue]]:
        """Attributes of each committed episode, as recorded."""
        return list(self._episodes.attrs["attributes"])

    @cached_property
    def video_notes(self) -> dict[str, video.VideoNote]:
        """What is known of each video file."""
        group: Any = self._group.get("video")
        notes = {} if group is None else dict(group.attrs)
        return {name: video.VideoNote.model_validate(note) for name, note in notes.items()}

    def _attributes_vouched_for(self) -> bool:
        """Whether attributes have checksums of their own, or lie in a sound folder."""
        return checksums.covers_attributes(self.path) or self._meta_is_sound()

    def _meta_is_sound(self) -> bool:
        try:
            return tree_sha256(self.path / "meta") == self.entry.meta
        except OSError:
            return False

    @cached_property
    def _episodes(self) -> Any:
        """`meta/episodes`, trusted after a check of the folder `meta` alone where the manifest has one."""
        if not self.entry.meta:
            return self._group["meta/episodes"]
        if not self._meta_is_sound():
            self.verify()
        return zarr.open_array(str(self.path / "meta" / "episodes"), mode="r", zarr_format=3)

    @cached_property
    def _group(self) -> Any:
        self.verify_once()
        return zarr.open_group(str(self.path), mode="r", zarr_format=3)

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            self._arrays[name] = self._group[name]
        return self._arrays[name]

    def _told(self, damage: checksums.Damage | None) -> str:
        """The damage in words, by the numbers under which readers see the episodes."""
        if damage is None:
            last = self.first + len(self.entry.visible) - 1
            return f"hit may be any of episodes {self.first} to {last}"
        if not damage:
            return "no episode of it is hit, only what describes them"
        return "hit: " + ", ".join(self._told_one(index, arrays) for index, arrays in sorted(damage.items()))

    def _told_one(self, index: int, arrays: list[str]) -> str:
        numbers = self.entry.numbers(index, self.first)
        who = " and ".join(f"episode {number}" for number in numbers) or "a deleted episode"
        return f"{who} ({', '.join(arrays)})"

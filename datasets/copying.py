"""Copying what is visible of a store into another of the same schema, without loss.

Small segments are gathered into larger ones, large ones are copied as files, and video is never encoded again: its
segments are copied whole, or the packets of the episodes that are left. Memory stays below the writer's segment size.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from onestride.datasets import video
from onestride.datasets.rows import Piece
from onestride.datasets.schema import Feature
from onestride.datasets.segment_reader import Segment
from onestride.datasets.segment_writer import SEGMENT_BYTES, SegmentWriter
from onestride.datasets.segments import video_file, write_segment
from onestride.datasets.store import Store
from onestride.hardware.durable import tree_sha256
from onestride.hardware.errors import OneStrideError

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


def copy_episodes(source: Store, writer: SegmentWriter, told: Callable[[], None]) -> int:
    """Add every visible episode of `source` to the writer's store, in order.

    Args:
        source: of the same schema.
        writer: open.
        told: called after each episode.

    Returns:
        Steps of video that are hidden in the source and could not be left behind: parts that begin between two key
        frames keep the whole episode, hidden as before.

    Raises:
        OneStrideError: damaged source, or the disk refuses.
    """
    number, kept = 0, 0
    filmed = any(feature.codec == "video" for feature in source.schema.features)
    for segment in source.segments:
        pieces = source.pieces[number : number + len(segment.entry.visible)]
        numbers = range(number, number + len(pieces))
        number += len(pieces)
        if not pieces:
            continue
        if filmed and segment.entry.edits and _cuttable(segment, pieces, source):
            writer.flush()
            extract(writer.store, source, numbers)
        elif filmed or (not segment.entry.edits and _bytes(segment.path) >= SEGMENT_BYTES // 4):
            writer.flush()
            kept += sum(segment.entry.lengths) - sum(piece.length for piece in pieces)
            adopt(writer.store, segment)
        else:
            for episode in numbers:
                writer.add(source.read_episode(episode))
                told()
            continue
        for _ in numbers:
            told()
    return kept


def adopt(store: Store, segment: Segment) -> str:
    """Commit a copy of another store's segment, file by file, with its edits.

    Raises:
        OneStrideError: the segment is damaged, or the disk refuses.
    """

    def fill(staged: Path) -> None:
        shutil.copytree(segment.path, staged, copy_function=shutil.copyfile)
        if tree_sha256(staged) != segment.entry.checksum:
            # Either side of the copy: `verify` tells which episodes, if it was the source.
            segment.verify()
            raise OneStrideError(f"{segment.path}: expected a faithful copy, got an altered one: try again")

    return store.commit(segment.entry.lengths, fill, segment.entry.edits)


def extract(store: Store, source: Store, episodes: Sequence[int]) -> str:
    """Commit some episodes of one segment of `source`; video is copied packet by packet.

    Raises:
        OneStrideError: an episode's video does not begin at a key frame, damage, or the disk refuses.
    """
    features, streams = source.schema.features, source.schema.streams
    pieces = [source.pieces[number] for number in episodes]
    plain = [feature for feature in features if feature.codec == "lossless"]
    read = [piece.read(plain, features, streams) for piece in pieces]

    def copy(feature: Feature, target: Path) -> video.VideoNote:
        return copy_video(pieces[0].segment, feature, [piece.rows(streams, feature.stream) for piece in pieces], target)

    return store.commit(
        [episode.length for episode in read], lambda staged: write_segment(staged, source.schema, read, copy)
    )


def copy_video(segment: Segment, feature: Feature, ranges: Sequence[tuple[int, int]], target: Path) -> video.VideoNote:
    """Write some rows of a segment's video as a new file; its PSNR is stated as of the file it comes from."""
    video.copy_frames(video_file(segment.path, feature.name), target, ranges)
    frames = sum(stop - start for start, stop in ranges)
    return segment.video_notes[feature.name].model_copy(update={"frames": frames})


def _cuttable(segment: Segment, pieces: Sequence[Piece], source: Store) -> bool:
    """Whether every piece's video begins at a key frame."""
    streams = source.schema.streams
    for feature in source.schema.features:
        if feature.name not in segment.video_notes:
            continue
        keys = video.key_frames(video_file(segment.path, feature.name))
        spans = [piece.rows(streams, feature.stream) for piece in pieces]
        if any(start < stop and start not in keys for start, stop in spans):
            return False
    return True


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

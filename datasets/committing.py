"""The commit of a segment: staged, flushed, renamed, and only then named by a new manifest."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from onestride.datasets.layout import SEGMENTS, STAGING
from onestride.datasets.manifest import EpisodeEdit, Manifest, SegmentEntry, write_manifest
from onestride.hardware.durable import sync, sync_tree, tree_sha256

Fill = Callable[[Path], None]
"""Writes a segment at a path that does not exist yet."""


def commit_segment(
    store: Path,
    manifest: Manifest,
    lengths: Sequence[int],
    fill: Fill,
    *,
    edits: Sequence[EpisodeEdit] = (),
    place: int | None = None,
) -> Manifest:
    """Add a segment to a store whose lock is held, all or nothing; the new manifest.

    Args:
        store: its folder.
        manifest: as it is now.
        lengths: base steps of each episode.
        fill: writes the segment.
        edits: of its episodes.
        place: entry of the manifest that the new one takes the place of; None = after all others.

    Raises:
        OSError: the disk refuses; what was committed is as it was.
    """
    staged = store / STAGING / uuid.uuid4().hex[:12]
    try:
        fill(staged)
        entry = publish(store, staged, manifest.next_number, lengths, edits)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    if place is None:
        manifest = manifest.with_segment(entry)
    else:
        segments = (*manifest.segments[:place], entry, *manifest.segments[place + 1 :])
        manifest = manifest.model_copy(update={"segments": segments})
    write_manifest(store, manifest, store / STAGING)
    return manifest


def publish(
    store: Path, staged: Path, number: int, lengths: Sequence[int], edits: Sequence[EpisodeEdit] = ()
) -> SegmentEntry:
    """Make a written segment durable and move it to its home; no manifest names it yet."""
    with ThreadPoolExecutor(1) as pool:
        flushed = pool.submit(sync_tree, staged)
        checksum = tree_sha256(staged)
        flushed.result()
    identity = f"{number:06d}-{checksum[:12]}"
    home = store / SEGMENTS / identity
    if staged != home:
        # Only a killed writer can have left this name: same content, never committed.
        shutil.rmtree(home, ignore_errors=True)
        staged.rename(home)
    sync(home.parent)
    return SegmentEntry(
        id=identity,
        checksum=checksum,
        lengths=tuple(lengths),
        meta=tree_sha256(home / "meta"),
        edits=tuple(edits),
    )

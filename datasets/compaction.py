"""Rewriting a store into a new one that holds only what is visible, in segments of a sensible size."""

from __future__ import annotations

from pathlib import Path

from onestride.datasets.copying import Progress
from onestride.datasets.merging import CopyReport, gather
from onestride.datasets.store import Store


def compact(source: str | Path, destination: str | Path, progress: Progress | None = None) -> CopyReport:
    """Copy the visible episodes of a store into a new store, whole or not at all; the source stays as it is.

    Deleted episodes and what a split left out are not in the new store, relabelled attributes are recorded ones.

    Raises:
        OneStrideError: no episodes, a destination that exists, damage, or the disk refuses.
    """
    return gather([Store.open(source)], Path(destination), "compact", progress)

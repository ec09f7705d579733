"""Walking through a store with bounded memory, and bringing every stream onto the control clock."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.converters import Report
from onestride.datasets.rows import Piece
from onestride.datasets.schema import BASE, Array, Episode, Feature, Schema, synthetic_clock
from onestride.datasets.segment_reader import Segment
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError, unknown


@dataclass(frozen=True)
class Wanted:
    """What is exported, and under which path."""

    features: tuple[Feature, ...]
    paths: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(feature.name for feature in self.features)

    def rows(self, episode: Episode) -> dict[str, Array]:
        """Rows (T, *shape) of every feature at the control steps."""
        return {feature.name: on_base_clock(episode, feature) for feature in self.features}


BLOCK_BYTES = 32 << 20
"""What a walk holds in memory at once, besides one longer episode: a chunk is decompressed for many episodes."""


def episodes(
    store: Store, features: Collection[str] | None = None, finals: Collection[str] | None = None
) -> Iterator[Episode]:
    """Every episode in order.

    Args:
        store: to walk through.
        features: whose rows are read; None = all.
        finals: whose final values are read; None = those of `features`.
    """
    schema = store.schema
    data = [one for one in schema.features if features is None or one.name in features]
    after = data if finals is None else [one for one in schema.features if one.name in finals]
    for block in blocks(store.pieces, data):
        yield from read_block(block, data, after, schema.streams)


def blocks(pieces: Sequence[Piece], features: Sequence[Feature], most: int = BLOCK_BYTES) -> Iterator[list[Piece]]:
    """All pieces in order: neighbours in one segment together, as many as fit into `most` bytes of the features."""
    step_bytes = 8 + sum(one.size * np.dtype(one.dtype).itemsize for one in features)
    block: list[Piece] = []
    size, was_whole = 0, False
    for piece in pieces:
        is_whole, fits = piece.whole, size + piece.length * step_bytes <= most
        if block and not (fits and was_whole and is_whole and _follows(block[-1], piece)):
            yield block
            block, size = [], 0
        block.append(piece)
        size, was_whole = size + piece.length * step_bytes, is_whole
    if block:
        yield block


def base_rows(block: Sequence[Piece]) -> slice:
    """Rows of the base stream that a block takes in its segment."""
    return slice(block[0].rows((), BASE)[0], block[-1].rows((), BASE)[1])


def _follows(piece: Piece, other: Piece) -> bool:
    """Whether they were committed one after the other."""
    return piece.segment is other.segment and piece.index + 1 == other.index


def read_block(
    block: Sequence[Piece], data: Sequence[Feature], after: Sequence[Feature], streams: Sequence[str]
) -> Iterator[Episode]:
    """The episodes of a block: every array is read once, and cut."""
    spans = {stream: [piece.rows(streams, stream) for piece in block] for stream in streams}
    ranges = {stream: slice(spans[stream][0][0], spans[stream][-1][1]) for stream in streams}
    segment = block[0].segment
    rows = {one.name: _read(segment, one, ranges[one.stream]) for one in data}
    clocks = {stream: segment.time(stream, ranges[stream]) for stream in streams}
    expected = [one for one in after if one.role in ("observation", "state")]
    cached: dict[str, dict[str, tuple[Array, NDArray[np.bool_]]]] = {one.name: {} for one in expected}
    for number, piece in enumerate(block):
        cut = {s: slice(*(row - ranges[s].start for row in spans[s][number])) for s in streams}
        known = {one.name: piece.final(one, cached[one.name]) for one in expected}
        yield Episode(
            data={one.name: rows[one.name][cut[one.stream]] for one in data},
            timestamps={stream: clocks[stream][cut[stream]] for stream in streams},
            final={name: value for name, value in known.items() if value is not None},
            attributes=piece.attributes,
        )


def _read(segment: Segment, feature: Feature, rows: slice) -> Array:
    if rows.start == rows.stop:
        return np.zeros((0, *feature.shape), feature.dtype)
    return segment.read(feature.name, rows)


def wanted(schema: Schema, leave_out: tuple[str, ...], report: Report) -> list[Feature]:
    """The features that are exported.

    Raises:
        OneStrideError: something to leave out is not there, or is the label.
    """
    possible = [feature.name for feature in schema.features if feature.name != schema.label]
    for name in leave_out:
        if name not in possible:
            raise unknown("feature to leave out", name, possible)
    report.left_out += [f"{name}: as asked for" for name in leave_out]
    return [feature for feature in schema.features if feature.name not in leave_out]


def is_derived_mask(store: Store) -> bool:
    """Whether the mask is 1 - terminal everywhere, so that a reader makes it again."""
    terminals, masks = store.schema.by_role("terminal"), store.schema.by_role("mask")
    if not terminals or not masks:
        return False
    terminal, mask = terminals[0], masks[0]
    if terminal.shape or mask.shape or terminal.stream != BASE or mask.stream != BASE:
        return False
    for block in blocks(store.pieces, [terminal, mask]):
        ends, rows = (block[0].segment.read(one.name, base_rows(block)) for one in (terminal, mask))
        if (1 - ends.astype(np.float32)).astype(mask.dtype).tobytes() != rows.tobytes():
            return False
    return True


def has_own_clock(store: Store) -> bool:
    """Whether any episode's base timestamps are no ideal clock that a reader would make again."""
    rate = store.schema.control_rate
    if rate is None:
        return True
    for block in blocks(store.pieces, ()):
        lengths = [piece.length for piece in block]
        ideal = synthetic_clock(max(lengths), rate)
        expected = np.concatenate([ideal[:length] for length in lengths])
        if not np.array_equal(block[0].segment.time(BASE, base_rows(block)), expected):
            return True
    return False


def on_base_clock(episode: Episode, feature: Feature) -> Array:
    """A feature's rows (T, *shape) at the control steps: of another stream, the latest row at each step.

    Raises:
        OneStrideError: the stream has no rows in this episode.
    """
    rows = episode.data[feature.name]
    if feature.stream == BASE:
        return rows
    if len(rows) == 0:
        raise OneStrideError(f"feature {feature.name!r}: expected a row of stream {feature.stream!r}, got none")
    latest = np.searchsorted(episode.timestamps[feature.stream], episode.timestamps[BASE], side="right") - 1
    # Before a stream's first row there is no older one.
    return np.asarray(rows[np.maximum(latest, 0)])


def report_streams(schema: Schema, features: Collection[Feature], report: Report) -> None:
    """A line for each other stream whose features are exported."""
    for stream in schema.streams:
        names = [feature.name for feature in features if feature.stream == stream]
        if stream != BASE and names:
            report.changed.append(
                f"stream {stream!r} ({', '.join(names)}): the latest row at each control step, its first before that; "
                "its own timestamps are left out"
            )


def measured_clock(episode: Episode, rate: float | None) -> NDArray[np.int64] | None:
    """The base timestamps (T,) [ns] where they are no ideal clock that a reader would make again."""
    clock = episode.timestamps[BASE]
    if rate is not None and np.array_equal(clock, synthetic_clock(len(clock), rate)):
        return None
    return clock

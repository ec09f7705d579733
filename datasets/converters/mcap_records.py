"""MCAP message records as arrays: many messages of fixed size at once, where the library takes them one by one.

Reference: https://mcap.dev/spec#message-op0x05
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.converters.mcap_messages import Wire
from onestride.datasets.schema import Episode

MESSAGE = 0x05
HEAD = np.dtype(
    [("opcode", "u1"), ("length", "<u8"), ("channel", "<u2"), ("sequence", "<u4"), ("log", "<u8"), ("publish", "<u8")]
)
"""What precedes a message's own bytes."""
BATCH_BYTES = 1 << 20
"""Records that are made at once, besides one larger row."""

Bytes = NDArray[np.uint8]
Times = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Message records, and where each is."""

    content: Bytes
    index: list[tuple[int, Times, Times]]
    """(channel, times [ns], offsets in `content`) of some messages."""


@dataclass(frozen=True)
class Layout:
    """The records of one step of a stream: one message of each of its features, one after the other."""

    stream: str
    wires: tuple[Wire, ...]
    channels: tuple[int, ...]

    @property
    def starts(self) -> list[int]:
        """Where each record begins."""
        return list(accumulate((HEAD.itemsize + len(wire.template) for wire in self.wires), initial=0))

    def records(self, episode: Episode, rows: slice, shift: int) -> Bytes:
        """The records (T, bytes) of some rows of an episode, whose times are shifted [ns]."""
        times = episode.timestamps[self.stream][rows] + shift
        starts = self.starts
        made = np.empty((len(times), starts[-1]), np.uint8)
        for wire, channel, (start, stop) in zip(self.wires, self.channels, pairwise(starts), strict=True):
            fill(made[:, start:stop], wire, channel, episode.data[wire.feature.name][rows], times)
        return made


def fill(out: Bytes, wire: Wire, channel: int, rows: NDArray[np.generic], times: Times) -> None:
    """Write rows (T, *shape) with their times [ns] into records (T, bytes)."""
    head = np.zeros(1, HEAD)
    head["opcode"], head["length"], head["channel"] = MESSAGE, out.shape[1] - 9, channel
    out[:] = np.frombuffer(head.tobytes() + wire.template, np.uint8)
    heads = out[:, : HEAD.itemsize].view(HEAD)[:, 0]
    heads["log"] = heads["publish"] = times
    body = out[:, HEAD.itemsize :]
    content = np.ascontiguousarray(rows.astype(np.dtype(wire.dtype).newbyteorder("<"), copy=False))
    body[:, wire.offset : wire.offset + wire.size] = content.reshape(len(rows), wire.feature.size).view(np.uint8)
    if wire.stamped:
        body[:, 4:8].view("<i4")[:, 0] = times // 10**9
        body[:, 8:12].view("<u4")[:, 0] = times % 10**9


def single(channel: int, time: int, message: bytes) -> Batch:
    """One message."""
    head = np.zeros(1, HEAD)
    head["opcode"], head["length"], head["channel"] = MESSAGE, HEAD.itemsize - 9 + len(message), channel
    head["log"] = head["publish"] = time
    return Batch(
        np.frombuffer(head.tobytes() + message, np.uint8), [(channel, np.array([time]), np.zeros(1, np.int64))]
    )


def batches(episode: Episode, layouts: Sequence[Layout], shift: int) -> Iterator[Batch]:
    """Every row of an episode by time, as batches of about `BATCH_BYTES`; rows of one stream in their order."""
    clocks = [episode.timestamps[layout.stream] for layout in layouts]
    which = np.repeat(np.arange(len(layouts)), [len(clock) for clock in clocks])
    if len(layouts) > 1:
        which = which[np.argsort(np.concatenate(clocks), kind="stable")]
    sizes = np.array([layout.starts[-1] for layout in layouts])[which]
    stops = np.cumsum(sizes)
    done = np.zeros(len(layouts), np.int64)
    start = 0
    while start < len(which):
        begins = stops[start] - sizes[start]
        stop = max(start + 1, int(np.searchsorted(stops, begins + BATCH_BYTES, side="right")))
        counts = np.bincount(which[start:stop], minlength=len(layouts))
        spans = [slice(first, first + count) for first, count in zip(done.tolist(), counts.tolist(), strict=True)]
        yield _batch(episode, layouts, shift, which[start:stop], stops[start:stop] - sizes[start:stop] - begins, spans)
        done += counts
        start = stop


def _batch(
    episode: Episode,
    layouts: Sequence[Layout],
    shift: int,
    which: NDArray[np.int64],
    places: NDArray[np.int64],
    spans: list[slice],
) -> Batch:
    """Rows of several streams in the order `which`, each at its place."""
    made = [layout.records(episode, span, shift) for layout, span in zip(layouts, spans, strict=True)]
    index = []
    for number, (layout, span) in enumerate(zip(layouts, spans, strict=True)):
        times = episode.timestamps[layout.stream][span] + shift
        mine = places[which == number]
        starts = zip(layout.channels, layout.starts, strict=False)
        index += [(channel, times, mine + start) for channel, start in starts if len(times)]
    return Batch(_merged(made, which, places), index)


def _merged(made: list[Bytes], which: NDArray[np.int64], places: NDArray[np.int64]) -> Bytes:
    """The records of all streams at their places: runs of one stream at once."""
    present = np.unique(which)
    if len(present) == 1:
        return made[int(present[0])].reshape(-1)
    merged = np.empty(sum(one.size for one in made), np.uint8)
    edges = np.flatnonzero(np.diff(which)) + 1
    done = [0] * len(made)
    for first, count in zip([0, *edges.tolist()], np.diff([0, *edges, len(which)]).tolist(), strict=True):
        number = int(which[first])
        rows = made[number][done[number] : done[number] + count]
        merged[places[first] : places[first] + rows.size] = rows.reshape(-1)
        done[number] += count
    return merged

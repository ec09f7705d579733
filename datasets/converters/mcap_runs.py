"""Reading an MCAP chunk in runs: messages whose pattern of channels and sizes repeats, many periods at once.

Where a pattern does not repeat, a run is one message; so any order of any messages comes out, only slower.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.converters.mcap_records import HEAD, MESSAGE
from onestride.hardware.errors import OneStrideError

Bytes = NDArray[np.uint8]
LONGEST = 64
"""Messages of a pattern, at most."""


@dataclass(frozen=True)
class Run:
    """Messages of one channel, all of one size, one period apart."""

    channel: int
    times: NDArray[np.int64]
    """When each was logged (T,) [ns]."""
    bodies: Bytes
    """Their bytes (T, size)."""


class RunReader:
    """Cuts chunks into runs; what was learnt from one chunk helps with the next.

    Args:
        apart: channels that take no part in patterns: between all messages before and all after one of theirs.
    """

    def __init__(self, apart: Collection[int]) -> None:
        self._apart = apart
        self._known = _Pattern()
        """It came again the last time its first message came."""
        self._growing = _Pattern()

    def runs(self, content: bytes) -> Iterator[Run]:
        """The messages of an uncompressed chunk; those of one channel in order.

        Raises:
            OneStrideError: records that reach beyond the chunk's end.
        """
        whole, place = np.frombuffer(content, np.uint8), 0
        while place < len(content):
            kind, length, channel = _head(content, place)
            count = self._periods(channel, length, whole[place:]) if kind == MESSAGE else 0
            if count:
                yield from self._known.taken(whole[place:], count)
                place += count * self._known.size
                continue
            if kind == MESSAGE:
                yield from _Pattern([(channel, length)]).taken(whole[place:], 1)
                self._growing = _Pattern() if channel in self._apart else self._growing.and_then(channel, length)
            place += 9 + length

    def _periods(self, channel: int, length: int, rest: Bytes) -> int:
        """How many periods of a pattern are next, which is then the known one."""
        for pattern in (self._known, self._growing):
            count = pattern.repeats(rest) if pattern.begins_with(channel, length) else 0
            if count:
                self._known, self._growing = pattern, _Pattern()
                return count
        if self._known.begins_with(channel, length):
            self._known = _Pattern()
        if self._growing.begins_with(channel, length):
            self._growing = _Pattern()
        return 0


class _Pattern:
    """Messages of as many channels that follow each other: (channel, length of the record) of each."""

    def __init__(self, messages: Sequence[tuple[int, int]] = ()) -> None:
        self.messages = list(messages)
        self.starts = list(accumulate((9 + length for _, length in messages), initial=0))
        self.size = self.starts[-1]

    def and_then(self, channel: int, length: int) -> _Pattern:
        """The pattern with one more message; that message alone where there are too many, or one of its channel."""
        fits = len(self.messages) < LONGEST and channel not in (one for one, _ in self.messages)
        before = self.messages if fits else []
        return _Pattern([*before, (channel, length)])

    def begins_with(self, channel: int, length: int) -> bool:
        """Whether a message is its first one."""
        return bool(self.messages) and self.messages[0] == (channel, length)

    def repeats(self, rest: Bytes) -> int:
        """How many times the pattern comes next, every head looked at; looks ahead the further the longer it lasts."""
        most, sure, look = len(rest) // self.size, 0, 32
        while sure < most:
            stop = min(most, sure + look)
            good = self._heads_fit(rest[sure * self.size : stop * self.size].reshape(stop - sure, self.size))
            if not good.all():
                return sure + int(good.argmin())
            sure, look = stop, 8 * look
        return sure

    def taken(self, rest: Bytes, count: int) -> list[Run]:
        """Its messages, repeated so many times."""
        periods = rest[: count * self.size].reshape(count, self.size)
        found = []
        for (channel, length), place in zip(self.messages, self.starts, strict=False):
            heads = _heads(periods, place)
            body = periods[:, place + HEAD.itemsize : place + 9 + length]
            found.append(Run(channel, heads["log"].astype(np.int64), body))
        return found

    def _heads_fit(self, periods: Bytes) -> NDArray[np.bool_]:
        good = np.ones(len(periods), bool)
        for (channel, length), place in zip(self.messages, self.starts, strict=False):
            heads = _heads(periods, place)
            good &= (heads["opcode"] == MESSAGE) & (heads["length"] == length) & (heads["channel"] == channel)
        return good


def _heads(periods: Bytes, place: int) -> NDArray[np.void]:
    """The heads (T,) of the messages that begin at a place in every period."""
    return periods[:, place : place + HEAD.itemsize].view(HEAD)[:, 0]


def _head(content: bytes, place: int) -> tuple[int, int, int]:
    """(opcode, length, channel) of the record at a place; the channel is 0 for what is no message."""
    if place + 9 > len(content):
        raise OneStrideError("expected whole records in a chunk, got one that is cut off")
    kind, length = struct.unpack_from("<BQ", content, place)
    least = HEAD.itemsize - 9 if kind == MESSAGE else 0
    if not least <= length <= len(content) - place - 9:
        raise OneStrideError(f"expected whole records in a chunk, got one of {length} bytes at {place}")
    return kind, length, struct.unpack_from("<H", content, place + 9)[0] if kind == MESSAGE else 0

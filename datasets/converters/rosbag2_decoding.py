"""Rows out of one topic's messages: those of one form many at once, the others one by one.

Both give the same: whatever a layout does not fit is left to the messages' own decoder, and so is every complaint.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.converters.rosbag2_bag import Bag, Message
from onestride.datasets.converters.rosbag2_fields import UnusableError, row_of, stamp_of
from onestride.datasets.converters.rosbag2_layout import LARGEST, Bytes, Layout, layout_of
from onestride.datasets.converters.rosbag2_survey import Wanted
from onestride.datasets.converters.spilling import Growing, picked
from onestride.datasets.schema import Array
from onestride.hardware.errors import OneStrideError

FORMS = 8
"""Forms of a topic's messages that are looked for, at most."""

_Part = tuple[NDArray[np.int64], NDArray[np.int64], list[Array]]
"""(numbers of messages in the order they came, their times, their rows)."""
Skipped = Counter[tuple[str, str]]
"""(topic, reason) -> messages that were not used."""


@dataclass(frozen=True)
class Decoded:
    """What one topic brought within an episode, by time; equal times as they came."""

    times: NDArray[np.int64]
    rows: list[Array]
    """For each wanted feature (T, *shape)."""


class TopicDecoder:
    """Takes a topic's messages of an episode, then gives their rows.

    Args:
        bag: for the messages' types.
        topic: whose messages.
        wanted: features of this topic.
        stamped: whether `header.stamp` counts, and not when a message was received.
        skipped: told about messages that are not used.
    """

    def __init__(self, bag: Bag, topic: str, wanted: list[Wanted], stamped: bool, skipped: Skipped) -> None:
        self._bag, self._topic, self._wanted = bag, topic, wanted
        self._stamped, self._skipped = stamped, skipped
        self._layouts: list[Layout] = []
        self._tried = 0
        self._received: list[NDArray[np.int64]] = []
        self._contents: list[bytes] = []
        self._sizes: list[int] = []
        """-1 for a large message, which is decoded already and not held."""
        self._ready: list[_Part] = []
        self._large = _Large(wanted)

    def add(self, received: NDArray[np.int64], contents: list[bytes]) -> None:
        """Take messages; large ones are decoded now, so that not both they and their rows are held.

        Args:
            received: by the recorder (M,) [ns].
            contents: their bytes; large ones are emptied.

        Raises:
            OneStrideError: bytes that are not of the message's type, or a value that is not finite.
        """
        self._received.append(received)
        sizes = list(map(len, contents))
        for place in [place for place, size in enumerate(sizes) if size > LARGEST]:
            if (decoded := self._usable(int(received[place]), contents[place])) is not None:
                self._large.append(len(self._contents) + place, *decoded)
            contents[place], sizes[place] = b"", -1
        self._contents += contents
        self._sizes += sizes

    def finish(self) -> Decoded:
        """The rows of all messages since the last call.

        Raises:
            OneStrideError: as `add`.
        """
        received = np.concatenate([np.zeros(0, np.int64), *self._received])
        sizes = np.array(self._sizes, np.int64)
        for size in np.unique(sizes[sizes >= 0]):
            self._decode_alike(np.flatnonzero(sizes == size), received)
        ready = [*self._ready, *([self._large.taken()] if self._large.numbers else [])]
        self._received, self._contents, self._sizes = [], [], []
        self._ready, self._large = [], _Large(self._wanted)
        if len(ready) != 1:
            ready = [_joined(ready, self._wanted)]
        numbers, times, rows = ready[0]
        order = np.lexsort((numbers, times))
        return Decoded(times[order], [picked(one, order) for one in rows])

    def _decode_alike(self, numbers: NDArray[np.int64], received: NDArray[np.int64]) -> None:
        """Messages of one size."""
        joined = b"".join([self._contents[number] for number in numbers])
        block = np.frombuffer(joined, np.uint8).reshape(len(numbers), -1)
        left = np.ones(len(numbers), bool)
        for layout in self._layouts:
            left &= ~self._decode_fitting(layout, block, left, numbers, received)
        while left.any():
            first = int(left.argmax())
            number = int(numbers[first])
            layout_or_none = self._another(number, received)
            if layout_or_none is not None:
                left &= ~self._decode_fitting(layout_or_none, block, left, numbers, received)
            if left[first]:
                self._decode_one(number, received)
                left[first] = False

    def _decode_fitting(
        self,
        layout: Layout,
        block: Bytes,
        left: NDArray[np.bool_],
        numbers: NDArray[np.int64],
        received: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Decode those messages that are left and of this form; which they were."""
        chosen = left & layout.fits(block)
        if self._stamped and chosen.any():
            # A stamp that was never set is no time: left to be told one by one.
            chosen &= layout.stamps(block) != 0
        if not chosen.any():
            return chosen
        mine, chosen_numbers = (block, numbers) if chosen.all() else (block[chosen], numbers[chosen])
        rows = [
            layout.rows(mine, number).astype(one.feature.dtype).reshape(-1, *one.feature.shape)
            for number, one in enumerate(self._wanted)
        ]
        for strange in _not_finite(rows):
            number = int(chosen_numbers[strange])
            self._row_of_each(int(received[number]), self._contents[number])
        times = layout.stamps(mine) if self._stamped else received[chosen_numbers]
        self._ready.append((chosen_numbers, times, rows))
        return chosen

    def _another(self, number: int, received: NDArray[np.int64]) -> Layout | None:
        """The form of a message of which none is known yet; None where there is none to be had."""
        if self._tried == FORMS:
            return None
        self._tried += 1
        message = self._message(int(received[number]), self._contents[number])
        decoded = self._bag.decode(message)
        rows_of = [partial(_row, self._bag, one=one) for one in self._wanted]
        layout = layout_of(message.content, decoded, rows_of, self._bag.encode, self._bag.types)
        if layout is None or (self._stamped and layout.stamp is None):
            return None
        self._layouts.append(layout)
        return layout

    def _decode_one(self, number: int, received: NDArray[np.int64]) -> None:
        if (decoded := self._usable(int(received[number]), self._contents[number])) is not None:
            time, rows = decoded
            self._ready.append((np.array([number]), np.array([time], np.int64), [row[np.newaxis] for row in rows]))

    def _usable(self, received: int, content: bytes) -> tuple[int, list[Array]] | None:
        """Time [ns] and rows of one message; None where it lacks them, which is counted."""
        try:
            return self._row_of_each(received, content)
        except UnusableError as error:
            self._skipped[self._topic, str(error)] += 1
            return None

    def _row_of_each(self, received: int, content: bytes) -> tuple[int, list[Array]]:
        """Time [ns] and rows of one message."""
        try:
            decoded = self._bag.decode(self._message(received, content))
            time = stamp_of(decoded) if self._stamped else received
            return time, [_checked(_row(self._bag, decoded, one), one) for one in self._wanted]
        except OneStrideError as error:
            raise OneStrideError(f"{self._bag.path}: {self._topic} at {received} ns: {error}") from error

    def _message(self, received: int, content: bytes) -> Message:
        return Message(self._topic, self._bag.topics[self._topic].type, received, content)


class _Large:
    """Rows of large messages, as they come."""

    def __init__(self, wanted: list[Wanted]) -> None:
        self.numbers: list[int] = []
        self._times: list[int] = []
        self._rows = [Growing(one.feature.shape, one.feature.dtype) for one in wanted]

    def append(self, number: int, time: int, rows: list[Array]) -> None:
        self.numbers.append(number)
        self._times.append(time)
        for growing, row in zip(self._rows, rows, strict=True):
            growing.extend(row[np.newaxis])

    def taken(self) -> _Part:
        return np.array(self.numbers), np.array(self._times, np.int64), [growing.taken() for growing in self._rows]


def _joined(parts: list[_Part], wanted: list[Wanted]) -> _Part:
    none = np.zeros(0, np.int64)
    empty = [np.zeros((0, *one.feature.shape), one.feature.dtype) for one in wanted]
    rows = [np.concatenate([none_yet, *(part[2][n] for part in parts)]) for n, none_yet in enumerate(empty)]
    numbers, times = (np.concatenate([none, *found]) for found in ([p[0] for p in parts], [p[1] for p in parts]))
    return numbers, times, rows


def _row(bag: Bag, decoded: Any, one: Wanted) -> Array:
    value = row_of(decoded, one.mapping, one.joints, bag.types).value
    if value.shape != one.feature.shape or value.dtype.name != one.feature.dtype:
        raise UnusableError(
            f"{one.feature.name}: {value.shape} {value.dtype}, not {one.feature.shape} {one.feature.dtype}"
        )
    return value


def _checked(value: Array, one: Wanted) -> Array:
    for element in _not_finite([value.reshape(-1)]):
        raise OneStrideError(f"{one.feature.element(element)}: expected finite, got {value.reshape(-1)[element]}")
    return value


def _not_finite(rows: list[Array]) -> list[int]:
    """Rows with a value that is not finite."""
    bad = [~np.isfinite(one.reshape(len(one), -1)).all(axis=1) for one in rows if one.dtype.kind == "f"]
    return np.flatnonzero(np.any(bad, axis=0)).tolist() if bad else []

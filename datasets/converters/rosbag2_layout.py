"""Where in a message's bytes a feature's numbers lie, so that messages of one form are decoded many at once.

Nothing is assumed of a type: a message is decoded, its numbers are replaced by marks, and where these come out, in the
bytes and in the feature's row, says what lies where. Messages are of the same form where all bytes agree that belong
to no number: names, encodings, and lengths of arrays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.converters.rosbag2_fields import UnusableError, declared
from onestride.datasets.schema import Array
from onestride.hardware.errors import OneStrideError

Bytes = NDArray[np.uint8]
Serialise = Callable[[Any], bytes]
RowOf = Callable[[Any], Array]
LARGEST = 4096
"""Bytes of a message that is looked at: larger ones are pictures and the like, which gain nothing."""
PADDING = 3
"""Bytes at most that some writers append."""
_MARK = 0x41
"""A byte whose repetition is a number of its own in every type, and not 0."""
_KEPT = "std_msgs/msg/MultiArrayLayout"
"""Its numbers give a row its shape."""


@dataclass(frozen=True)
class _Leaf:
    """A number or an array of numbers within a message."""

    path: tuple[str | int, ...]
    dtype: np.dtype[Any]
    extent: int | None
    """Numbers of an array; None = a number by itself."""

    @property
    def count(self) -> int:
        """How many numbers."""
        return self.extent or 1

    def value(self, numbers: Array) -> Any:
        """As the message holds it."""
        fitting = numbers.astype(self.dtype)
        return fitting if self.extent is not None else fitting[0].item()


@dataclass(frozen=True)
class Layout:
    """One form of a topic's messages."""

    size: int
    """Bytes without what is appended."""
    fixed: NDArray[np.intp]
    """Bytes that belong to no number."""
    content: Bytes
    """What they are."""
    places: tuple[NDArray[np.intp], ...]
    """For each feature, where the elements of its row begin."""
    dtypes: tuple[np.dtype[Any], ...]
    stamp: tuple[int, int] | None
    """Where seconds and nanoseconds of `header.stamp` begin."""

    def fits(self, messages: Bytes) -> NDArray[np.bool_]:
        """Which messages (T, bytes) are of this form (T,)."""
        if not self.size <= messages.shape[1] <= self.size + PADDING:
            return np.zeros(len(messages), bool)
        return np.asarray((messages[:, self.fixed] == self.content).all(axis=1))

    def rows(self, messages: Bytes, number: int) -> Array:
        """A feature's rows (T, elements)."""
        return _taken(messages, self.places[number], self.dtypes[number])

    def stamps(self, messages: Bytes) -> NDArray[np.int64]:
        """`header.stamp` (T,) [ns]; only where the form has one."""
        seconds, rest = self.stamp or (0, 0)
        whole = _taken(messages, np.array([seconds]), np.dtype(np.int32))[:, 0].astype(np.int64)
        return whole * 10**9 + _taken(messages, np.array([rest]), np.dtype(np.uint32))[:, 0]


def layout_of(
    content: bytes, decoded: Any, rows_of: Sequence[RowOf], serialise: Serialise, types: Any
) -> Layout | None:
    """The form of a message; None where it cannot be told, and its like have to be decoded one by one.

    Args:
        content: its bytes.
        decoded: the same as an object.
        rows_of: for each feature, what makes a row of an object.
        serialise: makes bytes of an object.
        types: fields of every message type.
    """
    if len(content) > LARGEST:
        return None
    try:
        return _probed(content, decoded, rows_of, serialise, types)
    # A probe may be more than the type allows, and then says nothing.
    except (UnusableError, OneStrideError, ValueError, TypeError, OverflowError, ArithmeticError):
        return None


def _probed(content: bytes, decoded: Any, rows_of: Sequence[RowOf], serialise: Serialise, types: Any) -> Layout | None:
    leaves = _leaves(decoded, types, ())
    empty = _bytes(decoded, leaves, (), serialise)
    full = _bytes(decoded, leaves, range(len(leaves)), serialise)
    fixed = np.flatnonzero(full == empty)
    message = np.frombuffer(content, np.uint8)
    if not len(full) <= len(message) <= len(full) + PADDING or (message[fixed] != empty[fixed]).any():
        return None
    starts = [start for n in range(len(leaves)) if (start := _start(decoded, leaves, n, empty, serialise)) is not None]
    chosen = [one for row_of in rows_of if (one := _elements(decoded, leaves, row_of)) is not None]
    if len(starts) < len(leaves) or len(chosen) < len(rows_of):
        return None
    places = np.concatenate(
        [start + one.dtype.itemsize * np.arange(one.count) for start, one in zip(starts, leaves, strict=True)]
    )
    dtypes = [one.dtype for one in leaves for _ in range(one.count)]
    if any(len({dtypes[one] for one in elements}) != 1 for elements in chosen):
        return None
    by_path = {one.path: start for one, start in zip(leaves, starts, strict=True)}
    stamp = [by_path[path] for name in ("sec", "nanosec") if (path := ("header", "stamp", name)) in by_path]
    return Layout(
        size=len(full),
        fixed=fixed,
        content=empty[fixed],
        places=tuple(places[elements] for elements in chosen),
        dtypes=tuple(dtypes[int(elements[0])] for elements in chosen),
        stamp=(stamp[0], stamp[1]) if len(stamp) == 2 else None,
    )


def _leaves(message: Any, types: Any, path: tuple[str | int, ...]) -> list[_Leaf]:
    """Every number below a message but booleans."""
    found = []
    for name, _ in types[message.__msgtype__][1]:
        value, here = getattr(message, name), (*path, name)
        if hasattr(value, "__msgtype__"):
            found += [] if value.__msgtype__ == _KEPT else _leaves(value, types, here)
        elif isinstance(value, list):
            inner = [(number, one) for number, one in enumerate(value) if hasattr(one, "__msgtype__")]
            found += [leaf for number, one in inner for leaf in _leaves(one, types, (*here, number))]
        elif isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.size:
            found.append(_Leaf(here, value.dtype.newbyteorder("<"), value.size))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            named = declared(types, message, name) or ""
            dtype = np.dtype({"byte": "uint8", "char": "uint8", "octet": "uint8"}.get(named, named))
            found.append(_Leaf(here, dtype.newbyteorder("<"), None))
    return found


def _with(message: Any, leaves: Sequence[_Leaf], values: Sequence[Array]) -> Any:
    """The message with other numbers in its leaves."""
    changed = copy.deepcopy(message)
    for leaf, numbers in zip(leaves, values, strict=True):
        owner = changed
        for step in leaf.path[:-1]:
            owner = owner[step] if isinstance(step, int) else getattr(owner, step)
        setattr(owner, str(leaf.path[-1]), leaf.value(numbers))
    return changed


def _bytes(message: Any, leaves: Sequence[_Leaf], marked: Container[int], serialise: Serialise) -> Bytes:
    """The message's bytes with every number 0, but those of the marked leaves."""
    fills = (bytes([_MARK if number in marked else 0]) for number in range(len(leaves)))
    values = [
        np.frombuffer(fill * (leaf.dtype.itemsize * leaf.count), leaf.dtype)
        for leaf, fill in zip(leaves, fills, strict=True)
    ]
    return np.frombuffer(serialise(_with(message, leaves, values)), np.uint8)


def _start(message: Any, leaves: Sequence[_Leaf], number: int, empty: Bytes, serialise: Serialise) -> int | None:
    """Where a leaf begins; None where its bytes are not together."""
    marked = _bytes(message, leaves, (number,), serialise)
    places = np.flatnonzero(marked != empty) if len(marked) == len(empty) else np.zeros(0, np.intp)
    expected = leaves[number].dtype.itemsize * leaves[number].count
    return int(places[0]) if len(places) == expected == places[-1] - places[0] + 1 else None


def _elements(message: Any, leaves: Sequence[_Leaf], row_of: RowOf) -> NDArray[np.intp] | None:
    """Which of all numbers the elements of a row are; None where they are not plainly some of them."""
    counts = [leaf.count for leaf in leaves]
    total = sum(counts)
    firsts = (np.cumsum(counts) - counts).tolist()
    rows = []
    # Twice: what is the same in both is no number of the message, whatever it looks like.
    for shift in (0, total):
        numbers = [first + shift + np.arange(count) for first, count in zip(firsts, counts, strict=True)]
        if any((one.astype(leaf.dtype) != one).any() for one, leaf in zip(numbers, leaves, strict=True)):
            return None
        rows.append(row_of(_with(message, leaves, numbers)).reshape(-1))
    elements = rows[0].astype(np.intp)
    known = (elements == rows[0]) & (rows[1].astype(np.intp) - elements == total)
    return elements if len(elements) and known.all() else None


def _taken(messages: Bytes, places: NDArray[np.intp], dtype: np.dtype[Any]) -> Array:
    """Numbers (T, N) that begin at some places of every message."""
    width = dtype.itemsize
    if (np.diff(places) == width).all():
        raw = np.ascontiguousarray(messages[:, places[0] : places[-1] + width])
    else:
        raw = np.ascontiguousarray(messages[:, (places[:, np.newaxis] + np.arange(width)).reshape(-1)])
    return raw.view(dtype)

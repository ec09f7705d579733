"""Rows of OGBench's flat arrays, made for many episodes at once: those of each, and one more after its last action."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.converters.streaming import base_rows, on_base_clock, read_block
from onestride.datasets.rows import Piece
from onestride.datasets.schema import BASE, Array, Feature

Flags = NDArray[np.bool_]


def feature_rows(key: str, feature: Feature, block: Sequence[Piece], ended: Flags, streams: Sequence[str]) -> Array:
    """A feature's rows at the control steps, and after each ended episode what is known to have come then.

    Args:
        key: of the array, under which the attribute `last` may know that row.
        feature: of any stream.
        block: episodes that lie one after the other in one segment.
        ended: which of them (E,) take one row more.
        streams: the schema's.
    """
    if feature.stream != BASE:
        held = [on_base_clock(episode, feature) for episode in read_block(block, [feature], [], streams)]
        last = [rows[-1:] for rows, is_ended in zip(held, ended, strict=True) if is_ended]
        return _with_last(np.concatenate(held), _lengths(block), ended, np.concatenate([held[0][:0], *last]))
    rows = block[0].segment.read(feature.name, base_rows(block))
    return _with_last(rows, _lengths(block), ended, _last_rows(key, feature, block, ended))


def clock_rows(block: Sequence[Piece], ended: Flags) -> NDArray[np.int64]:
    """Timestamps [ns]; the row after the last action repeats the last."""
    lengths = _lengths(block)
    clock = block[0].segment.time(BASE, base_rows(block))
    return _with_last(clock, lengths, ended, clock[np.cumsum(lengths) - 1][ended])


def end_rows(block: Sequence[Piece], ended: Flags, dtype: np.dtype[np.generic]) -> Array:
    """1 in the last row of every episode, else 0."""
    stops = np.cumsum(_lengths(block) + ended)
    rows = np.zeros(int(stops[-1]), dtype)
    rows[stops - 1] = 1
    return rows


def _last_rows(key: str, feature: Feature, block: Sequence[Piece], ended: Flags) -> Array:
    """What came after each ended episode's last action: as known, else 0, which no one reads."""
    chosen = [piece for piece, is_ended in zip(block, ended, strict=True) if is_ended]
    last = np.zeros((len(chosen), *feature.shape), feature.dtype)
    values, recorded = block[0].segment.final(feature)
    places = np.array([piece.index for piece in chosen], np.int64)
    simple = recorded[places] & np.array([piece.ends for piece in chosen], bool)
    last[simple] = values[places[simple]]
    for number in np.flatnonzero(~simple):
        final = chosen[number].final(feature, {})
        if final is not None:
            last[number] = final
            continue
        known = chosen[number].attributes.get("last")
        value = known.get(key) if isinstance(known, dict) else None
        if value is not None and np.shape(np.asarray(value)) == feature.shape:
            last[number] = value
    return last


def _with_last(rows: Array, lengths: NDArray[np.int64], ended: Flags, last: Array) -> Array:
    """Rows of all episodes, and `last` (those that are ended, *shape) after each of those."""
    if not len(last):
        return rows
    is_last = np.zeros(len(rows) + len(last), bool)
    is_last[(np.cumsum(lengths + ended) - 1)[ended]] = True
    joined = np.empty((len(is_last), *rows.shape[1:]), rows.dtype)
    joined[~is_last], joined[is_last] = rows, last
    return joined


def _lengths(block: Sequence[Piece]) -> NDArray[np.int64]:
    return np.array([piece.length for piece in block], np.int64)

"""Statistics as a LeRobot dataset carries them: of each episode, and of all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.schema import Array

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
FRAMES = 100
"""Images of an episode that are looked at."""
PIXELS = 150
"""Rows and columns of an image that are looked at, about."""

Numbers = NDArray[np.float64]
Statistics = dict[str, Numbers]
"""Name -> its values (E, *shape), one for each episode."""


def of_columns(columns: Mapping[str, Array], lengths: NDArray[np.int64]) -> dict[str, Statistics]:
    """Statistics of each column over the rows of each episode; scalars give (E, 1).

    Args:
        columns: rows (N, *shape) of all episodes, one after the other.
        lengths: rows of each episode (E,).
    """
    # One sort of all columns; float32 sorts twice as fast, and holds what it holds exactly.
    exact = {key: rows for key, rows in columns.items() if np.can_cast(rows.dtype, np.float32)}
    others = {key: rows for key, rows in columns.items() if key not in exact}
    return {**_side_by_side(exact, np.float32, lengths), **_side_by_side(others, np.float64, lengths)}


def of_images(images: NDArray[np.uint8]) -> Statistics:
    """Statistics over one episode's images (T, H, W, 3) in [0, 1], each (1, 3, 1, 1), from a sample of their pixels."""
    every = max(1, len(images) // FRAMES)
    rows, columns = (max(1, extent // PIXELS) for extent in images.shape[1:3])
    sample = images[::every, ::rows, ::columns].reshape(1, -1, images.shape[3]) / 255.0
    measured = {name: value.reshape(1, -1, 1, 1) for name, value in _over(sample).items()}
    return {**measured, "count": np.array([[len(images[::every])]], np.float64)}


def joined(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of several runs of episodes as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def together(each: Statistics) -> Statistics:
    """Statistics of all episodes (1, *shape) from those of each; quantiles are weighted means, as LeRobot has them."""
    counts = each["count"][:, 0]
    weights = counts / counts.sum()
    mean = _weighted(weights, each["mean"])
    with np.errstate(over="ignore", invalid="ignore"):
        spread = _weighted(weights, each["std"] ** 2 + (each["mean"] - mean) ** 2)
    return {
        "min": each["min"].min(0, keepdims=True),
        "max": each["max"].max(0, keepdims=True),
        "mean": mean,
        "std": _finite(np.sqrt(spread)),
        "count": np.array([[counts.sum()]]),
        **{name: _weighted(weights, each[name]) for name in QUANTILES},
    }


def as_lists(statistics: Statistics) -> dict[str, Any]:
    """The first episode's statistics as JSON values; the count is an integer."""
    return {name: [int(values[0, 0])] if name == "count" else values[0].tolist() for name, values in statistics.items()}


def _side_by_side(columns: Mapping[str, Array], dtype: Any, lengths: NDArray[np.int64]) -> dict[str, Statistics]:
    """Statistics of columns that are looked at as one array of a dtype."""
    if not columns:
        return {}
    flat = [rows.reshape(len(rows), -1).astype(dtype, copy=False) for rows in columns.values()]
    measured = _of_rows(np.concatenate(flat, axis=1), lengths)
    counts = {"count": measured.pop("count")}
    found, start = {}, 0
    for (key, rows), one in zip(columns.items(), flat, strict=True):
        among, shape = slice(start, start + one.shape[1]), rows.shape[1:] or (1,)
        found[key] = {name: values[:, among].reshape(-1, *shape) for name, values in measured.items()} | counts
        start = among.stop
    return found


def _of_rows(rows: Array, lengths: NDArray[np.int64]) -> Statistics:
    """Statistics (E, D) of rows (N, D), all episodes of one length at once."""
    starts = np.cumsum(lengths) - lengths
    found: Statistics = {}
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        alone = len(chosen) == len(lengths)
        stacked = rows.reshape(-1, length, rows.shape[1]) if alone else rows[starts[chosen, None] + np.arange(length)]
        for name, values in _over(stacked).items():
            found.setdefault(name, np.empty((len(lengths), *values.shape[1:])))[chosen] = values
    return found


def _over(values: Array) -> Statistics:
    """Statistics (E, D) over the second axis of (E, T, D)."""
    # One sort for all quantiles and both ends: np.quantile takes several times as long.
    ordered = np.sort(values, axis=1)
    # Squares of values beyond 1e154 are no numbers any more.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = values.mean(1, dtype=np.float64)
        away = values - mean[:, np.newaxis]
        std = np.sqrt(np.einsum("etd,etd->ed", away, away) / values.shape[1])
    return {
        "min": ordered[:, 0].astype(np.float64),
        "max": ordered[:, -1].astype(np.float64),
        "mean": _finite(mean),
        "std": _finite(std),
        "count": np.full((len(values), 1), float(values.shape[1])),
        **{name: _quantile(ordered, share) for name, share in QUANTILES.items()},
    }


def _quantile(ordered: Array, share: float) -> Numbers:
    """Linear between neighbours, as numpy's default."""
    place = share * (ordered.shape[1] - 1)
    low = int(place)
    high = min(low + 1, ordered.shape[1] - 1)
    below, above = (ordered[:, one].astype(np.float64) for one in (low, high))
    return np.asarray(below * (1 - (place - low)) + above * (place - low))


def _weighted(weights: Numbers, values: Numbers) -> Numbers:
    return np.asarray(np.tensordot(weights, values, axes=1)[np.newaxis], np.float64)


def _finite(values: Numbers) -> Numbers:
    """JSON has no infinity: the largest number there is stands for it."""
    return np.asarray(np.nan_to_num(values, nan=float(np.finfo(np.float64).max)))

"""Statistics as a LeRobot dataset carries them: of each episode, and of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
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


def of_rows(rows: Array) -> Statistics:
    """Statistics over the rows (T, *shape), each (*shape); scalars give (1,)."""
    flat = rows.reshape(len(rows), *(rows.shape[1:] or (1,))).astype(np.float64)
    return _over(flat)


def of_images(images: NDArray[np.uint8]) -> Statistics:
    """Statistics over images (T, H, W, 3) in [0, 1], each (3, 1, 1), from a sample of frames and pixels."""
    every = max(1, len(images) // FRAMES)
    rows, columns = (max(1, extent // PIXELS) for extent in images.shape[1:3])
    sample = images[::every, ::rows, ::columns].reshape(-1, images.shape[3]) / 255.0
    measured = {name: value.reshape(-1, 1, 1) for name, value in _over(sample).items() if name != "count"}
    return {**measured, "count": np.array([len(images[::every])], np.float64)}


def together(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of all episodes from those of each; quantiles are weighted means, as LeRobot has them."""
    counts = np.array([part["count"][0] for part in parts])
    weights = counts / counts.sum()
    mean = _weighted(weights, [part["mean"] for part in parts])
    with np.errstate(over="ignore", invalid="ignore"):
        spread = _weighted(weights, [part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": _finite(np.sqrt(spread)),
        "count": np.array([counts.sum()]),
        **{name: _weighted(weights, [part[name] for part in parts]) for name in QUANTILES},
    }


def as_lists(statistics: Statistics) -> dict[str, Any]:
    """Statistics as JSON values; the count is an integer."""
    return {
        name: [int(value[0])] if name == "count" else np.asarray(value, np.float64).tolist()
        for name, value in statistics.items()
    }


def _over(values: Numbers) -> Statistics:
    # One sort for all quantiles and both ends: np.quantile takes several times as long.
    ordered = np.sort(values, axis=0)
    # Squares of values beyond 1e154 are no numbers any more.
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = values.mean(0), values.std(0)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": _finite(mean),
        "std": _finite(std),
        "count": np.array([len(values)], np.float64),
        **{name: _quantile(ordered, share) for name, share in QUANTILES.items()},
    }


def _quantile(ordered: Numbers, share: float) -> Numbers:
    """Linear between neighbours, as numpy's default."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return np.asarray(ordered[low] * (1 - (place - low)) + ordered[high] * (place - low))


def _weighted(weights: Numbers, values: Sequence[Numbers]) -> Numbers:
    return np.asarray(np.tensordot(weights, np.stack(values), axes=1), np.float64)


def _finite(values: Numbers) -> Numbers:
    """JSON has no infinity: the largest number there is stands for it."""
    return np.asarray(np.nan_to_num(values, nan=float(np.finfo(np.float64).max)))

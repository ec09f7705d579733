"""Normalisers from a dataset's statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onestride.datasets.statistics import Statistics
from onestride.policies.normaliser import SMALLEST_SPREAD, Affine

SLACK = 1e-6
"""How far outside [-1, 1] a recorded action may lie by rounding and still count as inside."""

FLOOR = 1e-2
"""Smallest deviation an observation that varies at all is divided by, in recorded units (rad, m, ...).

A joint that the demonstrations hardly move deviates by 1e-4 rad; divided by that, a robot's sensor noise would
arrive at the network as ten deviations.
"""


def observation_normaliser(statistics: Statistics, names: Sequence[str], history: int) -> Affine:
    """Zero mean and unit deviation (less where it is below the floor) per element of a flattened observation.

    Args:
        statistics: Of the dataset, with every feature named.
        names: Observation features, in the order they are joined.
        history: To.

    Returns:
        The map over (To * Do,).
    """
    mean = np.concatenate([statistics.features[name].mean for name in names])
    std = np.concatenate([statistics.features[name].std for name in names])
    return Affine.standardise(_tensor(mean), _tensor(floored(std))).repeat(history)


def floored(std: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Deviations of observations (D,) as they are divided by; 0 for an element that never varies."""
    return np.where(std > SMALLEST_SPREAD, np.maximum(std, FLOOR), 0.0)


def action_normaliser(statistics: Statistics, label: str) -> Affine:
    """To [-1, 1] per element: nothing to do where the dataset's actions are inside already, else from min and max.

    Args:
        statistics: Of the dataset, with the label.
        label: The feature that is imitated.
    """
    found = statistics.features[label]
    if found.min.min() >= -1 - SLACK and found.max.max() <= 1 + SLACK:
        return Affine.identity(len(found.min))
    return Affine.unit_box(_tensor(found.min), _tensor(found.max))


def _tensor(values: NDArray[np.floating[Any]]) -> torch.Tensor:
    return torch.from_numpy(values.copy())

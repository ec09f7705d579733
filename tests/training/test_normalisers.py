"""Normalisers from statistics: constant, nearly constant and ordinary elements."""

from __future__ import annotations

import numpy as np
import torch

from onestride.datasets.statistics import FeatureStatistics, Statistics
from onestride.training.normalisers import action_normaliser, observation_normaliser


def statistics_of(**features: list[list[float]]) -> Statistics:
    """Statistics of rows (N, D) per feature."""
    described = {}
    for name, rows in features.items():
        x = np.array(rows)
        moments = (x.mean(0), x.std(0), x.min(0), x.max(0), x.min(0), x.max(0))
        described[name] = FeatureStatistics(*moments, count=len(x))
    return Statistics("id", described)


def test_observations_are_standardised_with_a_floor() -> None:
    rows = statistics_of(joint=[[3.0, 1e-4, 5.0], [-1.0, -1e-4, 5.0]], other=[[10.0], [30.0]])
    affine = observation_normaliser(rows, ["other", "joint"], history=2)
    # Deviations 10 and 2; 1e-4 is floored to 1e-2; the constant is only centred.
    torch.testing.assert_close(affine.offset, torch.tensor([20.0, 1.0, 0.0, 5.0] * 2))
    torch.testing.assert_close(affine.scale, torch.tensor([0.1, 0.5, 100.0, 1.0] * 2))


def test_actions_inside_the_unit_box_stay_as_they_are() -> None:
    affine = action_normaliser(statistics_of(action=[[-1.0, 0.2], [1.0 + 1e-9, 0.4]]), "action")
    assert affine.offset.tolist() == [0, 0] and affine.scale.tolist() == [1, 1]


def test_actions_outside_are_scaled_to_it() -> None:
    affine = action_normaliser(statistics_of(action=[[-1.0, 0.2], [3.0, 0.4]]), "action")
    torch.testing.assert_close(affine(torch.tensor([[-1.0, 0.2], [3.0, 0.4]])), torch.tensor([[-1.0, -1], [1, 1]]))

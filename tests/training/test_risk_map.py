"""The risk map of an agent whose multipliers and constraint are set by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onestride.hardware.errors import OneStrideError
from onestride.policies.normaliser import Affine
from onestride.training.agents.sac_alam import SACALaMAgent, SACALaMConfig
from onestride.training.risk_map import Slice, plot_risk_map, risk_map

PLANE = Slice(at=(0.0, 7.0, 0.0), axes=(2, 0), low=(-1.0, -2.0), high=(1.0, 2.0), points=41)


def set_layer(layer: Any, weight: list[list[float]], bias: float = 0.0) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight).reshape(layer.weight.shape))
        layer.bias.fill_(bias)


@pytest.fixture(scope="module")
def agent() -> SACALaMAgent:
    """λ(s) = clip(20 s_2, 0, 10), so saturated from s_2 = 0.495 on; G(s, a) = max(s_0, 0), limit 0.5."""
    config = SACALaMConfig(hidden=(1,), max_multiplier=10.0, cost_limit=5.0)
    made = SACALaMAgent(config, Affine.identity(3), Affine.identity(1), steps=1, seed=0)
    network = made.multiplier.online.network.layers
    set_layer(network[0], [[0.0, 0.0, 20.0]])
    set_layer(network[-1], [[1.0]])
    constraint = made.core.constraint.ensemble.online
    set_layer(constraint.hidden[0], [[1.0, 0.0, 0.0, 0.0]] * 2)
    set_layer(constraint.last, [[1.0]] * 2)
    return made


def test_the_grid_varies_two_elements_and_holds_the_rest() -> None:
    grid = PLANE.observations.reshape(41, 41, 3)
    assert (grid[..., 1] == 7.0).all()
    np.testing.assert_allclose(grid[0, :, 2], np.linspace(-1, 1, 41), atol=1e-6)
    np.testing.assert_allclose(grid[:, 0, 0], np.linspace(-2, 2, 41), atol=1e-6)


def test_the_map_is_what_the_networks_say(agent: SACALaMAgent) -> None:
    found = risk_map(agent, PLANE)
    across, up = np.meshgrid(*PLANE.ticks)
    np.testing.assert_allclose(found.multipliers, np.clip(20 * across, 0, 10), atol=1e-5)
    np.testing.assert_allclose(found.excess, np.maximum(up, 0) - 0.5, atol=1e-5)
    np.testing.assert_array_equal(found.infeasible, 20 * across >= 9.9)
    assert 0 < found.infeasible.mean() < 1


def test_the_picture_shows_the_colours_and_the_limit(agent: SACALaMAgent, tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    path = tmp_path / "deep" / "risk.png"
    plot_risk_map(risk_map(agent, PLANE), path, ("speed [m/s]", "height [m]"))
    pixels = image.imread(path)[..., :3]
    assert pixels.shape[0] > 300 and pixels.shape[1] > 400
    for colour in ([0.267, 0.005, 0.329], [0.993, 0.906, 0.144]):  # of the least and the largest multiplier
        assert (np.abs(pixels - colour).max(-1) < 0.02).sum() > 1000
    red, green, blue = np.moveaxis(pixels, -1, 0)
    limit = np.argwhere((red > 0.8) & (green < 0.3) & (blue < 0.3))
    assert len(limit) > 300 and np.ptp(limit[:, 0]) <= 3  # one horizontal line, across the whole map


def test_a_map_without_limit_or_infeasible_states_is_drawn(agent: SACALaMAgent, tmp_path: Path) -> None:
    calm = Slice(at=(0.0, 0.0, 0.0), axes=(0, 1), low=(-1.0, -1.0), high=(0.0, 1.0), points=5)
    found = risk_map(agent, calm)
    assert not found.infeasible.any() and found.excess.max() < 0
    plot_risk_map(found, tmp_path / "calm.png")
    assert (tmp_path / "calm.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "change",
    [{"axes": (0, 0)}, {"axes": (0, 3)}, {"axes": (-1, 0)}, {"low": (1.0, -2.0)}, {"points": 1}],
)
def test_a_slice_that_is_no_plane_is_refused(change: dict[str, Any]) -> None:
    values: dict[str, Any] = {"at": PLANE.at, "axes": PLANE.axes, "low": PLANE.low, "high": PLANE.high}
    with pytest.raises(OneStrideError, match="expected"):
        Slice(**{**values, **change})

"""How far outputs follow inputs: the estimate of the Jacobian's size, and bounds that no pair of points may break."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onestride.policies.exportable import Exportable
from onestride.policies.gaussian import ClippedGaussian, SquashedGaussian
from onestride.policies.jacobian import largest_stretch, squared_jacobian
from onestride.policies.lipschitz import GELU_SLOPE, ObservationBound, exact_norm, gram_norm, slope_bound, walked
from onestride.policies.mean_flow import MeanFlow
from onestride.policies.networks import MLP
from onestride.policies.normaliser import Affine
from onestride.policies.plain_flow import OneStepMap, PlainFlow
from onestride.policies.policy import ChunkPolicy
from onestride.policies.products import fast_products

S, H, D = 4, 2, 3
FLOWS = (MeanFlow, PlainFlow)


def seeded(make: Any, *arguments: Any, seed: int = 0, gain: float = 1.0, **settings: Any) -> Any:
    """A module whose weights are ``gain`` times those of its usual start."""
    torch.manual_seed(seed)
    made = make(*arguments, **settings)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter *= gain
    return made


def jacobians(function: Any, points: torch.Tensor) -> torch.Tensor:
    """Exact, row by row, (B, D, S)."""
    one: Any = torch.autograd.functional.jacobian
    return torch.stack([one(lambda x: function(x.unsqueeze(0))[0], point) for point in points])


@pytest.mark.parametrize("fast", [False, True])
def test_the_estimate_is_the_squared_norm_of_the_exact_jacobian(fast: bool) -> None:
    """Over 4000 draws within 2 %, at each of three points."""
    network = seeded(MLP, S, (32, 32), D, gain=2.0)
    points = torch.randn(3, S)
    exact = jacobians(network, points).square().sum((1, 2))
    g = torch.Generator().manual_seed(0)
    with fast_products(fast):
        found = squared_jacobian(network, points.repeat(4000, 1), g).reshape(4000, 3)
    torch.testing.assert_close(found.mean(0), exact, rtol=0.02, atol=0)
    assert found.std(0).max() > 0.1 * exact.min(), "expected an estimate, not the norm itself"


def test_the_estimates_gradient_is_that_of_the_norm() -> None:
    network = seeded(MLP, S, (8,), 1)  # one output: a sign squared is 1, so the estimate is exact
    points = torch.randn(5, S)
    found = torch.autograd.grad(squared_jacobian(network, points).mean(), network.layers[0].weight)[0]
    first, last = network.layers[0], network.layers[2]
    slope = torch.func.vmap(torch.func.vmap(torch.func.grad(nn.functional.gelu)))(first(points))
    exact = ((slope * last.weight[0]) @ first.weight).square().sum(1).mean()
    torch.testing.assert_close(found, torch.autograd.grad(exact, first.weight)[0])


def test_the_flows_sensitivities_are_those_of_what_they_say() -> None:
    """Mean flow: the whole one-step chunk. Plain flow: its velocity between noise and data."""
    mean, plain, s = seeded(MeanFlow, S, H, D, (16,), gain=2.0), seeded(PlainFlow, S, H, D, (16,)), torch.randn(1, S)
    g = torch.Generator().manual_seed(0)
    found = mean.sensitivity(s.expand(20_000, S), g)
    noise = torch.randn(500, 1, H, D)
    exact = torch.stack([jacobians(lambda x, e=e: mean.sample(x, e).flatten(1), s) for e in noise]).square()
    torch.testing.assert_close(found, exact.sum((-2, -1)).mean(), rtol=0.03, atol=0)
    actions, valid = torch.zeros(1, H, D), torch.tensor([[1.0, 0.0]])
    actions[0, 1] = float("nan")  # padding
    rows = plain.sensitivity(s.expand(20_000, S), actions.expand(20_000, H, D), valid.expand(20_000, H), g)
    t, e = torch.rand(500, 1, 1), noise.flatten(2)
    z = torch.cat([t * e[..., :D], e[..., D:]], dim=-1)
    pairs = zip(z, t, strict=True)
    exact = torch.stack([jacobians(lambda x, z=z, t=t: plain(z, t, x), s) for z, t in pairs]).square()
    torch.testing.assert_close(rows, exact.sum((-2, -1)).mean(), rtol=0.03, atol=0)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_the_gram_norm_is_just_above_the_norm(rows: int, columns: int, seed: int, scale: float) -> None:
    matrix = scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    ratio = (gram_norm(matrix) / exact_norm(matrix)).item()
    assert 1 - 1e-5 < ratio < 40 ** (1 / 32) + 1e-5


def test_the_gram_norm_of_nothing_is_nothing_and_of_one_direction_is_exact() -> None:
    assert gram_norm(torch.zeros(3, 5)).item() < 1e-15
    outer = torch.outer(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0, 0.0]))
    assert gram_norm(outer).item() == pytest.approx(10.0, rel=1e-6)
    weight = torch.randn(6, 6, requires_grad=True)
    gram_norm(weight).backward()
    assert weight.grad is not None and weight.grad.isfinite().all()


def test_gelu_is_nowhere_steeper() -> None:
    x = torch.linspace(-10, 10, 200_001, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(nn.functional.gelu(x).sum(), x)[0].abs().max().item()
    assert slope <= GELU_SLOPE and slope == pytest.approx(GELU_SLOPE, abs=1e-8)


@pytest.mark.parametrize("activation", [nn.GELU, nn.ReLU, nn.Tanh])
def test_no_pair_of_points_breaks_the_product_bound(activation: Any) -> None:
    """Far and near pairs, and the steepest point found by ascent; only the first three inputs move."""
    network = seeded(MLP, 5, (16, 16), 4, activation=activation, gain=3.0).double()
    bound = slope_bound(network, slice(0, 3), slice(1, 3)).item()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 5, generator=g, dtype=torch.float64)
    for reach in (1e-4, 1.0, 100.0):
        y = x.clone()
        y[:, :3] += reach * torch.randn(5000, 3, generator=g, dtype=torch.float64)
        with torch.no_grad():
            moved = (network(x) - network(y))[:, 1:3].norm(dim=1) / (x - y).norm(dim=1)
        assert moved.max() <= bound
    assert moved.max() > 0.01 * bound, "expected a bound that means something"


def test_an_activation_without_a_known_slope_is_refused() -> None:
    with pytest.raises(TypeError, match="expected an activation of GELU, ReLU, Tanh, got SiLU"):
        slope_bound(MLP(2, (4,), 1, activation=nn.SiLU))


def test_walking_by_hand() -> None:
    assert walked(3.0, 100.0, 1) == 3.0
    assert walked(3.0, 2.0, 2) == pytest.approx(1.5 + 1.5 + 1.5)  # 1.5, then 1.5 + (2 * 1.5 + 3) / 2
    assert walked(1.0, 1.0, 10_000) == pytest.approx(np.e - 1, rel=1e-3)


@pytest.mark.parametrize("make", FLOWS)
@pytest.mark.parametrize("limit", [0.1, 2.0])
def test_a_bounded_flow_keeps_its_bound_in_the_observation_and_is_free_in_the_noise(make: Any, limit: float) -> None:
    bounded, free = (seeded(make, S, H, D, (32, 32), gain=4.0, lipschitz=limit) for limit in (limit, None))
    g = torch.Generator().manual_seed(1)
    s, noise = torch.randn(4000, S, generator=g), torch.randn(4000, H, D, generator=g)
    other = s + torch.randn(4000, S, generator=g)
    stretched = {}
    for name, flow in (("bounded", bounded), ("free", free)):
        with torch.no_grad():
            moved = (flow.sample(s, noise, 1) - flow.sample(other, noise, 1)).flatten(1).norm(dim=1)
        stretched[name] = (moved / (s - other).norm(dim=1)).max().item()
    assert stretched["bounded"] <= limit < stretched["free"]
    assert bounded.lipschitz(1) <= limit * (1 + 1e-5)
    assert slope_bound(bounded.network, slice(S, S + H * D)) == slope_bound(free.network, slice(S, S + H * D))


@pytest.mark.parametrize("make", FLOWS)
def test_a_bound_that_holds_already_changes_nothing_and_folding_changes_no_chunk(make: Any) -> None:
    wide, free, tight = (seeded(make, S, H, D, (16,), lipschitz=limit) for limit in (1e4, None, 0.05))
    s, noise = torch.randn(20, S), torch.randn(20, H, D)
    assert torch.equal(wide.sample(s, noise, 1), free.sample(s, noise, 1))
    folded = copy.deepcopy(tight)
    folded.fold()
    assert folded.limit is None and tight.limit == 0.05
    torch.testing.assert_close(folded.sample(s, noise, 4), tight.sample(s, noise, 4), rtol=1e-5, atol=1e-6)
    assert folded.lipschitz(4) == pytest.approx(tight.lipschitz(4), rel=1e-5)
    assert not torch.allclose(folded.sample(s, noise, 1), free.sample(s, noise, 1))


@pytest.mark.parametrize("make", FLOWS)
def test_the_exported_policy_holds_the_bound_in_its_weights(make: Any) -> None:
    flow = seeded(make, S, H, D, (16,), lipschitz=0.05)
    exportable = Exportable(ChunkPolicy(Affine.identity(S), Affine.identity(D), flow), (1,))
    assert isinstance(exportable.policy.flow, ObservationBound) and exportable.policy.flow.limit is None
    s, noise = torch.randn(1, S), torch.randn(1, H, D)
    torch.testing.assert_close(exportable(s, noise)[0], flow.sample(s, noise, 1).clamp(-1, 1))


@pytest.mark.parametrize(("make", "nfe"), [*((flow, nfe) for flow in FLOWS for nfe in (1, 4)), (OneStepMap, 1)])
def test_what_is_seen_lies_below_what_is_bounded(make: Any, nfe: int) -> None:
    """The steepest of 200 points against the bound, for one step and for four."""
    flow = seeded(make, S, H, D, (16, 16), gain=2.0)
    s, noise = torch.randn(200, S), torch.randn(200, H, D)
    seen = largest_stretch(lambda x, e: flow.sample(x, e, nfe), s, noise)
    exact = jacobians(lambda x: flow.sample(x, noise[:1], nfe).flatten(1), s[:1])
    assert torch.linalg.matrix_norm(exact, 2).item() <= seen <= flow.lipschitz(nfe)


@pytest.mark.parametrize("make", [SquashedGaussian, ClippedGaussian])
def test_a_gaussians_mode_is_bounded(make: Any) -> None:
    gaussian = seeded(make, S, H, D, (16, 16), gain=2.0)
    s = torch.randn(200, S)
    seen = largest_stretch(lambda x, _: gaussian.mode(x), s, torch.zeros(200, 1))
    assert 0 < seen <= gaussian.lipschitz()


def test_a_linear_maps_stretch_is_its_norm() -> None:
    weight = torch.randn(3, S)
    assert largest_stretch(lambda x, e: x @ weight.T + e, torch.randn(5, S), torch.randn(5, 3)) == pytest.approx(
        exact_norm(weight).item(), rel=1e-5
    )

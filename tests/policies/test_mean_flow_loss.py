"""The mean-flow loss against algebra: closed forms, hand-computed values, finite differences, masks."""

from __future__ import annotations

import functools
import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onestride.policies.mean_flow import (
    WEIGHT_FLOOR,
    MeanFlow,
    adaptive_weight,
    average_velocity_target,
    draw_times,
    integrate,
    mean_flow_loss,
)
from onestride.policies.networks import MLP
from onestride.policies.products import fast_products

S, H, D = 3, 2, 2


def network(seed: int = 0) -> MeanFlow:
    torch.manual_seed(seed)
    return MeanFlow(S, H, D, (16, 16)).double()


def problem(batch: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """s, actions, noise (B, ·) and times t, r (B, 1), in double precision."""
    g = torch.Generator().manual_seed(seed)
    s, a, e = (torch.randn(batch, width, generator=g, dtype=torch.float64) for width in (S, H * D, H * D))
    return s, a, e, *draw_times(batch, generator=g, dtype=torch.float64)


def mode_velocity(z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """Exact average velocity where the only action is zero: every path is the straight line z_t = t e."""
    del r, s
    return z / t


def test_target_matches_finite_differences() -> None:
    """du/dt along (dz/dt, dt/dt, dr/dt) = (v, 1, 0), by central differences in double precision."""
    flow = network()
    s, a, e, t, r = problem(64)
    v, step = e - a, 1e-6
    z = a + t * v
    with torch.no_grad():
        ahead = flow(z + step * v, t + step, r, s)
        behind = flow(z - step * v, t - step, r, s)
        numeric = v - (t - r) * (ahead - behind) / (2 * step)
    target = average_velocity_target(flow, z, t, r, s, v)
    assert not target.requires_grad
    torch.testing.assert_close(target, numeric, rtol=0, atol=1e-8)
    assert (target - v)[:32].abs().max() > 1e-3  # the correction is not negligible where r < t


def test_the_derivative_is_the_jacobian_vector_product() -> None:
    """The products spelled out, torch's own JVP, the same compiled, and central differences agree."""
    flow = network()
    s, a, e, t, r = problem(64)
    v, step = e - a, 1e-6
    z = a + t * v

    def product(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        # The JVP is inside what is compiled: tangents do not pass its border.
        return torch.func.jvp(lambda z_, t_: flow(z_, t_, r, s), (z, t), (v, torch.ones_like(t)))[1]

    with torch.no_grad():
        numeric = (flow(z + step * v, t + step, r, s) - flow(z - step * v, t - step, r, s)) / (2 * step)
        eager = product(z, t)
    torch.testing.assert_close(flow.derivative(z, t, r, s, v), eager, rtol=0, atol=1e-12)
    torch.testing.assert_close(eager, numeric, rtol=0, atol=1e-7)
    assert eager.abs().max() > 1e-2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_compiled_target_is_the_eager_one() -> None:
    flow = network()
    s, a, e, t, r = problem(64)
    v = e - a
    arguments = (a + t * v, t, r, s, v)
    compiled = torch.compile(functools.partial(average_velocity_target, flow))
    torch.testing.assert_close(compiled(*arguments), average_velocity_target(flow, *arguments), rtol=0, atol=1e-10)


def test_fast_products_give_the_same_target() -> None:
    flow = network().float()
    s, a, e, t, r = (x.float() for x in problem(64))
    arguments = (a + t * (e - a), t, r, s, e - a)
    plain = average_velocity_target(flow, *arguments)
    with fast_products():
        torch.testing.assert_close(average_velocity_target(flow, *arguments), plain, rtol=0, atol=1e-5)


def test_on_a_gpu_the_products_are_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the host's processor is; on tensors without values, of a device that is not it."""
    monkeypatch.delattr(torch.func, "jvp")
    flow = network().to("meta")
    arguments = [x.to("meta") for x in problem(64)]
    s, a, _, t, r = arguments
    assert average_velocity_target(flow, a, t, r, s, a).shape == a.shape


def test_only_smooth_networks_have_a_tangent() -> None:
    with pytest.raises(TypeError, match="expected GELU between the layers, got ReLU"):
        MLP(2, (8,), 1, activation=nn.ReLU).tangent(torch.zeros(1, 2), torch.zeros(1, 2))


def test_the_exact_average_velocity_is_a_fixed_point() -> None:
    """Where u is exact and the conditional velocity is the marginal one, the target is u itself."""
    _, _, e, t, r = problem(64)
    z = t * e
    target = average_velocity_target(mode_velocity, z, t, r, torch.zeros(64, 1), e)
    torch.testing.assert_close(target, mode_velocity(z, t, r, e), rtol=0, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(constant=st.floats(-5, 5), seed=st.integers(0, 1000))
def test_the_mean_flow_residual_does_not_see_c_over_t_minus_r(constant: float, seed: int) -> None:
    """MVP's ambiguity: u + C/(t - r) has the same residual u - u_tgt for every t > r."""
    flow = network(seed)
    s, a, e, t, r = (x[:16] for x in problem(32, seed))  # the first half: r < t
    keep = (t - r).squeeze(1) > 1e-3
    s, a, e, t, r = (x[keep] for x in (s, a, e, t, r))
    v = e - a
    z = a + t * v

    def shifted(z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return flow(z, t, r, s) + constant / (t - r)

    with torch.no_grad():
        residual = flow(z, t, r, s) - average_velocity_target(flow, z, t, r, s, v)
        shifted_residual = shifted(z, t, r, s) - average_velocity_target(shifted, z, t, r, s, v)
    torch.testing.assert_close(shifted_residual, residual, rtol=0, atol=1e-8)


def test_the_instantaneous_constraint_sees_it() -> None:
    """The same shift, kept finite at r = t, leaves L_MF where it was and blows L_IVC up."""
    _, _, e, t, r = problem(64)
    s, ones = torch.zeros(64, 1, dtype=torch.float64), torch.ones_like(e)
    smallest = (t - r)[:32].min()

    def shifted(z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return mode_velocity(z, t, r, s) + 0.1 / (t - r).clamp_min(smallest / 2)

    _, exact = mean_flow_loss(mode_velocity, s, torch.zeros_like(e), e, t, r, ones)
    _, wrong = mean_flow_loss(shifted, s, torch.zeros_like(e), e, t, r, ones)
    assert exact["mean_flow_mse"] < 1e-20
    assert exact["instantaneous_mse"] < 1e-20
    assert wrong["mean_flow_mse"] < 1e-16
    assert wrong["instantaneous_mse"] == pytest.approx((0.2 / smallest.item()) ** 2)


def test_loss_by_hand() -> None:
    """u = 2 z t + r in one dimension, two rows: the first for L_MF, the second for L_IVC."""
    a, e = torch.tensor([[1.0], [0.0]]), torch.tensor([[3.0], [2.0]])
    t, r = torch.tensor([[0.5], [0.5]]), torch.tensor([[0.25], [0.5]])

    def velocity(z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        del s
        return 2 * z * t + r

    loss, metrics = mean_flow_loss(
        velocity, torch.zeros(2, 1), a, e, t, r, torch.ones(2, 1), ivc_weight=0.5, weight_power=0.5
    )
    # Row 1: v = 2, z = 2, u = 2.25, du/dt = 2 t v + 2 z = 6, target = 2 - 0.25 * 6 = 0.5, error 1.75.
    # Row 2: v = 2, z = 1, u = 1.5, target = 2, error -0.5.
    first, second = 1.75**2, 0.5**2
    assert metrics["mean_flow_mse"].item() == pytest.approx(first)
    assert metrics["instantaneous_mse"].item() == pytest.approx(second)
    weighted = first / math.sqrt(first + 1e-3) + 0.5 * second / math.sqrt(second + 1e-3)
    assert loss.item() == pytest.approx(weighted)
    assert metrics["loss"].item() == pytest.approx(weighted)


def test_no_gradient_flows_through_the_target() -> None:
    """With du/dt ignored in the gradient, d loss / d u = 2 w (u - target) / n, by hand."""
    scale = torch.tensor(1.5, requires_grad=True)

    def velocity(z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        del r, s
        return scale * z * t

    a, e = torch.tensor([[1.0], [0.0]]), torch.tensor([[3.0], [2.0]])
    t, r = torch.tensor([[0.5], [0.5]]), torch.tensor([[0.25], [0.5]])
    loss, _ = mean_flow_loss(
        velocity, torch.zeros(2, 1), a, e, t, r, torch.ones(2, 1), ivc_weight=1.0, weight_power=0.0
    )
    loss.backward()
    # Row 1: z = 2, u = 1.5, du/dt = 1.5 (z + v t) = 4.5, target 0.875, error 0.625, du/dscale = z t = 1.
    # Row 2: z = 1, u = 0.75, target 2, error -1.25, du/dscale = 0.5.
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(2 * 0.625 * 1 + 2 * -1.25 * 0.5)


def test_adaptive_weight() -> None:
    squared = torch.tensor([0.0, 1.0, 9.0], requires_grad=True)
    assert adaptive_weight(squared, 0.0).tolist() == [1.0, 1.0, 1.0]
    weight = adaptive_weight(squared, 0.5)
    expected = [1 / math.sqrt(value + WEIGHT_FLOOR) for value in (0.0, 1.0, 9.0)]
    assert weight.tolist() == pytest.approx(expected)
    assert not weight.requires_grad


@pytest.mark.parametrize(("power", "minimiser"), [(0.0, 0.25), (0.5, math.sqrt(WEIGHT_FLOOR / 8))])
def test_what_each_weight_regresses_to(power: float, minimiser: float) -> None:
    """Targets 0, 0, 0, 1: plain squares rest at the mean 1/4, p = 1/2 nearly at the median 0.

    At p = 1/2 the gradient vanishes where 3 u / sqrt(u² + c) = (1 - u) / sqrt((1 - u)² + c), to first order at
    u = sqrt(c / 8).
    """
    targets = torch.tensor([0.0, 0.0, 0.0, 1.0])
    gradients = []
    for factor in (0.98, 1.02):
        u = torch.tensor(minimiser * factor, requires_grad=True)
        squared = (u - targets).square()
        (adaptive_weight(squared, power) * squared).sum().backward()
        assert u.grad is not None
        gradients.append(u.grad.item())
    assert gradients[0] < 0 < gradients[1]


def test_times_are_sorted_and_half_are_equal() -> None:
    t, r = draw_times(4001, generator=torch.Generator().manual_seed(0))
    assert ((r > 0) & (r <= t) & (t < 1)).all()
    assert (r[:2000] < t[:2000]).all()
    assert torch.equal(r[2000:], t[2000:])
    # The larger of two draws of N(-0.4, 1) has the median Phi^-1(sqrt(1/2)) - 0.4 = 0.1449; 4001 draws: +-0.02.
    assert torch.logit(t).median().item() == pytest.approx(0.1449, abs=0.06)


def test_uniform_times() -> None:
    """The larger of two uniform draws has the mean 2/3, the smaller one 1/3; 4000 draws: +-0.004."""
    t, r = draw_times(8000, law="uniform", generator=torch.Generator().manual_seed(0))
    assert t[:4000].mean().item() == pytest.approx(2 / 3, abs=0.015)
    assert r[:4000].mean().item() == pytest.approx(1 / 3, abs=0.015)
    assert (r[:4000] < t[:4000]).all() and torch.equal(r[4000:], t[4000:])


def test_times_to_the_data() -> None:
    """All the way to r = 0 in the first half, from anywhere; r = t in the second."""
    t, r = draw_times(8000, law="to_data", generator=torch.Generator().manual_seed(0))
    assert (r[:4000] == 0).all() and torch.equal(r[4000:], t[4000:])
    for half in (t[:4000], t[4000:]):
        assert half.mean().item() == pytest.approx(0.5, abs=0.02)
        assert half.var().item() == pytest.approx(1 / 12, abs=0.005)


def test_a_share_of_the_times_is_where_one_step_acting_evaluates() -> None:
    t, r = draw_times(400, 0.25, generator=torch.Generator().manual_seed(0))
    acting = ((t == 1.0) & (r == 0.0)).squeeze(1)
    assert acting[:50].all()
    assert not acting[50:].any()
    reference, _ = draw_times(400, generator=torch.Generator().manual_seed(0))
    assert torch.equal(t[50:], reference[50:])


def test_padding_reaches_neither_loss_nor_gradient() -> None:
    """Whatever lies in an invalid tail, NaN included, loss and gradient are the same to the bit."""
    valid = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    s = torch.randn(4, S, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    actions = torch.randn(4, H, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    seen = []
    for padding in (0.0, 7.0, float("nan")):
        flow = network()
        padded = torch.where(valid.unsqueeze(-1) > 0, actions, padding)
        loss, _ = flow.loss(s, padded, valid, generator=torch.Generator().manual_seed(3))
        loss.backward()
        seen.append([loss.detach(), *(p.grad for p in flow.parameters() if p.grad is not None)])
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
    assert seen[0][0].isfinite()


def test_padding_has_no_tangent() -> None:
    """A velocity that adds all of z up feels the tangent of the valid element only."""
    s, t, r = torch.zeros(2, 1), torch.full((2, 1), 0.5), torch.tensor([[0.0], [0.5]])
    a, e = torch.tensor([[1.0, 9.0], [1.0, 9.0]]), torch.tensor([[3.0, 5.0], [3.0, 5.0]])
    valid = torch.tensor([[1.0, 0.0], [1.0, 0.0]])

    def velocity(z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        del t, r, s
        return z.sum(1, keepdim=True).expand_as(z)

    _, metrics = mean_flow_loss(velocity, s, a, e, t, r, valid)
    # z = (2, 5), u = 7, v = (2, 0), du/dt = 2, target = 2 - 0.5 * 2 = 1; in the second row target = 2.
    assert metrics["mean_flow_mse"].item() == pytest.approx(36.0)
    assert metrics["instantaneous_mse"].item() == pytest.approx(25.0)


def test_a_half_without_valid_elements_counts_nothing() -> None:
    s, a, e, t, r = problem(4)
    valid = torch.ones_like(a)
    valid[2:] = 0
    loss, metrics = mean_flow_loss(network(), s, a, e, t, r, valid)
    assert metrics["instantaneous_mse"].item() == 0.0
    assert loss.isfinite()


@settings(max_examples=20, deadline=None)
@given(nfe=st.integers(1, 16), seed=st.integers(0, 1000))
def test_any_number_of_steps_follows_an_exact_average_velocity(nfe: int, seed: int) -> None:
    """Gaussian actions N(m, q²): z_t - (1 - t) m scales with sqrt((1 - t)² q² + t²) along its path."""
    m, q = 0.7, 0.3

    def flow_map(z: torch.Tensor, t: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        deviation_t, deviation_r = (torch.sqrt((1 - x) ** 2 * q**2 + x**2) for x in (t, r))
        return (1 - r) * m + (z - (1 - t) * m) * deviation_r / deviation_t

    def velocity(z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        del s
        return (z - flow_map(z, t, r)) / (t - r)

    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    reached = integrate(velocity, z, torch.zeros(8, 1), nfe)
    torch.testing.assert_close(reached, m + q * z, rtol=0, atol=1e-10)


def test_sampling_walks_the_uniform_grid() -> None:
    visited: list[tuple[float, float]] = []

    def velocity(z: torch.Tensor, t: torch.Tensor, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        del s
        visited.append((t[0, 0].item(), r[0, 0].item()))
        return torch.ones_like(z)

    reached = integrate(velocity, torch.full((2, 3), 5.0), torch.zeros(2, 1), 4)
    assert visited == [(1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)]
    assert torch.equal(reached, torch.full((2, 3), 4.0))  # one unit of time at unit velocity


def test_misfits_are_refused() -> None:
    flow = network().float()
    with pytest.raises(ValueError, match="nfe >= 1, got 0"):
        flow.sample(torch.zeros(1, S), torch.zeros(1, H, D), 0)
    with pytest.raises(ValueError, match="expected s, actions, valid"):
        flow.loss(torch.zeros(4, S), torch.zeros(4, H, D + 1), torch.ones(4, H))
    with pytest.raises(ValueError, match="B >= 2"):
        flow.loss(torch.zeros(1, S), torch.zeros(1, H, D), torch.ones(1, H))
    with pytest.raises(ValueError, match="positive layer sizes"):
        MeanFlow(S, H, D, ())

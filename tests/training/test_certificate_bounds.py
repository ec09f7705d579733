"""Interval arithmetic with derivatives: what is sampled inside a cell lies inside its bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.training.certificates.jets import Jet, clip, cos, maximum, sin, square, variables
from onestride.training.certificates.neural import NeuralLyapunov
from onestride.training.certificates.quadratic import Quadratic
from onestride.training.certificates.recipes import controller
from onestride.training.certificates.systems import SYSTEMS, CartPole, TwoLinkArm, system_named

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "polynomial": lambda x, y: square(x) * y - x * 3.0 + 1.5,
    "trigonometry": lambda x, y: sin(x * 2.0) * cos(y) + sin(x + y),
    "quotient": lambda x, y: (x - y) / (square(y) + 0.5),
    "reciprocal": lambda x, y: 2.0 / (cos(x) * 0.3 + 1.0) - y,
    "kinks": lambda x, y: maximum(clip(x * 2.0, -0.7, 0.4) + y, -y) * x,
    "negation": lambda x, y: 1.0 - (-x) * (-2.0) - y / 3.0,
}


def inside(function: Callable[..., Any], centre: np.ndarray, radius: np.ndarray, rng: np.random.Generator) -> None:
    """Values and slopes at random points of each cell (n, B) lie within the jet's bounds."""
    jet = function(*variables(centre, radius))
    assert isinstance(jet, Jet)
    width, size = 1e-6, np.abs(jet.low).max() + np.abs(jet.high).max() + 1.0
    for _ in range(20):
        point = centre + radius * rng.uniform(-1, 1, centre.shape)
        value = function(*point)
        assert (value >= jet.low - 1e-9 * size).all() and (value <= jet.high + 1e-9 * size).all()
        for axis in range(len(centre)):
            step = np.zeros_like(centre)
            step[axis] = width * np.sign(centre[axis] - point[axis])  # towards the middle: still in the cell
            slope = (function(*(point + step)) - value) / step[axis]
            assert (slope >= jet.slope_low[axis] - 1e-4 * size).all()
            assert (slope <= jet.slope_high[axis] + 1e-4 * size).all()


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(FUNCTIONS)), st.integers(0, 2**31 - 1))
def test_bounds_hold(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside(FUNCTIONS[name], rng.uniform(-4, 4, (2, 50)), rng.uniform(0.001, 1.5, (2, 50)), rng)


@pytest.mark.parametrize("name", SYSTEMS)
def test_bounds_of_systems_hold_under_their_controllers(name: str) -> None:
    system, rng = system_named(name), np.random.default_rng(0)
    function, control = controller(system)
    half = np.array(system.domain)[:, None]
    centre, radius = half * rng.uniform(-1, 1, (len(half), 40)), half * rng.uniform(0.001, 0.2, (len(half), 40))
    for index in range(len(half)):
        inside(lambda *x, index=index: system.step(x, control(x))[index], centre, radius, rng)
    inside(lambda *x: function(system.step(x, control(x))) - function(x), centre, radius, rng)


def test_bounds_of_a_network_hold_and_all_three_algebras_agree() -> None:
    rng = np.random.default_rng(0)
    network = NeuralLyapunov(Quadratic(np.array([[2.0, 0.5], [0.5, 1.0]])), (8, 8), seed=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3.0)
    frozen = network.frozen()
    points = rng.uniform(-2, 2, (2, 500))
    with torch.no_grad():
        expected = network(torch.from_numpy(points.T.copy())).numpy()
    np.testing.assert_allclose(frozen(list(points)), expected, rtol=1e-12)
    jet = frozen(variables(points, np.zeros_like(points)))
    np.testing.assert_allclose(jet.low, expected, rtol=1e-9)
    inside(lambda *x: frozen(list(x)), points[:, :50], rng.uniform(0.001, 0.5, (2, 50)), rng)


def test_a_network_is_positive_definite_whatever_its_weights() -> None:
    quadratic = Quadratic(np.array([[2.0, 0.5], [0.5, 1.0]]))
    points = torch.from_numpy(np.random.default_rng(0).uniform(-3, 3, (100_000, 2)))
    for seed in range(3):
        network = NeuralLyapunov(quadratic, (16,), seed)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(5.0)
            assert network(torch.zeros(1, 2, dtype=torch.float64)).item() == 0.0
            floor = 0.1 * quadratic(list(points.numpy().T))
            assert (network(points).numpy() >= floor * (1 - 1e-12)).all()


ARM = """
<mujoco><compiler balanceinertia="true"/><option gravity="0 0 -9.81"/><worldbody>
  <body euler="0 90 0"><joint name="a" axis="0 -1 0" ref="0"/>{first}
    <body pos="0 0 0.4"><joint name="b" axis="0 -1 0"/>{second}</body></body>
</worldbody></mujoco>"""


def rod(mass: float, length: float) -> str:
    """A thin uniform rod along z: mass in the middle, m l² / 12 across."""
    across = mass * length**2 / 12.0
    return f'<inertial pos="0 0 {length / 2}" mass="{mass}" diaginertia="{across} {across} {across * 1e-3 + 1e-9}"/>'


def test_the_arms_torques_are_mujocos() -> None:
    """Stretched along +x at zero, turning up for positive angles."""
    arm = TwoLinkArm()
    model = mujoco.MjModel.from_xml_string(ARM.format(first=rod(2.0, 0.4), second=rod(1.0, 0.35)))
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    for _ in range(50):
        x, u = rng.uniform(-1, 1, 4) * [1, 1, 4, 4], rng.uniform(-20, 20, 2)
        data.qpos[:], data.qvel[:], data.qacc[:] = x[:2] + arm.pose, x[2:], u
        mujoco.mj_inverse(model, data)
        found = [float(one[0]) for one in arm.torques([np.array([v]) for v in x], [np.array([v]) for v in u])]
        np.testing.assert_allclose(found, data.qfrc_inverse, atol=2e-3)


CART = """
<mujoco><compiler balanceinertia="true"/><option gravity="0 0 -9.8"/><worldbody>
  <body><joint type="slide" axis="1 0 0"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
    <body><joint axis="0 1 0"/>{pole}</body></body>
</worldbody></mujoco>"""


def test_the_cart_poles_accelerations_are_mujocos() -> None:
    model = mujoco.MjModel.from_xml_string(CART.format(pole=rod(0.1, 1.0)))
    data, rng, system = mujoco.MjData(model), np.random.default_rng(0), CartPole()
    for _ in range(50):
        x, u = rng.uniform(-1, 1, 4) * [2, 1, 2, 3], rng.uniform(-10, 10)
        data.qpos[:], data.qvel[:], data.qfrc_applied[:] = x[:2], x[2:], [u, 0.0]
        mujoco.mj_forward(model, data)
        rates = system.rate([np.array([v]) for v in x], [np.array([u])])
        np.testing.assert_allclose([float(one[0]) for one in rates[2:]], data.qacc, rtol=1e-3, atol=1e-3)

"""SAC on a regulation task whose optimum is known: a double integrator with a quadratic cost, against its LQR."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onestride.policies.normaliser import Affine
from onestride.training.agents import catalogue

from .regulation import DISCOUNT, cost, mode, regulator, train


@pytest.mark.parametrize("name", ["sac", "dsact"])
def test_it_regulates_almost_as_cheaply_as_the_lqr(name: str) -> None:
    """Within 15 % of the LQR's cost, where doing nothing costs ten times as much."""
    entry: Any = catalogue.find(name)
    config = entry.config(
        hidden=(64, 64), batch_size=128, entropy_per_element=0.0, lr=1e-3, discount=DISCOUNT, tau=0.01, temperature=0.1
    )
    agent = entry.agent(config, Affine.identity(2), Affine.identity(1), steps=1, seed=0)
    gain = regulator()
    best = cost(lambda state: -(state @ gain)[:, None])
    idle = cost(lambda state: np.zeros((len(state), 1)))
    untrained = cost(lambda state: mode(agent, state))
    train(agent, 800)
    learnt = cost(lambda state: mode(agent, state))
    assert idle > 10 * best and untrained > 2 * best
    assert learnt < 1.15 * best

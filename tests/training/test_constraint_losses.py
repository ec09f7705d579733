"""Constraints and their multipliers against hand computation: targets, limits, penalties, dual steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.policies.normaliser import Affine
from onestride.training.agents.constraint import ConstraintCritic, discounted_limit
from onestride.training.agents.fac import FACAgent, FACConfig
from onestride.training.agents.multiplier import multiplier_metrics
from onestride.training.agents.sac_alam import SACALaMAgent, SACALaMConfig, augmented_penalty
from onestride.training.agents.sac_lag import SACLagAgent, SACLagConfig
from onestride.training.agents.soft_critic import values

from .soft_batches import ACTION, OBSERVATION, soft_batch

SIZES = {"hidden": (16, 16), "batch_size": 8}
MAPS = Affine.standardise(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([2.0, 0.5, 3.0])), Affine.identity(ACTION)
numbers = st.floats(-20, 20, width=32)


# Constraints


def test_the_limit_of_25_in_1000_steps_is_2_5_discounted() -> None:
    assert discounted_limit(25, 1000, 0.99) == pytest.approx(2.5)
    assert SACLagConfig().limit == pytest.approx(2.5)
    # A cost that runs at that rate is worth just the limit.
    assert sum(0.025 * 0.99**i for i in range(5000)) == pytest.approx(2.5, rel=1e-6)
    assert FACConfig(constraint="reachability", reach_limit=0.1).limit == 0.1


def test_cost_target_by_hand() -> None:
    critic = ConstraintCritic(FACConfig(cost_discount=0.5, horizon=2, **SIZES), 5)
    costs = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    assert critic.target(costs, torch.tensor([1.0, 0.0]), torch.tensor([8.0, 8.0])).tolist() == [2 + 0.25 * 8, 2.0]


def test_reachability_target_by_hand() -> None:
    """(1 - γ) h + γ max(h, G'): the worst of now and later; after a terminal step just h."""
    critic = ConstraintCritic(FACConfig(constraint="reachability", cost_discount=0.9, **SIZES), 5)
    h, following = torch.tensor([[-1.0], [2.0], [-1.0]]), torch.tensor([3.0, 1.0, 3.0])
    found = critic.target(h, torch.tensor([1.0, 1.0, 0.0]), following)
    assert found.tolist() == pytest.approx([0.1 * -1 + 0.9 * 3, 2.0, -1.0])


def test_reachability_of_a_path_is_its_discounted_worst() -> None:
    """Backed up along a path: the sign is that of the path's maximum, and γ -> 1 gives the maximum itself."""
    path = [-1.0, -0.5, 0.7, -2.0]
    for discount, tolerance in ((0.9, None), (0.9999, 1e-3)):
        critic = ConstraintCritic(FACConfig(constraint="reachability", cost_discount=discount, **SIZES), 5)
        value = torch.zeros(1)
        for index, h in reversed(list(enumerate(path))):
            value = critic.target(torch.tensor([[h]]), torch.tensor([float(index < len(path) - 1)]), value)
        assert value.item() > -1.0
        if tolerance:
            assert value.item() == pytest.approx(max(path), abs=tolerance)


def test_excess_is_the_mean_over_draws_and_critics() -> None:
    critic = ConstraintCritic(FACConfig(cost_limit=10.0, **SIZES), OBSERVATION + ACTION)
    s, a = torch.randn(4, OBSERVATION), torch.rand(3, 4, ACTION)
    with torch.no_grad():
        each = torch.stack([values(critic.ensemble.online, s, a[k]) for k in range(3)])
        torch.testing.assert_close(critic.excess(s, a), each.mean((0, 1)) - 1.0)


# Multipliers


@settings(max_examples=100, deadline=None)
@given(g=numbers, multiplier=st.floats(0, 20, width=32), rho=st.floats(0.05, 5))
def test_the_penaltys_slope_is_the_clipped_multiplier(g: float, multiplier: float, rho: float) -> None:
    excess = torch.tensor([g], dtype=torch.float64, requires_grad=True)
    fixed = torch.tensor([multiplier], dtype=torch.float64)
    value = augmented_penalty(excess, fixed, rho)
    value.sum().backward()
    assert excess.grad is not None
    assert excess.grad.item() == pytest.approx(max(multiplier + rho * g, 0.0), abs=1e-6)
    # Nothing is paid for a constraint that is met where the multiplier is zero, and the two branches join.
    assert augmented_penalty(torch.tensor([-1.0]), torch.tensor([0.0]), rho).item() == 0.0
    edge = torch.tensor([-multiplier / rho], dtype=torch.float64)
    assert augmented_penalty(edge, fixed, rho).item() == pytest.approx(-(multiplier**2) / (2 * rho), abs=1e-6)


def test_alam_actor_loss_and_dual_target_by_hand() -> None:
    config = SACALaMConfig(penalty=0.5, max_multiplier=2.0, temperature=0.2, constraint_draws=3, **SIZES)
    agent = SACALaMAgent(config, *MAPS, steps=1, seed=0)
    s = agent.core.transition(soft_batch()).s
    g = torch.Generator()
    g.set_state(agent.generator.get_state())
    multipliers = torch.linspace(0, 2, 8)
    with torch.no_grad():
        a, log_prob = agent.core.actor.sample(s, g, 3)
        soft = 0.2 * log_prob[0] - agent.core.critic(s, a[0]).amin(0)
        excess = agent.core.constraint.excess(s, a)
        total = 0.0
        for i in range(8):
            lam, x = multipliers[i].item(), excess[i].item()
            total += soft[i].item() + (lam * x + 0.25 * x * x if lam + 0.5 * x > 0 else -(lam**2) / 1.0)
    _, found_excess, metrics = agent.actor_loss(s, multipliers)
    torch.testing.assert_close(found_excess, excess)
    assert metrics["actor/loss"].item() == pytest.approx(total / 8 / (1 + multipliers.mean().item()), rel=1e-4)
    output, excess = torch.full((8,), 0.3), torch.linspace(-9, 9, 8)
    with torch.no_grad():
        *_, (_, weight), (_, bias) = agent.multiplier.target.named_parameters()
        weight.zero_()
        bias.fill_(1.0)
    loss, metrics = agent.multiplier_loss(s, output, excess)
    targets = [min(max(1.0 + 0.5 * x, 0.0), 2.0) for x in excess.tolist()]
    assert loss.item() == pytest.approx(sum(0.5 * (0.3 - y) ** 2 for y in targets) / 8, rel=1e-5)
    assert metrics["multiplier/mean"].item() == pytest.approx(0.3)


def test_lagrangian_multiplier_climbs_and_is_held() -> None:
    config = SACLagConfig(multiplier_lr=0.5, multiplier=1.0, max_multiplier=2.0, **SIZES)
    agent = SACLagAgent(config, *MAPS, steps=1, seed=0)
    seen = []
    for excess in (1.0, 4.0, -1.0, -9.0):
        agent.multiplier_step(torch.tensor([excess - 1, excess + 1]))
        seen.append(agent.multiplier.item())
    assert seen == [1.5, 2.0, 1.5, 0.0]


def test_lagrangian_actor_loss_by_hand() -> None:
    agent = SACLagAgent(SACLagConfig(multiplier=3.0, constraint_draws=1, **SIZES), *MAPS, steps=1, seed=0)
    s = agent.core.transition(soft_batch()).s
    g = torch.Generator()
    g.set_state(agent.generator.get_state())
    with torch.no_grad():
        a, log_prob = agent.core.actor.sample(s, g)
        soft = log_prob[0] - agent.core.critic(s, a[0]).amin(0)
        excess = values(agent.core.constraint.ensemble.online, s, a[0]).mean(0) - 2.5
    _, _, metrics = agent.actor_loss(s)
    assert metrics["actor/loss"].item() == pytest.approx(((soft + 3 * excess) / 4).mean().item(), rel=1e-5)


def test_dual_ascent_stops_at_the_bound_and_comes_back() -> None:
    agent = FACAgent(FACConfig(max_multiplier=2.0, **SIZES), *MAPS, steps=1, seed=0)
    multipliers = torch.tensor([1.0, 3.0, 3.0], requires_grad=True)
    loss, metrics = agent.multiplier_loss(multipliers, torch.tensor([0.6, 0.6, -0.6]))
    loss.backward()
    assert multipliers.grad is not None
    assert multipliers.grad.tolist() == pytest.approx([-0.2, 0.0, 0.2])
    assert metrics["multiplier/saturated"].item() == pytest.approx(2 / 3)
    assert metrics["multiplier/max"].item() == 2.0


def test_the_multiplier_network_moves_at_its_interval() -> None:
    agent = FACAgent(FACConfig(multiplier_interval=3, **SIZES), *MAPS, steps=1, seed=0)
    probe, moved = torch.randn(5, OBSERVATION), []
    for seed in range(6):
        before = agent.multipliers(probe)
        agent.update(soft_batch(seed=seed))
        moved.append(not torch.equal(before, agent.multipliers(probe)))
    assert moved == [False, False, True, False, False, True]


def test_multiplier_metrics_by_hand() -> None:
    metrics = multiplier_metrics(torch.tensor([0.0, 5.0, 9.9, 10.0]), 10.0)
    assert metrics["multiplier/mean"].item() == pytest.approx(6.225)
    assert metrics["multiplier/max"].item() == 10.0
    assert metrics["multiplier/saturated"].item() == 0.5

"""The Lyapunov actor-critic: its losses by hand, and that cost falls and the condition holds on the closed loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from onestride.policies.normaliser import Affine
from onestride.training.agents.lac import LACAgent, LACConfig, energy, mean_change
from onestride.training.agents.transition import transition

from . import regulation
from .soft_batches import ACTION, OBSERVATION, soft_batch

SIZES: dict[str, Any] = {"hidden": (16, 16), "batch_size": 8, "discount": 0.9}


def make(**settings: Any) -> LACAgent:
    config = LACConfig(**{**SIZES, **settings})
    return LACAgent(config, Affine.identity(OBSERVATION), Affine.identity(ACTION), steps=1, seed=0)


def batch() -> dict[str, torch.Tensor]:
    """Row 2 ends the task, row 5 is cut short; every other row earns a reward above 0."""
    made = soft_batch()
    made["rewards"] = made["rewards"].abs() * torch.tensor([-1.0, 1.0]).repeat(4).unsqueeze(1)
    made["masks"][2, 0], made["valid"][5, 0] = 0.0, 0.0
    return made


def drawn(agent: LACAgent, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the agent will draw next at s: actions (B, Da), log densities (B,)."""
    copy = torch.Generator()
    copy.set_state(agent.generator.get_state())
    noise = torch.randn((1, len(s), ACTION), generator=copy)
    with torch.no_grad():
        actions, log_prob = agent.actor.policy.gaussian.sample(s, noise)
    return actions[0], log_prob[0]


def test_the_energys_target_by_hand() -> None:
    agent, made = make(), batch()
    step = transition(agent.actor.policy, made, 0.9)
    a, _ = drawn(agent, step.next_s)
    total = 0.0
    with torch.no_grad():
        for i in range(8):
            cost = max(0.0, -made["rewards"][i, 0].item())
            f = agent.critic.target(torch.cat([step.next_s[i], a[i]]).unsqueeze(0))[0, 0]
            y = cost + 0.9 * (0.0 if i == 2 else 1.0) * (f**2).sum().item()
            f = agent.critic.online(torch.cat([step.s[i], step.a[i]]).unsqueeze(0))[0, 0]
            total += 0.0 if i == 5 else ((f**2).sum().item() - y) ** 2
    loss, _ = agent.critic_loss(step, agent.costs(step, made))
    assert loss.item() == pytest.approx(total / 8, rel=1e-5)
    assert agent.costs(step, made)[1::2].eq(0).all(), "a reward above 0 is no cost"


def test_the_actors_loss_and_the_dual_ascent_by_hand() -> None:
    agent, made = make(multiplier=2.0, decrease=0.3, multiplier_lr=0.5, temperature=0.3), batch()
    step = transition(agent.actor.policy, made, 0.9)
    costs = agent.costs(step, made)
    a, log_prob = drawn(agent, step.next_s)
    online = agent.critic.online
    with torch.no_grad():
        change = energy(online, step.next_s, a) - energy(online, step.s, step.a) + 0.3 * costs
    counted = [0, 1, 3, 4, 6, 7]
    mean = change[counted].mean().item()
    _, found, metrics = agent.actor_loss(step, costs)
    torch.testing.assert_close(found, change)
    assert metrics["actor/loss"].item() == pytest.approx(0.3 * log_prob.mean().item() + 2 * mean, rel=1e-5)
    metrics = agent.multiplier_step(found, step)
    assert agent.multiplier.item() == pytest.approx(min(max(2 + 0.5 * mean, 0.0), 10.0), rel=1e-6)
    assert metrics["multiplier/change"].item() == pytest.approx(mean, rel=1e-5)
    assert metrics["multiplier/decreasing"].item() == pytest.approx((change[counted] <= 0).float().mean().item())


def test_the_actor_climbs_through_the_next_energy_alone() -> None:
    """Its gradient is that of L(s', π(s')), and the energy's own parameters get none."""
    agent, made = make(temperature=1e-8), batch()
    step = transition(agent.actor.policy, made, 0.9)
    state = agent.generator.get_state()
    loss, _, _ = agent.actor_loss(step, agent.costs(step, made))
    loss.backward()
    found = [p.grad.clone() for p in agent.actor.policy.parameters() if p.grad is not None]
    assert all(p.grad is None for p in agent.critic.parameters())
    agent.generator.set_state(state)
    a = agent.actor.sample(step.next_s, agent.generator)[0][0]
    following = mean_change(energy(agent.critic.online, step.next_s, a), step)
    expected = torch.autograd.grad(following, [p for p in agent.actor.policy.parameters() if p.requires_grad])
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_costs_are_the_stores_where_asked_for() -> None:
    agent, made = make(cost="cost", horizon=2, n_action_steps=2), soft_batch(horizon=2)
    step = transition(agent.actor.policy, made, 0.9)
    torch.testing.assert_close(agent.costs(step, made), made["costs"][:, 0] + 0.9 * made["costs"][:, 1])
    assert agent.needs == ("rewards", "costs") and make().needs == ("rewards",)


def test_a_batch_that_only_ends_tasks_moves_no_multiplier() -> None:
    agent, made = make(), batch()
    made["masks"].zero_()
    metrics = agent.update(made)
    assert agent.multiplier.item() == 1.0
    assert all(value.isfinite() for value in metrics.values())


def test_it_regulates_and_its_energy_falls_along_the_closed_loop() -> None:
    """800 updates: within 1.5 times the LQR's cost, idling costs 11 times as much; the condition holds on average.

    On the closed loop from fresh starts, not on what was trained with; before training it does not hold.
    """
    config = LACConfig(
        hidden=(64, 64),
        batch_size=128,
        entropy_per_element=0.0,
        lr=1e-3,
        discount=regulation.DISCOUNT,
        tau=0.01,
        temperature=0.1,
    )
    agent = LACAgent(config, Affine.identity(2), Affine.identity(1), steps=1, seed=0)
    gain = regulation.regulator()
    best = regulation.cost(lambda state: -(state @ gain)[:, None])
    before, untrained = mean_closed_loop_change(agent), regulation.cost(lambda state: regulation.mode(agent, state))
    metrics = regulation.train(agent, 800)
    learnt = regulation.cost(lambda state: regulation.mode(agent, state))
    assert untrained > 10 * best
    assert learnt < 1.5 * best
    assert mean_closed_loop_change(agent) < 0 < before
    assert metrics["multiplier/change"] < 0


def mean_closed_loop_change(agent: LACAgent) -> float:
    """Mean of ``L(s', π(s')) - L(s, π(s)) + decrease c`` over 64 episodes of the mode."""
    state, changes = regulation.start(np.random.default_rng(7), 64), []
    for _ in range(regulation.STEPS):
        action = regulation.mode(agent, state)
        following = regulation.step(state, action)
        now, then = (agent.energy(torch.as_tensor(one, dtype=torch.float32)).numpy() for one in (state, following))
        changes.append(then - now - agent.config.decrease * regulation.reward(state, action))
        state = following
    return float(np.mean(changes))

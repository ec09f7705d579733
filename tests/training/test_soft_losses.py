"""Losses of the soft actor-critics against hand computation: targets, temperature, distributions, expectiles."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.policies.normaliser import Affine
from onestride.training.agents.dsact import (
    CLIP,
    EPSILON,
    DSACTAgent,
    DSACTConfig,
    ValueDistribution,
    distributional_loss,
)
from onestride.training.agents.iql import IQLAgent, IQLConfig, expectile_loss
from onestride.training.agents.packing import descend
from onestride.training.agents.rlpd import RLPDAgent, RLPDConfig
from onestride.training.agents.sac import SACAgent, SACConfig
from onestride.training.agents.soft_critic import values
from onestride.training.agents.transition import discounted, transition

from .soft_batches import ACTION, OBSERVATION, soft_batch

SIZES = {"hidden": (16, 16), "batch_size": 8}
MAPS = Affine.standardise(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([2.0, 0.5, 3.0])), Affine.identity(ACTION)
numbers = st.floats(-20, 20, width=32)


def draws(agent: SACAgent | DSACTAgent, shape: tuple[int, ...]) -> torch.Tensor:
    """What the agent's generator gives next."""
    g = torch.Generator()
    g.set_state(agent.generator.get_state())
    return torch.randn(shape, generator=g)


# Transitions


def test_a_chunk_is_discounted_and_masked() -> None:
    batch = soft_batch(horizon=3)
    batch["rewards"] = torch.tensor([[1.0, 2.0, 4.0]]).repeat(8, 1)
    batch["masks"][0, -1], batch["valid"][1, -1] = 0.0, 0.0
    agent = SACAgent(SACConfig(horizon=3, n_action_steps=2, **SIZES), *MAPS, steps=1, seed=0)
    step = transition(agent.actor.policy, batch, 0.5)
    assert step.reward.tolist() == [1 + 0.5 * 2 + 0.25 * 4] * 8
    assert step.mask.tolist() == [0.0] + [1.0] * 7
    assert step.valid.tolist() == [1.0, 0.0] + [1.0] * 6
    assert step.s[0].tolist() == pytest.approx(
        [
            ((x - m) / d)
            for x, m, d in zip(batch["observations"][0, 0].tolist(), (0.5, -1.0, 2.0), (2.0, 0.5, 3.0), strict=True)
        ],
        rel=1e-5,
    )
    assert torch.equal(discounted(batch["rewards"][:, :1], 0.5), batch["rewards"][:, 0])


# SAC and RLPD


def test_sac_target_by_hand() -> None:
    agent = SACAgent(SACConfig(discount=0.9, temperature=0.3, **SIZES), *MAPS, steps=1, seed=0)
    batch = soft_batch()
    batch["masks"][2, 0], batch["valid"][5, 0] = 0.0, 0.0
    with torch.no_grad():
        for parameter in agent.critic.ensemble.target.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    step = transition(agent.actor.policy, batch, 0.9)
    noise = draws(agent, (1, 8, ACTION))[0]
    with torch.no_grad():
        next_a, log_prob = agent.actor.policy.gaussian.sample(step.next_s, noise)
        target, online = agent.critic.ensemble.target, agent.critic.ensemble.online
        total = 0.0
        for i in range(8):
            best = min(values(target, step.next_s, next_a)[k, i].item() for k in range(2))
            y = batch["rewards"][i, 0].item() + 0.9 * batch["masks"][i, 0].item() * (best - 0.3 * log_prob[i].item())
            for k in range(2):
                error = values(online, step.s, step.a)[k, i].item() - y
                total += error**2 * (0.0 if i == 5 else 1.0)
    loss, metrics = agent.critic_loss(step)
    assert loss.item() == pytest.approx(total / 16, rel=1e-5)
    assert metrics["critic/loss"].item() == pytest.approx(loss.item())


def test_sac_actor_and_temperature_by_hand() -> None:
    """The temperature's gradient in log α is -α (E[log π] + target); the actor's own loss leaves it alone."""
    agent = SACAgent(SACConfig(temperature=0.3, entropy_per_element=-0.7, **SIZES), *MAPS, steps=1, seed=0)
    s = transition(agent.actor.policy, soft_batch(), 0.9).s
    noise = draws(agent, (1, 8, ACTION))[0]
    with torch.no_grad():
        a, log_prob = agent.actor.policy.gaussian.sample(s, noise)
        value = agent.critic(s, a).amin(0)
    loss, metrics = agent.actor_loss(s)
    gap = log_prob.mean().item() - 0.7 * ACTION
    assert metrics["actor/loss"].item() == pytest.approx((0.3 * log_prob - value).mean().item(), rel=1e-5)
    assert loss.item() == pytest.approx(metrics["actor/loss"].item() - 0.3 * gap, rel=1e-5)
    (slope,) = torch.autograd.grad(loss, [agent.actor.log_temperature])
    assert slope.item() == pytest.approx(-0.3 * gap, rel=1e-5)
    assert metrics["actor/entropy"].item() == pytest.approx(-log_prob.mean().item(), rel=1e-5)


def test_the_actors_step_leaves_the_critics_and_their_gradients_alone() -> None:
    agent = SACAgent(SACConfig(**SIZES), *MAPS, steps=1, seed=0)
    before = [p.detach().clone() for p in agent.critic.parameters()]
    loss, _ = agent.actor_loss(transition(agent.actor.policy, soft_batch(), 0.9).s)
    descend(agent.actor_optimiser, loss)
    assert all(p.grad is None for p in agent.critic.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, agent.critic.parameters(), strict=True))
    assert all(p.grad is not None for p in agent.actor.parameters())


def test_targets_follow_by_tau() -> None:
    agent = SACAgent(SACConfig(tau=0.25, **SIZES), *MAPS, steps=1, seed=0)
    old = [p.clone() for p in agent.critic.ensemble.target.parameters()]
    agent.update(soft_batch())
    pairs = zip(old, agent.critic.ensemble.online.parameters(), strict=True)
    for target, (was, online) in zip(agent.critic.ensemble.target.parameters(), pairs, strict=True):
        torch.testing.assert_close(target, 0.75 * was + 0.25 * online)


def test_rlpd_takes_the_smallest_of_a_drawn_pair_and_climbs_the_mean() -> None:
    config = RLPDConfig(critics=6, temperature=1e-6, **SIZES)
    agent = RLPDAgent(config, *MAPS, steps=1, seed=0)
    s, a = torch.randn(32, OBSERVATION), torch.rand(32, ACTION) * 2 - 1
    with torch.no_grad():
        every = values(agent.critic.ensemble.target, s, a)
        pairs = {(i, j): every[[i, j]].amin(0) for i in range(6) for j in range(i)}
        seen = set()
        for _ in range(40):
            found = agent.critic.target_value(s, a, agent.generator)
            seen |= {pair for pair, value in pairs.items() if torch.equal(value, found)}
        noise = draws(agent, (1, 32, ACTION))[0]
        expected = agent.critic(s, agent.actor.policy.gaussian.sample(s, noise)[0]).mean(0)
        assert len(seen) > 5
        assert agent.actor_loss(s)[1]["actor/loss"].item() == pytest.approx(-expected.mean().item(), abs=1e-4)
    assert config.online_share == 0.5 and config.layer_norm


# DSAC-T


@settings(max_examples=50, deadline=None)
@given(mean=numbers, std=st.floats(0.05, 10), y=numbers, z=numbers, spread=st.floats(0.01, 5), ratio=st.floats(0.1, 3))
def test_distributional_gradient_by_hand(
    mean: float, std: float, y: float, z: float, spread: float, ratio: float
) -> None:
    q = torch.tensor([[mean], [mean]], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([[std], [2 * std]], dtype=torch.float64, requires_grad=True)
    b, omega = torch.tensor([[spread], [2 * spread]]).double(), torch.tensor([[ratio], [3 * ratio]]).double()
    drawn = torch.tensor([z], dtype=torch.float64)
    loss = distributional_loss(ValueDistribution(q, sigma), torch.tensor([y], dtype=torch.float64), drawn, b, omega)
    of_q, of_sigma = torch.autograd.grad(loss.sum(), [q, sigma])
    for k in range(2):
        s, w, limit = (k + 1) * std, (1, 3)[k] * ratio, 3 * (k + 1) * b[0, 0].item()
        held = mean + min(max(z - mean, -limit), limit)
        w = omega[k, 0].item() if k else omega[0, 0].item()
        assert of_q[k, 0].item() == pytest.approx(-w * (y - mean) / (s**2 + EPSILON), rel=1e-6, abs=1e-9)
        slope = ((held - mean) ** 2 - s**2) / (s**3 + EPSILON)
        assert of_sigma[k, 0].item() == pytest.approx(-w * slope, rel=1e-6, abs=1e-9)


def test_distributional_critic_learns_mean_and_deviation_of_returns() -> None:
    """Returns 1 ± 2 without a successor: Q -> 1 and σ -> 2 to a tenth, at every state."""
    config = DSACTConfig(lr=3e-3, spread_tau=0.05, hidden=(32, 32), batch_size=256, discount=0.0)
    agent = DSACTAgent(config, *MAPS, steps=1, seed=0)
    g = torch.Generator().manual_seed(0)
    batch = soft_batch(256)
    tail: list[torch.Tensor] = []
    for index in range(800):
        batch["rewards"] = 1 + 2 * torch.randn(256, 1, generator=g)
        step = transition(agent.actor.online.policy, batch, 0.0)
        descend(agent.critic_optimiser, agent.critic_loss(step)[0])
        agent.updates += 1
        if index >= 600:
            tail.append(torch.stack(agent.critic(step.s, step.a)).detach().mean((1, 2)))
    mean, std = torch.stack(tail).mean(0).tolist()
    assert mean == pytest.approx(1.0, abs=0.1)
    # A clip at 3 b of a drawn target narrows it by less than 1 %; ε = 0.1 does not move the fixed point.
    assert std == pytest.approx(2.0, abs=0.1)


def test_dsact_target_is_the_smaller_means_and_draws_are_held() -> None:
    agent = DSACTAgent(DSACTConfig(**SIZES), *MAPS, steps=1, seed=0)
    s, a = torch.randn(64, OBSERVATION), torch.rand(64, ACTION) * 2 - 1
    with torch.no_grad():
        output = agent.critic.ensemble.target(torch.cat([s, a], -1))
        means, stds = output[..., 0], torch.nn.functional.softplus(output[..., 1])
        least, drawn = agent.critic.smaller(s, a, torch.full((64,), 100.0))
        for i in range(64):
            k = int(means[0, i] > means[1, i])
            assert least[i] == means[k, i]
            assert drawn[i].item() == pytest.approx((means[k, i] + CLIP * stds[k, i]).item(), rel=1e-6)


def test_dsact_actor_moves_every_second_step() -> None:
    agent = DSACTAgent(DSACTConfig(**SIZES), *MAPS, steps=1, seed=0)
    seen = []
    for seed in range(4):
        metrics = agent.update(soft_batch(seed=seed))
        seen.append((agent.actor.online.log_temperature.item(), metrics["actor/loss"].item()))
    assert seen[0] == seen[1] and seen[2] == seen[3] and seen[0] != seen[2]


# IQL


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_the_minimiser_of_the_expectile_loss_is_the_expectile(expectile: float) -> None:
    """Where the weighted positive and negative deviations balance."""
    sample = torch.randn(2000, generator=torch.Generator().manual_seed(0)).double().exp()
    grid = torch.linspace(0, 6, 6001).double()
    found = grid[expectile_loss(sample - grid.unsqueeze(1), expectile).mean(1).argmin()]
    above, below = (sample - found).clamp_min(0).sum(), (found - sample).clamp_min(0).sum()
    assert (expectile * above / ((1 - expectile) * below)).item() == pytest.approx(1.0, abs=0.01)


def test_iql_losses_by_hand() -> None:
    config = IQLConfig(discount=0.9, expectile=0.8, inverse_temperature=2.0, **SIZES)
    agent = IQLAgent(config, *MAPS, steps=1, seed=0)
    batch = soft_batch()
    batch["masks"][0, 0], batch["valid"][3, 0] = 0.0, 0.0
    step = transition(agent.policy, batch, 0.9)
    of_value = of_critics = of_actor = 0.0
    with torch.no_grad():
        q = values(agent.critic.online, step.s, step.a)  # the target copies are equal at the start
        v, following = agent.value(step.s)[:, 0], agent.value(step.next_s)[:, 0]
        log_prob = agent.policy.gaussian.log_prob(step.s, step.a).sum(-1)
        for i in (0, 1, 2, 4, 5, 6, 7):
            advantage = q[:, i].min().item() - v[i].item()
            of_value += (0.8 if advantage > 0 else 0.2) * advantage**2 / 8
            y = batch["rewards"][i, 0].item() + 0.9 * (0.0 if i == 0 else 1.0) * following[i].item()
            of_critics += sum((q[k, i].item() - y) ** 2 for k in range(2)) / 16
            of_actor -= min(math.exp(2 * advantage), 100.0) * log_prob[i].item() / 8
    loss, advantage, metrics = agent.critic_loss(step)
    assert metrics["critic/value_loss"].item() == pytest.approx(of_value, rel=1e-4)
    assert metrics["critic/loss"].item() == pytest.approx(of_critics, rel=1e-4)
    assert loss.item() == pytest.approx(of_value + of_critics, rel=1e-4)
    assert agent.actor_loss(step, advantage)[0].item() == pytest.approx(of_actor, rel=1e-4)


def test_iql_imitates_the_better_of_two_actions() -> None:
    """Half of the data rewards +0.5, half punishes -0.5; the mode goes to the rewarded one, plain imitation to 0."""
    g = torch.Generator().manual_seed(0)
    modes = []
    for beta in (0.0, 10.0):
        config = IQLConfig(inverse_temperature=beta, lr=3e-3, hidden=(32, 32), batch_size=64)
        agent = IQLAgent(config, Affine.identity(OBSERVATION), Affine.identity(ACTION), steps=1, seed=0)
        for _ in range(400):
            batch = soft_batch(64)
            sign = torch.where(torch.rand(64, 1, generator=g) < 0.5, 1.0, -1.0)
            batch |= {"actions": 0.5 * sign.unsqueeze(-1).expand(-1, 1, ACTION), "rewards": sign, "masks": 0 * sign}
            agent.update(batch)
        modes.append(agent.act(torch.zeros(1, OBSERVATION), torch.zeros(1, 1, ACTION)).mean().item())
    assert modes[0] == pytest.approx(0.0, abs=0.2)
    assert modes[1] == pytest.approx(0.5, abs=0.1)


def test_configs_of_chunks_are_discounted_by_their_length() -> None:
    agent = SACAgent(replace(SACConfig(**SIZES), horizon=4, n_action_steps=4, discount=0.9), *MAPS, steps=1, seed=0)
    assert agent.critic.discount == pytest.approx(0.9**4)
    assert agent.actor.target_entropy == -4 * ACTION

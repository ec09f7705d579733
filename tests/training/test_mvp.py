"""The MVP agent: what it learns, its average, its schedule, its state, its refusals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference_mvp import ReferenceMVP
from torch import nn

from onestride.hardware.errors import OneStrideError
from onestride.training.agents.ema import EMA
from onestride.training.agents.mvp import MVPAgent, MVPConfig

from .toy_store import ACTION, OBSERVATION, SMALL, expert, make_agent, random_batch
from .value_batches import make_batch


def parameters(agent: MVPAgent) -> list[torch.Tensor]:
    return [p.detach().clone() for module in (agent.actor.policy, agent.actor.acting) for p in module.parameters()]


def test_it_imitates_a_known_expert() -> None:
    """800 small steps: one-step actions at unseen observations within 0.15 of the expert, whose spread is 0.5."""
    config = replace(SMALL, horizon=1, n_action_steps=1, hidden=(64, 64), batch_size=256, lr=3e-3, ema_decay=0.99)
    agent = make_agent(config, steps=800)
    g = torch.Generator().manual_seed(1)
    for _ in range(800):
        observations = torch.rand(256, 1, OBSERVATION, generator=g) * 2 - 1
        actions = torch.from_numpy(expert(observations.numpy()))
        agent.update({"observations": observations, "actions": actions, "valid": torch.ones(256, 1)})
    observation = torch.rand(1000, OBSERVATION, generator=g) * 2 - 1
    shown = torch.from_numpy(expert(observation.numpy()))
    error = agent.act(observation, torch.randn(1000, 1, ACTION, generator=g))[:, 0] - shown
    assert shown.std(0).min() > 0.5
    assert error.square().mean().sqrt() < 0.15


def test_metrics_are_the_losses_and_stay_tensors() -> None:
    metrics = make_agent().update(random_batch())
    assert set(metrics) == {"actor/loss", "actor/mean_flow_mse", "actor/instantaneous_mse"}
    for value in metrics.values():
        assert value.shape == () and not value.requires_grad and value.isfinite()


def test_same_seed_same_agent_other_seed_another() -> None:
    runs = []
    for seed in (0, 0, 1):
        agent = make_agent(seed=seed)
        agent.update(random_batch())
        runs.append(parameters(agent))
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][0], runs[2][0])


def test_building_an_agent_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make_agent(seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_state_goes_on_bit_for_bit() -> None:
    straight, stopped, fresh = make_agent(), make_agent(), make_agent(seed=7)
    for seed in range(3):
        straight.update(random_batch(seed=seed))
        stopped.update(random_batch(seed=seed))
    fresh.load_state_dict(stopped.state_dict())
    for seed in range(3, 6):
        straight.update(random_batch(seed=seed))
        fresh.update(random_batch(seed=seed))
    assert all(torch.equal(a, b) for a, b in zip(parameters(straight), parameters(fresh), strict=True))


def test_ema_by_hand() -> None:
    """Decays min(0.5, 1/10), min(0.5, 2/11), ..., min(0.5, 9/18), then 0.5."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    ema = EMA(module, 0.5)
    nn.init.constant_(module.weight, 2.0)
    expected = 1.0
    for n in range(12):
        ema.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * 2.0
        assert ema.module.weight.item() == pytest.approx(expected)
        if n == 0:
            assert expected == pytest.approx(1.9)
    assert module.weight.item() == 2.0 and not ema.module.weight.requires_grad


def test_the_average_acts_and_is_exported() -> None:
    agent = make_agent()
    observation, noise = torch.ones(1, OBSERVATION), torch.ones(1, SMALL.horizon, ACTION) / 2
    with torch.no_grad():
        for parameter in agent.actor.policy.parameters():
            parameter.add_(0.5)
    before = agent.act(observation, noise)
    assert not torch.equal(before, agent.actor.policy.act(observation, noise))
    outputs = agent.as_exportable()(observation, noise)
    assert len(outputs) == len(SMALL.nfe)
    assert torch.equal(outputs[0], before)
    assert torch.equal(agent.as_exportable((3,))(observation, noise)[0], agent.act(observation, noise, nfe=3))


@pytest.mark.parametrize(("decay", "factors"), [("cosine", [1.0, 0.853553, 0.5, 0.146447, 0.0]), ("none", [1.0] * 5)])
def test_learning_rate_schedule(decay: str, factors: list[float]) -> None:
    agent = make_agent(replace(SMALL, lr_decay=decay, lr=2e-3), steps=4)
    seen = []
    for seed in range(5):
        agent.update(random_batch(seed=seed))
        seen.append(agent.actor.optimiser.param_groups[0]["lr"] / 2e-3)
    assert seen == pytest.approx(factors, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon", 0),
        ("n_action_steps", 6),
        ("history", 0),
        ("nfe", (1, 1)),
        ("hidden", ()),
        ("batch_size", 1),
        ("lr", 0.0),
        ("lr", math.nan),
        ("lr_decay", "linear"),
        ("ivc_weight", -1.0),
        ("weight_power", 2.0),
        ("ema_decay", 1.0),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(OneStrideError, match=f"^{field}: expected"):
        MVPConfig(**{field: value})


def test_imitation_is_what_it_always_was() -> None:
    """Figures of the first version of this agent, which had no critic: rounding aside, nothing has changed."""
    agent, metrics = make_agent(), {}
    for seed in range(5):
        metrics = agent.update(random_batch(seed=seed))
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {"actor/loss": 1.8955591, "actor/mean_flow_mse": 1.8004203, "actor/instantaneous_mse": 1.3647547}, rel=1e-5
    )
    acted = agent.act(torch.ones(1, OBSERVATION), torch.full((1, 2, ACTION), 0.5)).flatten().tolist()
    assert acted == pytest.approx([0.6228590, 0.5645100, 0.2248926, 0.3769445], rel=1e-5)
    assert agent.critic is None and agent.needs == ()
    assert set(agent.state_dict().tensors) == {"model", "ema", "optimiser", "random"}


RANKED = replace(SMALL, candidates=4, nfe=(1,), lr_decay="none", critic_hidden=(16, 16), rank_dtype="float32")


def test_the_step_is_the_plain_one() -> None:
    """Five gradient steps beside the reference, which shares no code with the agent: losses and weights."""
    agent = make_agent(replace(RANKED, hidden=(32, 32), critic_hidden=(32, 32)))
    reference = ReferenceMVP(agent)
    for seed in range(5):
        batch = make_batch(2, seed=seed)
        metrics = agent.update(batch)
        critic_loss, actor_loss = reference.update(batch)
        torch.testing.assert_close(metrics["critic/loss"], critic_loss, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(metrics["actor/loss"], actor_loss, rtol=1e-4, atol=1e-6)
    assert agent.critic is not None
    mine = agent.actor.acting.flow.network.layers.parameters()
    for a, b in zip(mine, reference.ema.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    plain = [weight for name, weight in reference.targets[1].named_parameters() if name.endswith("weight")]
    for weight, expected in zip(agent.critic.target.weights, plain[1:], strict=True):
        torch.testing.assert_close(weight[1], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("imitate", "own"), [("buffer", []), ("best_of_n", range(16)), ("mix", range(1, 16, 2))])
def test_what_is_imitated(imitate: str, own: Sequence[int]) -> None:
    """The dataset's chunk, or the best of fresh candidates, whole where the dataset's is cut short."""
    agent, batch = make_agent(replace(RANKED, imitate=imitate)), make_batch(2)
    batch["valid"][:, 1] = 0.0
    state = agent.generator.get_state()
    chunks, valid = agent._imitated(batch)
    assert agent.critic is not None
    agent.generator.set_state(state)
    others = [row for row in range(16) if row not in own]
    assert torch.equal(chunks[others], batch["actions"][others])
    assert (valid[others, 1] == 0).all() and (valid[:, 0] == 1).all()
    if own:
        best = agent.critic.best(batch["observations"].flatten(1)[list(own)], agent.generator)
        assert torch.equal(chunks[list(own)], best)
        assert (valid[list(own)] == 1).all()


def test_a_ranked_run_begins_from_an_imitating_one() -> None:
    """The policy is taken over, the critic begins anew."""
    source, mine, fresh = make_agent(seed=1), make_agent(RANKED, seed=2), make_agent(RANKED, seed=2)
    source.update(random_batch())
    mine.begin_from(source.state_dict())
    assert mine.critic is not None and fresh.critic is not None
    noise = torch.randn(3, SMALL.horizon, ACTION)
    observation = torch.randn(3, OBSERVATION)
    assert torch.equal(mine.actor.acting.act(observation, noise), source.act(observation, noise))
    assert torch.equal(mine.critic.online.of_s, fresh.critic.online.of_s)
    mine.update(make_batch(2))


def test_without_the_constraint_only_the_mean_flow_counts() -> None:
    agent = make_agent(replace(SMALL, ivc_weight=0.0, weight_power=0.0))
    _, metrics = agent.actor_loss(random_batch())
    assert metrics["actor/loss"].item() == pytest.approx(metrics["actor/mean_flow_mse"].item())
    assert metrics["actor/instantaneous_mse"] > 0

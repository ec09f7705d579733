"""What all soft actor-critics promise the loop: golden losses, state to the bit, export, refusals by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from onestride.hardware.errors import OneStrideError
from onestride.policies import products
from onestride.policies.normaliser import Affine
from onestride.training.agents import catalogue
from onestride.training.agents.catalogue import Agent
from onestride.training.agents.multiplier import Constrained
from onestride.training.agents.state import AgentState

from .soft_batches import ACTION, OBSERVATION, soft_batch

AGENTS = ("sac", "rlpd", "dsact", "sac_lag", "fac", "sac_alam", "lac", "iql")
CONSTRAINED = ("sac_lag", "fac", "sac_alam")
SIZES: dict[str, Any] = {"hidden": (16, 16), "batch_size": 8}

GOLDEN: dict[str, dict[str, float]] = {
    "sac": {
        "critic/loss": 2.64835,
        "critic/value": -0.248027,
        "actor/loss": 1.38319,
        "actor/entropy": -1.06672,
        "actor/temperature": 0.999104,
    },
    "rlpd": {
        "critic/loss": 3.09848,
        "critic/value": -0.147974,
        "actor/loss": 1.33378,
        "actor/entropy": -1.17999,
        "actor/temperature": 0.999149,
    },
    "dsact": {
        "critic/loss": 2.22032,
        "critic/value": -0.056515,
        "critic/deviation": 0.703499,
        "actor/loss": 0.890617,
        "actor/entropy": -0.743444,
        "actor/temperature": 0.9997,
    },
    "sac_lag": {
        "critic/loss": 2.4396,
        "critic/value": -0.247752,
        "critic/constraint_loss": 0.475518,
        "critic/constraint_value": -0.112912,
        "actor/loss": 1.84594,
        "actor/excess": -2.612,
        "actor/entropy": -1.50784,
        "actor/temperature": 0.999103,
        "multiplier/mean": 0.0,
        "multiplier/max": 0.0,
        "multiplier/saturated": 0.0,
    },
    "fac": {
        "critic/loss": 2.43965,
        "critic/value": -0.247752,
        "critic/constraint_loss": 0.475518,
        "critic/constraint_value": -0.112912,
        "actor/loss": 0.0802387,
        "actor/excess": -2.612,
        "actor/entropy": -1.50787,
        "actor/temperature": 0.999103,
        "multiplier/loss": 1.71311,
        "multiplier/mean": 0.655919,
        "multiplier/max": 0.701944,
        "multiplier/saturated": 0.0,
    },
    "sac_alam": {
        "critic/loss": 2.43961,
        "critic/value": -0.247752,
        "critic/constraint_loss": 0.475518,
        "critic/constraint_value": -0.112912,
        "actor/loss": 1.84248,
        "actor/excess": -2.612,
        "actor/entropy": -1.50784,
        "actor/temperature": 0.999103,
        "multiplier/loss": 0.00277,
        "multiplier/mean": 0.0018727,
        "multiplier/max": 0.0149816,
        "multiplier/saturated": 0.0,
    },
    "lac": {
        "critic/loss": 0.385136,
        "critic/value": 0.51185,
        "actor/loss": 1.07333,
        "actor/entropy": -0.97305,
        "actor/temperature": 0.999119,
        "multiplier/mean": 1.00033,
        "multiplier/max": 1.00033,
        "multiplier/saturated": 0.0,
        "multiplier/change": 0.101109,
        "multiplier/decreasing": 0.375,
    },
    "iql": {
        "critic/loss": 2.20945,
        "critic/value_loss": 0.340031,
        "critic/value": 0.726389,
        "actor/loss": 0.236486,
        "actor/weight": 0.0594732,
    },
}


def make(name: str, seed: int = 0, **settings: Any) -> Agent:
    entry = catalogue.find(name)
    config: Any = entry.config
    observation = Affine.standardise(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([2.0, 0.5, 3.0]))
    return entry.agent(config(**{**SIZES, **settings}), observation, Affine.identity(ACTION), steps=100, seed=seed)


def tensors(agent: Agent) -> dict[str, torch.Tensor]:
    groups = agent.state_dict().tensors
    return {f"{group}.{name}": value.clone() for group, held in groups.items() for name, value in held.items()}


def through_a_checkpoint(state: AgentState) -> AgentState:
    """As a snapshot holds it: tensors copied, values through JSON."""
    copied = {group: {name: value.clone() for name, value in held.items()} for group, held in state.tensors.items()}
    return AgentState(copied, json.loads(json.dumps(dict(state.values))))


@pytest.mark.parametrize("name", AGENTS)
def test_golden_losses(name: str) -> None:
    """The fourth update's metrics, frozen: a change in them is a change of the algorithm."""
    agent = make(name)
    metrics = {}
    for seed in range(4):
        metrics = agent.update(soft_batch(seed=seed))
    found = {key: value.item() for key, value in metrics.items()}
    assert found == pytest.approx(GOLDEN[name], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", AGENTS)
def test_metrics_are_scalars_on_the_device_and_the_same_at_every_update(name: str) -> None:
    agent = make(name)
    first = agent.update(soft_batch())
    assert set(agent.update(soft_batch(seed=1))) == set(first)
    for key, value in first.items():
        assert key.split("/")[0] in ("actor", "critic", "multiplier")
        assert value.shape == () and not value.requires_grad and value.isfinite()


@pytest.mark.parametrize("name", AGENTS)
def test_state_goes_on_bit_for_bit(name: str) -> None:
    """Stopped after three updates, an odd number, and gone on in another agent."""
    straight, stopped, fresh = make(name), make(name), make(name, seed=7)
    for seed in range(3):
        straight.update(soft_batch(seed=seed))
        stopped.update(soft_batch(seed=seed))
    fresh.load_state_dict(through_a_checkpoint(stopped.state_dict()))
    for seed in range(3, 6):
        expected, found = straight.update(soft_batch(seed=seed)), fresh.update(soft_batch(seed=seed))
        assert all(torch.equal(value, found[key]) for key, value in expected.items())
    after, resumed = tensors(straight), tensors(fresh)
    assert set(after) == set(resumed) and all(torch.equal(value, resumed[key]) for key, value in after.items())


@pytest.mark.parametrize("name", AGENTS)
def test_same_seed_same_agent_and_the_global_generator_is_left_alone(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = make(name), make(name), make(name, seed=1)
    for agent in (first, second, other):
        agent.update(soft_batch())
    assert torch.equal(torch.rand(3), expected)
    mine, same, different = tensors(first), tensors(second), tensors(other)
    assert all(torch.equal(value, same[key]) for key, value in mine.items())
    weights = next(key for key in mine if key.endswith("weight"))
    assert not torch.equal(mine[weights], different[weights])


@pytest.mark.parametrize("name", AGENTS)
def test_the_mode_acts_and_is_exported(name: str) -> None:
    agent = make(name, horizon=2, n_action_steps=2)
    agent.update(soft_batch(horizon=2))
    observation = torch.randn(1, OBSERVATION)
    outputs = agent.as_exportable()(observation, torch.randn(1, 2, ACTION))
    mode = agent.act(observation, torch.zeros(1, 2, ACTION))
    assert mode.shape == (1, 2, ACTION) and mode.abs().max() <= 1
    torch.testing.assert_close(outputs[0], mode)
    assert not torch.equal(agent.act(observation, torch.ones(1, 2, ACTION)), mode)
    assert len(outputs) == (2 if name in CONSTRAINED else 1)


@pytest.mark.parametrize("name", CONSTRAINED)
def test_the_exported_risk_is_the_largest_constraint_value(name: str) -> None:
    agent: Any = make(name)
    agent.update(soft_batch())
    observation = torch.randn(1, OBSERVATION)
    exportable = agent.as_exportable()
    with torch.no_grad():
        s = agent.core.actor.policy.condition(observation)
        found = agent.core.constraint.ensemble.online(torch.cat([s, agent.core.actor.policy.gaussian.mode(s)], -1))
        torch.testing.assert_close(exportable(observation, torch.zeros(1, 1, ACTION))[1], found.amax().reshape(1))
        assert agent.excess(observation).item() == pytest.approx(found.mean().item() - 2.5, rel=1e-5)
    (monitor,) = exportable.monitors
    assert monitor.name == "risk" and monitor.threshold == pytest.approx(2.5)


@pytest.mark.parametrize("name", CONSTRAINED)
def test_multipliers_at_probe_states(name: str) -> None:
    agent = make(name, max_multiplier=3.0)
    assert isinstance(agent, Constrained)
    probes = torch.randn(50, OBSERVATION)
    agent.update(soft_batch())
    found = agent.multipliers(100 * probes)
    assert found.shape == (50,) and not found.requires_grad
    assert (found >= 0).all() and (found <= agent.max_multiplier).all()
    assert agent.max_multiplier == 3.0


@pytest.mark.parametrize("name", AGENTS)
def test_begin_from_takes_the_policy_and_not_the_optimiser(name: str) -> None:
    source, target = make(name), make(name, seed=3)
    source.update(soft_batch())
    target.begin_from(source.state_dict())
    observation, noise = torch.randn(4, OBSERVATION), torch.randn(4, 1, ACTION)
    assert torch.equal(source.act(observation, noise), target.act(observation, noise))
    groups = target.state_dict().tensors
    assert all(not held for group, held in groups.items() if group.endswith("_optimiser"))


@pytest.mark.parametrize("name", AGENTS)
def test_begin_from_refuses_another_size(name: str) -> None:
    with pytest.raises(RuntimeError):
        make(name, hidden=(8, 8)).begin_from(make(name).state_dict())


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon", 0),
        ("n_action_steps", 6),
        ("history", 0),
        ("nfe", (1, 2)),
        ("candidates", 4),
        ("normalise", "whiten"),
        ("hidden", ()),
        ("batch_size", 1),
        ("lr", 0.0),
        ("discount", 1.0),
        ("tau", 0.0),
    ],
)
def test_common_settings_are_refused_by_name(name: str, field: str, value: Any) -> None:
    config: Any = catalogue.find(name).config
    with pytest.raises(OneStrideError, match=f"^{field}: expected"):
        config(**{field: value})


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("sac", "temperature", 0.0),
        ("sac", "entropy_per_element", float("nan")),
        ("sac", "critics", 0),
        ("sac", "target_critics", 3),
        ("sac", "actor_value", "max"),
        ("rlpd", "online_share", 1.5),
        ("dsact", "actor_interval", 0),
        ("dsact", "spread_tau", 0.0),
        ("sac_lag", "multiplier_lr", 0.0),
        ("sac_lag", "multiplier", -1.0),
        ("sac_lag", "constraint", "chance"),
        ("sac_lag", "cost_limit", -1.0),
        ("fac", "cost_discount", 1.0),
        ("fac", "multiplier_interval", 0),
        ("fac", "constraint_draws", 0),
        ("sac_alam", "penalty", 0.0),
        ("sac_alam", "multiplier_tau", 0.0),
        ("sac_alam", "max_multiplier", 0.0),
        ("lac", "cost", "return"),
        ("lac", "decrease", 0.0),
        ("lac", "features", 0),
        ("lac", "multiplier", 11.0),
        ("iql", "expectile", 1.0),
        ("iql", "inverse_temperature", -1.0),
    ],
)
def test_own_settings_are_refused_by_name(name: str, field: str, value: Any) -> None:
    config: Any = catalogue.find(name).config
    with pytest.raises(OneStrideError, match=f"^{field}: expected"):
        config(**{field: value})


def test_reachability_is_refused_for_chunks() -> None:
    config: Any = catalogue.find("fac").config
    with pytest.raises(OneStrideError, match=r"^horizon: expected 1 with the constraint reachability"):
        config(horizon=2, constraint="reachability")


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("name", AGENTS)
def test_the_fast_update_is_the_plain_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four updates with oneDNN's products and gradients by hand against torch's layers, but for rounding."""
    found = []
    for fast in (True, False):
        monkeypatch.setattr(products, "_onednn_is_faster", lambda fast=fast: fast)
        agent = make(name, hidden=(32, 48))
        metrics = [agent.update(soft_batch(32, seed=seed)) for seed in range(4)]
        found.append((agent, metrics))
    for mine, theirs in zip(*(metrics for _, metrics in found), strict=True):
        for key, value in theirs.items():
            torch.testing.assert_close(mine[key], value, rtol=1e-4, atol=1e-5, msg=key)
    observation = torch.randn(16, OBSERVATION)
    mine, theirs = (agent.act(observation, torch.zeros(16, 1, ACTION)) for agent, _ in found)
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)

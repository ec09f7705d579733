"""Agents that are kept smooth: the penalty by hand and what it does, the bound, runs from before there were either."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onestride.hardware.errors import OneStrideError
from onestride.policies.normaliser import Affine
from onestride.training.agents import catalogue
from onestride.training.checkpoint import RunConfig, RunDirectory

from .toy_store import ACTION, OBSERVATION, expert

AGENTS = ("mvp", "bc_flow")
SMALL: dict[str, Any] = {"horizon": 2, "n_action_steps": 2, "hidden": (32, 32), "batch_size": 64, "lr": 3e-3}


def make(name: str, *, seed: int = 0, **settings: Any) -> Any:
    entry = catalogue.find(name)
    config: Any = entry.config
    made = config(**{**SMALL, "ema_decay": 0.99, **settings})
    return entry.agent(made, Affine.identity(OBSERVATION), Affine.identity(ACTION), steps=400, seed=seed)


def batch(seed: int, rows: int = 64) -> dict[str, torch.Tensor]:
    """The expert's actions, four times as steep as they were."""
    rng = np.random.default_rng(seed)
    observations = rng.uniform(-1, 1, (rows, 1, OBSERVATION)).astype(np.float32)
    actions = np.repeat(expert(4 * observations), 2, axis=1).astype(np.float32)
    valid = torch.ones(rows, 2)
    valid[::4, 1] = 0.0
    return {"observations": torch.from_numpy(observations), "actions": torch.from_numpy(actions), "valid": valid}


def squared_norms(agent: Any) -> float:
    """Mean of the exact ``‖∂a/∂s‖_F²`` of the one-step chunk, or of the velocity halfway, at fresh observations."""
    g = torch.Generator().manual_seed(5)
    s, noise = torch.rand(64, OBSERVATION, generator=g) * 2 - 1, torch.randn(64, 2 * ACTION, generator=g)
    flow = agent.actor.policy.flow
    mean_flow = agent.config.nfe[0] == 1

    def moved(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        out = flow.sample(x, z.reshape(1, 2, ACTION), 1) if mean_flow else flow(z, torch.full((1, 1), 0.5), x)
        return out.flatten()

    pairs = zip(s.unsqueeze(1), noise.unsqueeze(1), strict=True)
    found = [torch.autograd.functional.jacobian(lambda x, z=z: moved(x, z), x) for x, z in pairs]
    return torch.stack(found).square().sum((1, 2, 3)).mean().item()


@pytest.mark.parametrize("name", AGENTS)
def test_the_penalty_is_added_by_its_weight(name: str) -> None:
    plain, smooth = make(name), make(name, jacobian_penalty=0.7)
    expected, metrics = plain.actor_loss(batch(0))
    found, with_penalty = smooth.actor_loss(batch(0))
    assert "actor/jacobian" not in metrics
    assert found.item() == pytest.approx(expected.item() + 0.7 * with_penalty["actor/jacobian"].item(), rel=1e-6)
    assert not with_penalty["actor/jacobian"].requires_grad


@pytest.mark.parametrize("name", AGENTS)
def test_the_penalty_lowers_the_jacobian_and_the_bound_keeps_below_it(name: str) -> None:
    """After 250 updates on a steep expert: the penalised one is much flatter, and imitates all the same."""
    steepness, errors = {}, {}
    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "penalty": {"jacobian_penalty": 0.05},
        "bound": {"lipschitz": 0.5},
    }
    for label in settings:
        agent = make(name, **settings[label])
        metrics = {}
        for seed in range(250):
            metrics = agent.update(batch(seed))
        steepness[label] = squared_norms(agent)
        key = "actor/flow_mse" if name == "bc_flow" else "actor/instantaneous_mse"
        errors[label] = metrics[key].item()
    assert steepness["penalty"] < 0.65 * steepness["plain"]
    assert steepness["bound"] <= 0.5**2 * min(OBSERVATION, 2 * ACTION) < steepness["plain"]
    assert errors["penalty"] < 1.5 * errors["plain"]


@pytest.mark.parametrize("name", AGENTS)
def test_a_bounded_agent_acts_within_its_bound(name: str) -> None:
    agent = make(name, lipschitz=0.5)
    for seed in range(20):
        agent.update(batch(seed))
    g = torch.Generator().manual_seed(1)
    first, second = (3 * torch.randn(2000, OBSERVATION, generator=g) for _ in range(2))
    noise = torch.randn(2000, 2, ACTION, generator=g)
    steps = agent.config.nfe[0]
    moved = (agent.act(first, noise, steps) - agent.act(second, noise, steps)).flatten(1).norm(dim=1)
    limit = 0.5 if steps == 1 else agent.actor.acting.flow.lipschitz(steps)
    assert (moved / (first - second).norm(dim=1)).max() <= limit * (1 + 1e-4)
    chunk = agent.as_exportable().eval()(first[:1], noise[:1])[0]
    torch.testing.assert_close(chunk, agent.act(first[:1], noise[:1], steps), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", AGENTS)
def test_smooth_agents_go_on_bit_for_bit(name: str) -> None:
    settings: dict[str, Any] = {"jacobian_penalty": 0.1, "lipschitz": 2.0}
    straight, stopped, fresh = make(name, **settings), make(name, **settings), make(name, seed=7, **settings)
    for seed in range(2):
        straight.update(batch(seed))
        stopped.update(batch(seed))
    fresh.load_state_dict(stopped.state_dict())
    for seed in range(2, 4):
        assert straight.update(batch(seed)) == fresh.update(batch(seed))
    mine, theirs = straight.state_dict().tensors, fresh.state_dict().tensors
    assert all(torch.equal(value, theirs[group][key]) for group in mine for key, value in mine[group].items())


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize(
    ("field", "value"), [("jacobian_penalty", -0.1), ("jacobian_penalty", math.nan), ("lipschitz", 0.0)]
)
def test_what_cannot_work_is_refused_by_name(name: str, field: str, value: float) -> None:
    with pytest.raises(OneStrideError, match=f"^{field}: expected"):
        make(name, **dict[str, Any]({field: value}))


@pytest.mark.parametrize("name", AGENTS)
def test_a_run_from_before_goes_on_as_it_was(name: str, tmp_path: Path) -> None:
    """Its config names neither setting: they are off, and the same request finds its run."""
    settings = catalogue.config_to_json(catalogue.find(name).config())
    older = {field: value for field, value in settings.items() if field not in ("jacobian_penalty", "lipschitz")}
    assert len(older) == len(settings) - 2
    config = catalogue.config_from_json(name, older)
    assert config == catalogue.find(name).config()

    def request(with_settings: dict[str, Any]) -> RunConfig:
        return RunConfig(name, with_settings, "id", "data", ("position",), OBSERVATION, ACTION, steps=5, seed=0)

    directory = RunDirectory(tmp_path)
    directory.claim(request(older))
    assert "lipschitz" not in json.loads((tmp_path / "config.json").read_text())["settings"]
    directory.claim(request(settings))
    assert directory.config().settings == settings
    with pytest.raises(OneStrideError, match=r"lipschitz: None there, 2\.0 asked for"):
        directory.claim(request(settings | {"lipschitz": 2.0}))

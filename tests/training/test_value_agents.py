"""Every agent of chunks: golden losses, state to the bit, acting and exporting, learning, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onestride.hardware.errors import OneStrideError
from onestride.training.agents import catalogue

from .value_batches import ACTION, AGENTS, IMITATION, OBSERVATION, VALUED, make, make_batch

GOLDEN: dict[str, dict[str, float]] = {
    "bc_flow": {
        "actor/flow_mse": 0.860683,
    },
    "mvp": {
        "critic/loss": 4.68946,
        "critic/value": 0.432343,
        "critic/target": -0.0232108,
        "actor/loss": 1.93556,
        "actor/mean_flow_mse": 1.49481,
        "actor/instantaneous_mse": 1.3776,
    },
    "qc": {
        "critic/loss": 1.71757,
        "critic/value": -0.328743,
        "critic/target": -0.215136,
        "actor/flow_mse": 1.36319,
    },
    "bfn": {
        "critic/loss": 2.82188,
        "critic/value": 0.365702,
        "critic/target": -0.188825,
        "actor/flow_mse": 1.44766,
    },
    "fql": {
        "critic/loss": 3.92804,
        "critic/value": -0.0963646,
        "critic/target": -0.679971,
        "actor/flow_mse": 1.40613,
        "actor/loss": 176.049,
        "actor/distillation": 0.585317,
        "actor/value": -0.453505,
    },
    "qc_fql": {
        "critic/loss": 2.5171,
        "critic/value": -0.0890712,
        "critic/target": -1.09462,
        "actor/flow_mse": 1.76963,
        "actor/loss": 146.799,
        "actor/distillation": 0.488559,
        "actor/value": -0.230836,
    },
    "fmq": {
        "critic/loss": 2.56104,
        "critic/value": -0.4557,
        "critic/target": -0.683178,
        "actor/mean_flow_mse": 1.74022,
        "actor/instantaneous_mse": 1.60805,
        "actor/loss": 0.533506,
        "actor/slope": 1.19437,
    },
}
"""Metrics of the third update on fixed batches; change them only with the algorithm."""


def parameters(agent: Any) -> dict[str, torch.Tensor]:
    tensors = agent.state_dict().tensors
    return {f"{group}.{name}": tensor.clone() for group in tensors for name, tensor in tensors[group].items()}


def train(agent: Any, seeds: range) -> dict[str, torch.Tensor]:
    metrics = {}
    for seed in seeds:
        metrics = agent.update(make_batch(agent.config.horizon, seed=seed))
    return metrics


@pytest.mark.parametrize("name", AGENTS)
def test_golden_losses(name: str) -> None:
    metrics = train(make(name), range(3))
    assert {key: value.item() for key, value in metrics.items()} == pytest.approx(GOLDEN[name], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", AGENTS)
def test_state_goes_on_bit_for_bit(name: str) -> None:
    straight, stopped, fresh = make(name), make(name), make(name, seed=7)
    train(straight, range(3))
    train(stopped, range(3))
    fresh.load_state_dict(stopped.state_dict())
    assert train(straight, range(3, 6)) == train(fresh, range(3, 6))
    mine, theirs = parameters(straight), parameters(fresh)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", AGENTS)
def test_a_state_is_json_and_tensors(name: str) -> None:
    state = make(name).state_dict()
    assert all(isinstance(value, int) for value in state.values.values())
    assert all(isinstance(t, torch.Tensor) for group in state.tensors.values() for t in group.values())


@pytest.mark.parametrize("name", AGENTS)
def test_metrics_say_whose_they_are_and_are_not_looked_at(name: str) -> None:
    metrics = train(make(name), range(1))
    rooms = {key.split("/")[0] for key in metrics}
    assert rooms == ({"actor"} if name in IMITATION else {"actor", "critic"})
    for value in metrics.values():
        assert value.shape == () and not value.requires_grad and value.isfinite()


@pytest.mark.parametrize("name", AGENTS)
def test_what_acts_is_what_is_exported(name: str) -> None:
    agent = make(name)
    train(agent, range(2))
    config, g = agent.config, torch.Generator().manual_seed(0)
    observation = torch.randn(5, OBSERVATION, generator=g)
    noise = torch.randn(5 * config.candidates, config.horizon, ACTION, generator=g)
    acted = agent.act(observation, noise, config.nfe[0])
    assert acted.shape == (5, config.horizon, ACTION)
    module = agent.as_exportable()
    for row in range(5):
        rows = noise[row * config.candidates : (row + 1) * config.candidates]
        outputs = module(observation[row : row + 1], rows)
        assert len(outputs) == len(config.nfe)
        torch.testing.assert_close(outputs[0], acted[row : row + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", AGENTS)
def test_beginning_from_another_takes_what_acts(name: str) -> None:
    source, mine = make(name, seed=1), make(name, seed=2)
    train(source, range(3))
    mine.begin_from(source.state_dict())
    config, g = mine.config, torch.Generator().manual_seed(0)
    noise = torch.randn(5 * config.candidates, config.horizon, ACTION, generator=g)
    observation = torch.randn(5, OBSERVATION, generator=g)
    assert torch.equal(*(agent.act(observation, noise, config.nfe[0]) for agent in (mine, source)))
    assert mine.state_dict().values["updates"] == 0


@pytest.mark.parametrize("name", AGENTS)
def test_it_says_what_it_needs(name: str) -> None:
    agent = make(name)
    assert agent.needs == (() if name in IMITATION else ("rewards",))
    batch = make_batch(agent.config.horizon)
    if name in IMITATION:
        batch = {key: batch[key] for key in ("observations", "actions", "valid")}
    agent.update(batch)


def bandit(generator: torch.Generator, rows: int, horizon: int = 1) -> dict[str, torch.Tensor]:
    """One chunk, then the end: actions all over the box, and the reward of each is -|a - (0.5, -0.5) sign(s)|²."""
    observations = torch.randn(rows, 1, OBSERVATION, generator=generator)
    actions = torch.rand(rows, horizon, ACTION, generator=generator) * 2 - 1
    zero, one = torch.zeros(rows, horizon), torch.ones(rows, horizon)
    return {
        "observations": observations,
        "actions": actions,
        "rewards": -(actions - goal(observations)).square().sum(2),
        "masks": zero,
        "terminals": torch.cat([zero[:, 1:], one[:, :1]], dim=1),
        "next_observations": observations,
        "valid": one,
    }


def goal(observations: torch.Tensor) -> torch.Tensor:
    """The action (B, 1, 2) to take at observations (B, 1, Do)."""
    return torch.tensor([0.5, -0.5]) * observations[..., :1].sign()


LEARNING: dict[str, dict[str, Any]] = {
    "mvp": {},
    "qc": {},
    "bfn": {},
    "fql": {"alpha": 1.0},
    "qc_fql": {"alpha": 1.0, "horizon": 2, "n_action_steps": 2},
    "fmq": {"eta": 0.7},
}


@pytest.mark.parametrize("name", LEARNING)
def test_it_beats_what_it_is_shown(name: str) -> None:
    """Random actions earn -7/6 on average (variance 1/3 and 0.25 off, twice); the critic must lead away from them.

    The best of four such actions would earn -0.33, as an ideal critic picks it.
    """
    sizes = {"horizon": 1, "n_action_steps": 1, "hidden": (64, 64), "critic_hidden": (64, 64)}
    rates = {"ema_decay": 0.95, "lr": 2e-3, "critic_lr": 2e-3}
    settings: dict[str, Any] = {**sizes, **rates, **LEARNING[name]}
    agent = make(name, steps=400, **settings)
    g = torch.Generator().manual_seed(0)
    for _ in range(400):
        agent.update(bandit(g, 256, agent.config.horizon))
    observation = torch.randn(500, OBSERVATION, generator=g)
    noise = torch.randn(500 * agent.config.candidates, agent.config.horizon, ACTION, generator=g)
    shown = bandit(g, 5000)
    acted = agent.act(observation, noise, agent.config.nfe[0])
    earned = -(acted - goal(observation.unsqueeze(1))).square().sum(2).mean()
    assert shown["rewards"].mean().item() == pytest.approx(-7 / 6, abs=0.05)
    assert earned > -0.55


@pytest.mark.parametrize(("name", "settings"), [("bc_flow", {"nfe": (10,)}), ("mvp", {"candidates": 1})])
def test_it_imitates_two_ways_of_doing_it(name: str, settings: dict[str, Any]) -> None:
    """Chunks go to the goal or to its opposite, half of them each: regression would learn to stay between, at 0."""
    agent = make(name, steps=300, hidden=(64, 64), ema_decay=0.95, lr=5e-3, **settings)
    g = torch.Generator().manual_seed(0)

    def shown(rows: int) -> dict[str, torch.Tensor]:
        observations = torch.randn(rows, 1, OBSERVATION, generator=g)
        way = torch.randint(0, 2, (rows, 1, 1), generator=g) * 2 - 1
        spread = 0.1 * torch.randn(rows, 2, ACTION, generator=g)
        return {
            "observations": observations,
            "actions": way * goal(observations) + spread,
            "valid": torch.ones(rows, 2),
        }

    def tried() -> tuple[float, float]:
        """Share of chunks that end within 0.5 of a way, where 0 is not; of those the share to the goal."""
        batch, noise = shown(500), torch.randn(500, 2, ACTION, generator=g)
        acted = agent.act(batch["observations"].flatten(1), noise, agent.config.nfe[0])
        near = [((acted - way * goal(batch["observations"])).norm(dim=2) < 0.5).all(1) for way in (1, -1)]
        first, second = (one.float().mean().item() for one in near)
        return first + second, first / max(first + second, 1e-9)

    before = tried()[0]
    for _ in range(300):
        agent.update(shown(256))
    success, to_the_goal = tried()
    assert before < 0.1
    assert success > 0.8
    assert 0.35 < to_the_goal < 0.65


@pytest.mark.parametrize("name", VALUED)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon", 0),
        ("n_action_steps", 99),
        ("nfe", ()),
        ("hidden", (0,)),
        ("critic_hidden", ()),
        ("critics", 0),
        ("critic_lr", 0.0),
        ("discount", 1.0),
        ("tau", 0.0),
        ("candidates", 0),
        ("normalise", "whiten"),
        ("rank_dtype", "float16"),
        ("lr_decay", "linear"),
        ("ema_decay", 1.0),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(name: str, field: str, value: Any) -> None:
    with pytest.raises(OneStrideError, match=f"^{field}: expected"):
        catalogue.find(name).config(**{field: value})


@pytest.mark.parametrize(
    ("name", "settings", "field"),
    [
        ("bc_flow", {"candidates": 2}, "candidates"),
        ("mvp", {"imitate": "best_of_n"}, "imitate"),
        ("mvp", {"imitate": "all", "candidates": 4}, "imitate"),
        ("fql", {"alpha": -1.0}, "alpha"),
        ("fql", {"flow_steps": 0}, "flow_steps"),
        ("fql", {"nfe": (1, 2)}, "nfe"),
        ("fmq", {"eta": -1.0}, "eta"),
        ("fmq", {"nfe": (2,)}, "nfe"),
    ],
)
def test_an_agents_own_settings_are_refused_by_name(name: str, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(OneStrideError, match=f"^{field}: expected"):
        catalogue.find(name).config(**settings)

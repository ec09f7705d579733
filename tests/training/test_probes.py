"""Multipliers at fixed states: the same after a resume, harmless to training, and their swing by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from line_environment import NAME
from online_samples import Notes, tensors

from onestride.policies.normaliser import Affine
from onestride.training import trainer
from onestride.training.agents import catalogue
from onestride.training.agents.multiplier import Constrained
from onestride.training.agents.sac_alam import SACALaMConfig
from onestride.training.checkpoint import load_run
from onestride.training.commands_suite import load
from onestride.training.probes import COUNT, Multipliers, Probes, read_multipliers
from onestride.training.replay import Replay
from onestride.training.report import group_runs
from onestride.training.report_page import build_page
from onestride.training.suites.page import write_page
from onestride.training.suites.results import entry
from onestride.training.trainer import TrainOptions, train
from onestride.training.transitions import TransitionFile, layout

CONFIG = SACALaMConfig(hidden=(16,), batch_size=8, history=2)


def options_of(run: Path) -> TrainOptions:
    return TrainOptions(
        CONFIG, None, run, env=NAME, online_steps=80, startup_steps=20, device="cpu", log_every=5,
        checkpoint_every=40, evaluate_every=40, episodes=1, evaluators=0,
    )  # fmt: skip


def agent_of(name: str) -> Any:
    found: Any = catalogue.find(name)
    config = found.config(hidden=(16,), batch_size=8)
    return found.agent(config, Affine.identity(3), Affine.identity(2), steps=1, seed=0)


def replay_of(steps: int) -> Replay:
    replay = Replay(None, observation_dim=3, action_dim=2, horizon=1, room=steps)
    records = np.zeros(steps, layout(3, 2))
    records["observation"] = np.random.default_rng(steps).normal(size=(steps, 3))
    records["begins"][0] = True
    replay.extend(records)
    return replay


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probes") / "run"
    train(options_of(path))
    return path


def test_lines_begin_with_learning_and_are_what_the_agent_says(run: Path) -> None:
    found = read_multipliers(run / "multipliers.csv")
    assert found is not None and found.values.shape[1] == COUNT
    assert found.steps.tolist() == list(range(25, 85, 5))
    agent = load_run(run).agent
    observations = tensors(run)["probes/observations"]
    assert observations.shape == (COUNT, 2 * 3)
    np.testing.assert_allclose(found.values[-1], agent.multipliers(observations).numpy(), rtol=1e-5)  # type: ignore[attr-defined]


def test_the_states_are_of_the_first_replay(run: Path) -> None:
    """Those lived through before learning began, and no later ones."""
    lived = TransitionFile(run / "online.transitions", 3, 2).open(80)["observation"][:20]
    newest = tensors(run)["probes/observations"][:, 3:].numpy()
    assert all((one == lived).all(axis=1).any() for one in newest)
    assert len(np.unique(newest, axis=0)) > COUNT // 3


@pytest.mark.parametrize("at", [15, 65])
def test_the_same_states_after_a_resume(run: Path, tmp_path: Path, at: int) -> None:
    """Interrupted before the draw, and after it."""
    options = options_of(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(options, Notes(interrupt_at=at))
    train(options)
    assert (options.run / "multipliers.csv").read_bytes() == (run / "multipliers.csv").read_bytes()
    assert torch.equal(tensors(options.run)["probes/observations"], tensors(run)["probes/observations"])


def test_training_goes_the_same_way_without(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer._Session, "_open_probes", lambda _: None)
    train(options_of(tmp_path / "run"))
    with_probes, without = tensors(run), tensors(tmp_path / "run")
    assert set(with_probes) - set(without) == {"probes/observations"}
    assert all(torch.equal(value, with_probes[name]) for name, value in without.items())


@pytest.mark.parametrize("name", ["sac_lag", "fac", "sac_alam"])
def test_every_agent_with_multipliers_is_watched(name: str, tmp_path: Path) -> None:
    agent, replay = agent_of(name), replay_of(30)
    assert isinstance(agent, Constrained)
    probes = Probes(agent, tmp_path / "table.csv", 0, seed=3, device=torch.device("cpu"), kept={})
    probes.write(1)
    assert probes.tensors() == {}
    probes.draw(replay)
    probes.write(2)
    drawn = probes.tensors()["observations"]
    later = Probes(agent, tmp_path / "other.csv", 0, seed=4, device=torch.device("cpu"), kept=probes.tensors())
    later.draw(replay_of(20))
    assert torch.equal(later.tensors()["observations"], drawn)
    found = read_multipliers(tmp_path / "table.csv")
    assert found is not None and found.steps.tolist() == [2]
    np.testing.assert_allclose(found.values[0], agent.multipliers(drawn).numpy(), rtol=1e-5)


def test_an_agent_without_is_not() -> None:
    assert not isinstance(agent_of("sac"), Constrained)


def test_report_and_results_tell_of_them(run: Path, tmp_path: Path) -> None:
    found = read_multipliers(run / "multipliers.csv")
    assert found is not None
    page = build_page(group_runs([run]))
    assert "<h2>Multipliers</h2>" in page and f"{found.oscillation:.3g}" in page
    told = {"environment_steps": 80, "steps": 80, "dataset_id": "", "train_s": 1.0}
    cell = load("safe-velocity").cells("cpu", only=("sac_alam",), seeds=(0,))[0]
    result = entry(cell, "cpu", told, run, {})
    kept = result["multipliers"]
    assert kept["oscillation"] == pytest.approx(found.oscillation, abs=1e-5)
    assert kept["steps"] == found.steps.tolist() and kept["probes"] == COUNT
    np.testing.assert_allclose(kept["mean"], found.values.mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(kept["high"], found.values.max(axis=1), atol=1e-4)
    table, picture = write_page(load("safe-velocity"), "cpu", [cell], [result], tmp_path)
    line = f"| HalfCheetahVelocity | sac_alam | 0 | {found.oscillation:.4f} | "
    assert line in table.read_text() and picture.read_bytes().startswith(b"\x89PNG")
    without = {name: value for name, value in result.items() if name != "multipliers"}
    (table, _) = write_page(load("safe-velocity"), "cpu", [cell], [without], tmp_path)
    assert "oscillation" not in table.read_text()


# The swing


def swing(values: list[list[float]], steps: list[float] | None = None) -> float:
    lines = np.arange(1, len(values) + 1, dtype=float) if steps is None else np.array(steps)
    return Multipliers(lines, np.array(values)).oscillation


def test_the_swing_by_hand() -> None:
    """Lines 3 and 4 of 4: from 0 to e - 1 at one state is 1, none at the other."""
    assert swing([[5, 5], [9, 9], [0, 2], [math.e - 1, 2]]) == pytest.approx(0.5)
    assert math.isnan(swing([[1.0], [2.0]])) and math.isnan(swing([[1.0]]))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=5), st.integers(4, 9))
def test_what_rests_does_not_swing(multipliers: list[float], lines: int) -> None:
    assert swing([multipliers] * lines) == 0


@given(st.floats(1e-3, 10), st.integers(3, 20))
def test_an_alternation_swings_by_its_size(size: float, half: int) -> None:
    values = [[math.expm1(size * (line % 2))] for line in range(2 * half)]
    assert swing(values) == pytest.approx(size)
    assert swing(values, [10.0 * line for line in range(2 * half)]) == pytest.approx(size)

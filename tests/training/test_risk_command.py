"""`onestride risk-map`: a run's own plane, asked for or chosen, and refusals that say what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_environment import NAME

from onestride.deploy.cli import main
from onestride.hardware.errors import OneStrideError
from onestride.training.agents.sac import SACConfig
from onestride.training.agents.sac_alam import SACALaMConfig
from onestride.training.checkpoint import load_run
from onestride.training.risk_slices import Elements, elements, most_telling
from onestride.training.trainer import TrainOptions, train
from onestride.training.transitions import TransitionFile


def options_of(run: Path, config: SACConfig | SACALaMConfig) -> TrainOptions:
    return TrainOptions(
        config, None, run, env=NAME, online_steps=60, startup_steps=40, device="cpu", log_every=20, evaluators=0,
        checkpoint_every=60, evaluate_every=60, episodes=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("risk") / "run"
    train(options_of(path, SACALaMConfig(hidden=(16,), batch_size=8, history=2)))
    return path


def told(capsys: pytest.CaptureFixture[str], *command: object) -> dict[str, Any]:
    assert main(["risk-map", *map(str, command), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_plane_asked_for(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By name or number, over what was lived through; the figures are the agent's own."""
    picture = tmp_path / "deep" / "risk.png"
    found = told(capsys, run, "--x", "observation/1", "--y", 0, "--y-range", -2, 2, "--points", 11, "-o", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (found["x"], found["y"], found["step"], found["y_range"]) == ("observation/1", "observation/0", 60, [-2, 2])
    lived = TransitionFile(run / "online.transitions", 3, 2).newest(100)["observation"]
    low, held, high = np.quantile(lived, (0.01, 0.5, 0.99), axis=0)
    assert found["x_range"] == pytest.approx([low[1], high[1]], rel=1e-5)
    agent: Any = load_run(run).agent
    across, up = np.meshgrid(np.linspace(low[1], high[1], 11), np.linspace(-2, 2, 11))
    newest = np.stack([up.ravel(), across.ravel(), np.full(121, held[2])], axis=1)
    grid = torch.from_numpy(np.concatenate([np.tile(held, (121, 1)), newest], axis=1).astype(np.float32))
    multipliers, excess = agent.multipliers(grid), agent.excess(grid)
    assert found["largest_multiplier"] == pytest.approx(multipliers.max().item(), rel=1e-4)
    assert found["over_limit"] == pytest.approx((excess > 0).float().mean().item(), abs=0.02)


def test_the_plane_chosen_is_the_most_telling(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_run(run)
    agent: Any = loaded.agent
    order = most_telling(agent, elements(loaded))
    assert sorted(order) == [0, 1, 2]
    found = told(capsys, run, "-o", tmp_path / "risk.png", "--points", 5)
    assert [found["x"], found["y"]] == [f"observation/{index}" for index in order[:2]]
    found = told(capsys, run, "-o", tmp_path / "risk.png", "--points", 5, "--x", order[0])
    assert [found["x"], found["y"]] == [f"observation/{index}" for index in order[:2]]


def test_without_a_life_of_its_own_the_contracts_range_counts(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in (run / "config.json", run / "contract.json"):
        (bare / path.name).write_bytes(path.read_bytes())
    (bare / "checkpoints").symlink_to(run / "checkpoints")
    found, contract = elements(load_run(bare)), json.loads((run / "contract.json").read_text())
    np.testing.assert_allclose(found.low, contract["dataset"]["minimum"], rtol=1e-5)
    np.testing.assert_allclose(found.held, (found.low + found.high) / 2, rtol=1e-5, atol=1e-6)


def test_an_agent_without_a_constraint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(options_of(tmp_path / "run", SACConfig(hidden=(16,), batch_size=8)))
    assert main(["risk-map", str(tmp_path / "run")]) != 0
    told = " ".join(capsys.readouterr().err.split())
    assert "expected an agent with a constraint, got sac, available: " in told
    assert all(name in told for name in ("sac_lag", "fac", "sac_alam"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("--x", "speed"), "expected an element of the observation, got 'speed', available: 0 observation/0"),
        (("--x", "3"), "expected an element of the observation, got '3'"),
        (("--x", "0", "--y", "observation/0"), "axes: expected two of the elements"),
        (("--points", "1"), "expected low < high on 2 or more points"),
        (("--x-range", "1", "0"), "expected low < high on 2 or more points"),
        (("-o", "/proc/risk.png"), "/proc/risk.png: expected to write it"),
    ],
)
def test_refusals(run: Path, command: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["risk-map", str(run), *command]) != 0
    assert message in " ".join(capsys.readouterr().err.split())


def test_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["risk-map", str(tmp_path)]) != 0
    assert "expected a run directory" in " ".join(capsys.readouterr().err.split())


def test_labels_have_units() -> None:
    zeros = np.zeros(2, np.float32)
    found = Elements(("height", "pitch"), ("m", ""), zeros, zeros, zeros, 1)
    assert (found.label(0), found.label(1)) == ("height [m]", "pitch")
    with pytest.raises(OneStrideError, match="0 height, 1 pitch"):
        found.index("²")

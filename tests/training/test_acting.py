"""One policy by three ways: evaluated while it trains, from its run directory, and from its exported file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_environment import NAME
from line_samples import line_store
from online_samples import small_options

from onestride.deploy.cli import main
from onestride.deploy.runtime import PolicyRuntime
from onestride.policies.selection import BestOfN
from onestride.training.acting import policy_of
from onestride.training.checkpoint import load_run
from onestride.training.evaluation import noise_seed
from onestride.training.evaluations import StopRule, read_evaluations
from onestride.training.trainer import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("acting")
    store = line_store(folder / "line.zarr")
    train(replace(small_options(store.path, folder / "run"), online_steps=0, episodes=4))
    return folder / "run"


@pytest.fixture(scope="module")
def file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "policy.onnx"
    assert main(["export", str(run), "-o", str(path)]) == 0
    return path


def evaluated(policy: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["eval", str(policy), "--env", NAME, "--episodes", "4", "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_three_ways_find_the_same(run: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, checkpoint, exported = (
        read_evaluations(run / "evaluations.csv")[-1],
        evaluated(run, capsys),
        evaluated(file, capsys),
    )
    assert checkpoint["mean_reward"] == row["return"] and checkpoint["success_rate"] == row["success"]
    assert checkpoint["mean_cost"] == row["cost"] and checkpoint["mean_steps"] == row["length"]
    assert exported["mean_reward"] == pytest.approx(row["return"], rel=1e-4)
    assert exported["success_rate"] == row["success"]


def test_a_run_acts_like_its_file(run: Path, file: Path) -> None:
    mine, theirs = policy_of(load_run(run), nfe=2), PolicyRuntime(file, nfe=2)
    random = np.random.default_rng(0)
    for policy in (mine, theirs):
        policy.reset(7)
    for _ in range(5):
        seen = random.standard_normal(6)
        np.testing.assert_allclose(mine.infer(seen), theirs.infer(seen), atol=1e-5)


def test_one_candidate_is_what_the_policy_draws_unranked(run: Path) -> None:
    loaded = load_run(run)
    single, many = policy_of(loaded, candidates=1), policy_of(loaded, candidates=64)
    assert [policy.contract.policy.candidates for policy in (single, many)] == [1, 64]
    ranked: BestOfN = loaded.agent.critic.ranked  # type: ignore[attr-defined]
    seen = np.linspace(-1, 1, 6, dtype=np.float32).astype(np.float64)
    noise = np.random.default_rng(0).standard_normal((1, *single.contract.noise_shape[1:]), dtype=np.float32)
    with torch.inference_mode():
        observation = torch.from_numpy(seen[None]).float()
        drawn = ranked.policy.act(observation, torch.from_numpy(noise))[0]
        s = ranked.policy.condition(observation)
        np.testing.assert_array_equal(single.infer(seen), drawn.numpy())
        chunks = [ranked.policy.action(torch.from_numpy(policy.infer(seen))) for policy in (single, many)]
        one, best = (float(ranked.critic(s, chunk.flatten()[None, None]).mean()) for chunk in chunks)
    assert one < best


def test_candidates_are_refused_where_nothing_ranks_them(
    run: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(file), "--env", NAME, "--candidates", "1"]) == 1
    assert "--candidates: expected a training run" in capsys.readouterr().err
    assert main(["eval", str(run), "--env", NAME, "--candidates", "0"]) == 1
    assert "candidates: expected >= 1, got 0" in capsys.readouterr().err


def test_an_nfe_that_is_not_offered_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), "--env", NAME, "--nfe", "3"]) == 1
    assert "unknown NFE of the run: got 3, available: 1, 2, 4" in capsys.readouterr().err


def test_the_noise_tells_nothing_of_the_start() -> None:
    """The environment draws the start from the seed itself, and numpy's normal numbers are made of the same bits."""
    generator = np.random.default_rng
    starts = [generator(seed).uniform() for seed in range(2000)]

    def correlation(noise_of: Callable[[int], int]) -> float:
        sizes = [abs(generator(noise_of(seed)).standard_normal(2, np.float32)[1]) for seed in range(2000)]
        return abs(float(np.corrcoef(starts, sizes)[0, 1]))

    assert correlation(noise_seed) < 0.1 < 0.5 < correlation(int)


def test_when_to_stop() -> None:
    rows = [{"step": float(s), "success": r, "return": 0.0} for s, r in ((1, 0.2), (2, 0.6), (3, 0.6), (4, 0.5))]
    assert StopRule().verdict(rows) is None and StopRule(0.5, 1).verdict([]) is None
    assert StopRule(success=0.6).verdict(rows[:1]) is None
    assert StopRule(success=0.6).verdict(rows[:2]) == "success 0.60 reached 0.6 at step 2"
    assert StopRule(patience=2).verdict(rows[:3]) is None
    assert StopRule(patience=2).verdict(rows) == "no better evaluation since step 2, 2 ago"
    better = [*rows[:3], {"step": 4.0, "success": 0.6, "return": 1.0}]
    assert StopRule(patience=2).verdict(better) is None

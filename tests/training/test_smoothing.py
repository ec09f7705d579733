"""Policy smoothing: the bounds by hand, where they are attained, and real attacks that stay above them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_environment import NAME, Line
from scipy.stats import binom

from onestride.deploy.cli import main
from onestride.deploy.contract import Contract
from onestride.hardware.errors import OneStrideError
from onestride.training.agents.sac import SACConfig
from onestride.training.attacks import ConstantShift, SteepestShift
from onestride.training.contracts import Lived, draft_online
from onestride.training.environments.interface import Array, Step
from onestride.training.evaluation import Trial, evaluate
from onestride.training.smoothing import Adversary, ReturnBounds, Smoothed, half_ranges, shifted, success_bound
from onestride.training.trainer import TrainOptions, train

LOW, HIGH = np.array([-2.0, -0.5, 0.0]), np.array([2.0, 0.5, 1.0])


def line_contract() -> Contract:
    lived = Lived(LOW.astype(np.float32), HIGH.astype(np.float32), 10, 100, 2, 10.0)
    asked = {"nfe": (1,), "horizon": 1, "n_action_steps": 1, "config": {}, "seed": 0, "step": 0}
    return draft_online(NAME, lived, algorithm="sac", **asked)


class Towards:
    """Goes for the origin as it sees it."""

    contract = line_contract()

    def reset(self, seed: int) -> None:
        pass

    def infer(self, observation: Array) -> np.ndarray:
        place, speed, _ = observation
        return np.array([[np.clip(-4 * place - 6 * speed, -1, 1), 0.0]], np.float32)


class FirstOnly:
    """Spends all at once, on the element that the policy goes by."""

    def __init__(self, budget: float) -> None:
        self._budget, self._spent = budget, False

    def reset(self, seed: int) -> None:
        del seed
        self._spent = False

    def shift(self, observation: Array) -> Array:
        size, self._spent = (0.0 if self._spent else self._budget), True
        return np.array([size * np.sign(observation[0]), 0.0, 0.0])


class Greedy(FirstOnly):
    """Asks for ten times what it has, at every step: the environment must keep it to its budget."""

    def shift(self, observation: Array) -> Array:
        return np.array([-10 * self._budget * np.sign(observation[0]), 0.0, 0.0])


def test_the_shift_by_hand() -> None:
    """Φ⁻¹(0.8413) = 1: a budget of one σ brings it to one half, of two to 0.1587."""
    one = 0.8413447460685429
    assert shifted(one, 0.0, 0.3) == pytest.approx(one)
    assert shifted(one, 0.3, 0.3) == pytest.approx(0.5)
    assert shifted(one, 0.6, 0.3) == pytest.approx(1 - one)
    assert (shifted(0.0, 1.0, 1.0), shifted(1.0, 1.0, 1.0)) == (0.0, 1.0)


def test_the_success_bound_is_clopper_and_pearsons() -> None:
    """At the bound, as many successes or more are as unlikely as was asked for."""
    for successes, episodes in ((1, 10), (90, 100), (200, 200)):
        bound = success_bound(successes, episodes, 0.95)
        assert binom.sf(successes - 1, episodes, bound) == pytest.approx(0.05, rel=1e-6)
    assert success_bound(0, 10, 0.95) == 0.0
    assert success_bound(200, 200, 0.95) == pytest.approx(0.05 ** (1 / 200))


def test_the_return_bounds_by_hand() -> None:
    """Four returns; a confidence of 1 - exp(-2) makes the margin 1/2: reached are 1/2, 1/4, 0, 0."""
    bounds = ReturnBounds([3.0, 1.0, 4.0, 2.0], 1 - math.exp(-2))
    assert bounds.median(0.0, 1.0) == 1.0
    assert bounds.median(0.01, 1.0) is None
    # From 0 to 1 the probability 1/2, from 1 to 2 1/4, then 0.
    assert bounds.mean(0.0, 1.0, 0.0) == pytest.approx(0.75)
    expected = shifted(0.5, 0.3, 1.0) + shifted(0.25, 0.3, 1.0)
    assert bounds.mean(0.3, 1.0, 0.0) == pytest.approx(expected)
    assert bounds.mean(0.3, 1.0, -2.0) == pytest.approx(-2 + 2 * shifted(0.5, 0.3, 1.0) + expected)
    with pytest.raises(OneStrideError, match=r"expected returns of at least 1.5, got 1"):
        bounds.mean(0.0, 1.0, 1.5)


@settings(max_examples=50, deadline=None)
@given(returns=st.lists(st.floats(-100, 100), min_size=3, max_size=60), budget=st.floats(0, 3))
def test_bounds_only_fall_with_the_budget_and_stay_below_what_was_seen(returns: list[float], budget: float) -> None:
    bounds = ReturnBounds(returns, 0.9)
    mean = bounds.mean(budget, 1.0, -100.0)
    assert -100.0 - 1e-9 <= mean <= bounds.mean(budget / 2, 1.0, -100.0) + 1e-9 <= np.mean(returns) + 2e-9
    certain = bounds.median(budget, 1.0)
    assert certain is None or certain <= np.quantile(returns, 0.5, method="higher")


def test_confidence_is_kept() -> None:
    """Means of 300 samples of 40 uniform returns: the certified mean lies above the true one in at most 10 %."""
    rng = np.random.default_rng(0)
    found = [ReturnBounds(rng.uniform(0, 1, 40).tolist(), 0.9).mean(0.0, 1.0, 0.0) for _ in range(300)]
    assert np.mean(np.array(found) > 0.5) <= 0.1
    assert np.mean(found) > 0.25, "expected a bound that means something"


class Threshold:
    """One step, solved if the action is positive: where the certificate is exact."""

    name, source, horizon, observation_dim, action_dim, policy_rate, interface = NAME, "tests", 1, 3, 2, 10.0, None

    def reset(self, seed: int) -> Array:
        del seed
        return np.array([0.25, 0.0, 0.0])

    def step(self, action: Array) -> Step:
        solved = bool(action[0] > 0)
        return Step(np.zeros(3), reward=float(solved), terminal=True, cut=False, success=solved)

    def close(self) -> None:
        pass


class Sign(Towards):
    def infer(self, observation: Array) -> np.ndarray:
        return np.array([[np.sign(observation[0]), 0.0]], np.float32)


class Down(FirstOnly):
    def shift(self, observation: Array) -> Array:
        return -super().shift(observation)


def test_the_bound_is_attained_where_the_policy_is_a_threshold() -> None:
    """P(0.25 + σ n > 0) = Φ(0.5) without attack, and Φ(0.5 - ε / σ) with the best one, which is this one."""
    sigma, budget, count = 0.5, 0.3, 20_000
    clean = evaluate(Sign(), Smoothed(Threshold(), sigma, np.ones(3)), range(count))
    attacked = evaluate(Sign(), Smoothed(Threshold(), sigma, np.ones(3), Down(budget), budget), range(count))
    share, left = (np.mean([trial.success for trial in trials]) for trials in (clean, attacked))
    assert share == pytest.approx(0.6915, abs=0.01)
    assert left == pytest.approx(shifted(0.6915, budget, sigma), abs=0.01)


ADVERSARIES = ("first", "greedy", "constant", "steepest")


def adversary(name: str, budget: float, units: Array) -> Adversary:
    if name == "steepest":
        return SteepestShift(Towards(), budget, units, Line.horizon)
    if name == "constant":
        return ConstantShift(budget, 3, Line.horizon)
    return FirstOnly(budget) if name == "first" else Greedy(budget)


@pytest.fixture(scope="module")
def clean() -> list[Trial]:
    return evaluate(Towards(), Smoothed(Line(), 0.1, half_ranges(LOW.tolist(), HIGH.tolist())), range(1500))


@pytest.mark.parametrize("name", ADVERSARIES)
@pytest.mark.parametrize("budget", [0.05, 0.15])
def test_no_attack_gets_below_the_bound(clean: list[Trial], name: str, budget: float) -> None:
    """Success and mean return of 500 attacked episodes, within three standard errors of what is certified or above."""
    units = half_ranges(LOW.tolist(), HIGH.tolist())
    smoothed = Smoothed(Line(), 0.1, units, adversary(name, budget, units), budget)
    attacked = evaluate(Towards(), smoothed, range(5000, 5500))
    success, returns = np.array([t.success for t in attacked]), np.array([t.reward for t in attacked])
    certain = shifted(success_bound(sum(t.success for t in clean), len(clean), 0.95), budget, 0.1)
    assert certain > 0.2, "expected a bound that means something"
    assert success.mean() + 3 * success.std() / 500**0.5 >= certain
    lowest = -12 * 4.0  # 12 steps, none farther than 4 from the origin
    mean = ReturnBounds([t.reward for t in clean], 0.95).mean(budget, 0.1, lowest)
    assert returns.mean() + 3 * returns.std() / 500**0.5 >= mean


def test_an_attack_does_harm(clean: list[Trial]) -> None:
    """Otherwise staying above the bound would say nothing."""
    units = half_ranges(LOW.tolist(), HIGH.tolist())
    attacked = evaluate(Towards(), Smoothed(Line(), 0.1, units, Greedy(0.6), 0.6), range(5000, 5500))
    assert np.mean([t.reward for t in attacked]) < np.mean([t.reward for t in clean]) - 0.2


@pytest.mark.parametrize("name", ADVERSARIES)
def test_the_budget_is_kept(name: str) -> None:
    """Σ ‖δ‖² <= ε², for whoever attacks: what was seen less the same episode without an attack."""
    units = half_ranges(LOW.tolist(), HIGH.tolist())
    seen: list[list[Array]] = []
    for attacker in (None, adversary(name, 0.2, units)):
        environment = Smoothed(Line(), 0.1, units, attacker, 0.2)
        steps = [environment.reset(3)]
        steps += [environment.step(np.zeros(2)).observation for _ in range(Line.horizon)]
        seen.append(steps)
    shifts = (np.array(seen[1]) - np.array(seen[0])) / units
    assert 0 < np.linalg.norm(shifts) <= 0.2 * (1 + 1e-9)


def test_noise_follows_the_seed_and_has_its_size() -> None:
    units = np.array([1.0, 2.0, 3.0])
    smoothed = Smoothed(Line(), 0.1, units)
    first = smoothed.reset(5)
    assert np.array_equal(smoothed.reset(5), first)
    noise = np.array([smoothed.reset(seed) - Line().reset(seed) for seed in range(2000)])
    np.testing.assert_allclose(noise.std(0), 0.1 * units, rtol=0.06)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.02)
    assert half_ranges([0.0, 1.0], [4.0, 1.0]).tolist() == [2.0, 1.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short online run on the line."""
    path = tmp_path_factory.mktemp("smooth") / "run"
    config = SACConfig(hidden=(16,), batch_size=16)
    train(
        TrainOptions(config, None, path, steps=0, env=NAME, online_steps=60, startup_steps=30, episodes=2, evaluators=0)
    )
    return path


def test_the_command_prints_a_table_and_draws(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["smooth", str(run), "--episodes", "30", "--sigma", "0.2", "--attack-radius", "0.1"]
    picture = tmp_path / "smooth.png"
    assert main([*words, "--lowest-return", "-50", "-o", str(picture), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["budget"] for row in said["bounds"]] == pytest.approx([0, 0.05, 0.1, 0.2, 0.3, 0.4])
    assert [("attacked" in row) for row in said["bounds"]] == [False, False, True, False, False, False]
    whole = said["bounds"][0]
    assert whole["success"] < said["success_rate"] or said["success_rate"] == 0
    assert -50 < whole["mean_return"] < said["mean_return"] < 0
    assert picture.stat().st_size > 5000
    assert main([*words, "--attack", "constant"]) == 0
    assert "median return" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sigma", "0"], "--sigma: expected > 0, got 0"),
        (["--confidence", "1"], "--confidence: expected in [0.5, 1), got 1"),
        (["--budgets", "-1"], "--budgets and --attack-radius: expected >= 0, got (-1.0,)"),
        (["--episodes", "5", "--lowest-return", "0"], "expected returns of at least 0, got -"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["smooth", str(run), *words]) == 1
    assert sentence in " ".join(capsys.readouterr().err.split())

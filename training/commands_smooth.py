"""``onestride smooth``: a policy under observation noise, and what that certifies against attacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from onestride.training.commands import Eval, progress_bar, say

if TYPE_CHECKING:
    from onestride.training.environments.interface import Array, Environment
    from onestride.training.evaluation import Policy, Trial

Row = dict[str, Any]

MULTIPLES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""Of σ: the budgets of the table, unless others are asked for."""


@dataclass
class Smooth(Eval):
    """Evaluate a policy with Gaussian noise on its observations, and certify its return against attacks on them.

    With noise of deviation σ, whoever shifts the observations of an episode by ε in all (l2 over steps and elements)
    lowers the probability p of any outcome to no less than Φ(Φ⁻¹(p) - ε/σ). See docs/robustness.md.
    """

    episodes: int = 200
    """Episodes, one per seed; few episodes make weak certificates."""
    sigma: float = 0.1
    """Deviation σ of the noise, in --units."""
    units: Literal["range", "raw"] = "range"
    """Of σ and ε: half of each element's range in the training data, or each element's own unit."""
    budgets: tuple[float, ...] = ()
    """Budgets ε of the table; default 0 to 2 σ."""
    confidence: float = 0.95
    """With which each column holds, for all its budgets at once."""
    lowest_return: float | None = None
    """A return that no episode can fall below; needed to certify the mean return."""
    attack: Literal["steepest", "constant"] = "steepest"
    """How --attack-radius attacks: where the action moves most (knows the policy), or one direction all the time."""
    attack_radius: tuple[float, ...] = ()
    """Budgets ε at which the policy is really attacked, on other episodes."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """PNG of the certificate to write."""

    def __call__(self) -> int:
        """Evaluate, certify, attack, and print the table."""
        self._refuse()
        policy = self._policy()
        environment, name = self._environment(policy.contract)
        try:
            trials, rows = self._judged(policy, environment)
        finally:
            environment.close()
        summary = {
            "sigma": self.sigma,
            "units": self.units,
            "confidence": self.confidence,
            **_averages(trials),
            "episodes": len(trials),
            "nfe": policy.nfe,
            "env": name,
        }
        if self.output:
            plot(rows, self.output, f"σ = {self.sigma:g}, {self.confidence:.0%} confidence, {len(trials)} episodes")
        if self.json:
            say(summary | {"bounds": rows}, "smoothed", json=True)
        else:
            say(summary, "smoothed", json=False)
            _print(rows)
        return 0

    def _refuse(self) -> None:
        from onestride.hardware.errors import OneStrideError

        budgets = (*self.budgets, *self.attack_radius)
        for flag, value, holds, expected in (
            ("--sigma", self.sigma, 0 < self.sigma < math.inf, "> 0"),
            ("--confidence", self.confidence, 0.5 <= self.confidence < 1, "in [0.5, 1)"),
            ("--budgets and --attack-radius", budgets, all(0 <= one < math.inf for one in budgets), ">= 0"),
        ):
            if not holds:
                raise OneStrideError(f"{flag}: expected {expected}, got {value}")

    def _judged(self, policy: Policy, environment: Environment) -> tuple[list[Trial], list[Row]]:
        """The smoothed policy's episodes, and a row for each budget."""
        from onestride.training.smoothing import half_ranges

        dataset = policy.contract.dataset
        units = half_ranges(dataset.minimum, dataset.maximum)
        units = units if self.units == "range" else 0 * units + 1
        trials = self._played("evaluate", policy, environment, units, None)
        budgets = self.budgets or tuple(self.sigma * one for one in MULTIPLES)
        rows = self._certified(trials, sorted({*budgets, *self.attack_radius}))
        for row in rows:
            if row["budget"] in self.attack_radius:
                label = f"attack {row['budget']:g}"
                row["attacked"] = _averages(self._played(label, policy, environment, units, row["budget"]))
        return trials, rows

    def _certified(self, trials: Sequence[Trial], budgets: Sequence[float]) -> list[Row]:
        from onestride.training.smoothing import ReturnBounds, shifted, success_bound

        success = success_bound(sum(trial.success for trial in trials), len(trials), self.confidence)
        returns, rows = ReturnBounds([trial.reward for trial in trials], self.confidence), []
        for budget in budgets:
            at = budget, self.sigma
            row = {"budget": budget, "success": shifted(success, *at), "median_return": returns.median(*at)}
            if self.lowest_return is not None:
                row["mean_return"] = returns.mean(*at, self.lowest_return)
            rows.append(row)
        return rows

    def _played(
        self, label: str, policy: Policy, environment: Environment, units: Array, attacked: float | None
    ) -> list[Trial]:
        """Episodes of the smoothed policy; under attack with that budget, on the seeds that follow."""
        from onestride.training.evaluation import evaluate
        from onestride.training.smoothing import Smoothed

        first = self.seed if attacked is None else self.seed + self.episodes
        adversary = None if attacked is None else self._adversary(attacked, environment, units)
        smoothed = Smoothed(environment, self.sigma, units, adversary, attacked or 0.0)
        with progress_bar(label, self.episodes) as advance:
            seeds = range(first, first + self.episodes)
            return evaluate(policy, smoothed, seeds, lambda trial: advance(trial.seed - first + 1))

    def _adversary(self, budget: float, environment: Environment, units: Array) -> Any:
        from onestride.training.attacks import ConstantShift, SteepestShift

        if self.attack == "constant":
            return ConstantShift(budget, len(units), environment.horizon)
        return SteepestShift(self._policy(), budget, units, environment.horizon)


def _averages(trials: Sequence[Trial]) -> Row:
    from statistics import fmean, median

    returns = [trial.reward for trial in trials]
    success = fmean(trial.success for trial in trials)
    return {"success_rate": success, "median_return": median(returns), "mean_return": fmean(returns)}


COLUMNS = {
    "success": ("success", "success_rate"),
    "median_return": ("median return", "median_return"),
    "mean_return": ("mean return", "mean_return"),
}
"""Key of a bound -> how it is called, and the key of what was seen under attack."""


def _print(rows: Sequence[Row]) -> None:
    """A line for each budget: what is certain, and what an attack left."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="certified, and seen under attack", box=None, title_justify="left", padding=(0, 1))
    shown = [(key, *names) for key, names in COLUMNS.items() if key in rows[0]]
    for heading in ("ε", *(f"{name} ≥" for _, name, _ in shown), *(f"attacked: {name}" for _, name, _ in shown)):
        table.add_column(heading, justify="right")
    for row in rows:
        seen = row.get("attacked", {})
        certain = [_figure(row[key]) for key, _, _ in shown]
        table.add_row(f"{row['budget']:g}", *certain, *(_figure(seen.get(key)) for _, _, key in shown))
    Console().print(table)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write a PNG: a panel for each bound over the budget, attacks as dots."""
    from matplotlib.figure import Figure

    shown = [(key, *names) for key, names in COLUMNS.items() if any(row.get(key) is not None for row in rows)]
    figure = Figure(figsize=(4.4 * len(shown), 3.4), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for axes, (key, name, seen) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        certain = [(row["budget"], row[key]) for row in rows if row.get(key) is not None]
        attacked = [(row["budget"], row["attacked"][seen]) for row in rows if "attacked" in row]
        axes.plot(*zip(*certain, strict=True), marker=".", label="certified")
        if attacked:
            axes.plot(*zip(*attacked, strict=True), "x", color="#d1495b", label="attacked")
            axes.legend(frameon=False, fontsize=8)
        axes.set(xlabel="attack's budget ε", title=name)
        axes.locator_params(axis="x", nbins=5)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)

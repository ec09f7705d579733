"""What several runs found: grouped by what they were asked for, with a band over their seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestride.hardware.errors import OneStrideError
from onestride.training.checkpoint import RunConfig, RunDirectory
from onestride.training.evaluations import read_evaluations
from onestride.training.metrics import read_metrics
from onestride.training.probes import Multipliers, read_multipliers

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Of the confidence bands."""
_NORMAL = 1.959964  # 97.5 % quantile of the standard normal distribution
_APART = ("seed", "data", "dataset_id", "format")
"""Fields of a config that do not separate groups, or are told apart from them."""


@dataclass(frozen=True)
class RunRecord:
    """A run directory as the report reads it.

    Attributes:
        path: Where it is.
        config: What was asked for.
        evaluations: Rows of `evaluations.csv`.
        metrics: Rows of `metrics.csv`.
        multipliers: Of a constrained agent, at its probe states.
    """

    path: Path
    config: RunConfig
    evaluations: list[dict[str, float]]
    metrics: list[dict[str, float]]
    multipliers: Multipliers | None = None

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read a run, finished or not.

        Raises:
            OneStrideError: There is none.
        """
        directory = RunDirectory(path)
        config = directory.config()
        tables = read_evaluations(directory.evaluations), read_metrics(directory.metrics)
        return cls(path, config, *tables, read_multipliers(directory.multipliers))


class Curve(NamedTuple):
    """A quantity over steps, with its confidence band; NaN where no band can be given."""

    steps: Floats
    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        label: What tells this group from the others.
        runs: At least one.
    """

    label: str
    runs: tuple[RunRecord, ...]

    def evaluation(self, column: str) -> Curve | None:
        """A column of the evaluations, at the steps that all runs have; None where there is none."""
        rows = [{row["step"]: row for row in run.evaluations} for run in self.runs]
        steps = sorted(set.intersection(*(set(one) for one in rows)))
        if not steps:
            return None
        values = np.array([[one[step][column] for step in steps] for one in rows])
        episodes = np.array([rows[0][step]["episodes"] for step in steps])
        if len(rows) == 1 and column == "success":
            return Curve(np.array(steps), values[0], *wilson(values[0], episodes))
        return Curve(np.array(steps), values.mean(axis=0), *student(values))

    def metric(self, column: str) -> Curve | None:
        """A column of the metrics, likewise."""
        rows = [{row["step"]: row[column] for row in run.metrics if column in row} for run in self.runs]
        steps = sorted(set.intersection(*(set(one) for one in rows)))
        if not steps:
            return None
        values = np.array([[one[step] for step in steps] for one in rows])
        return Curve(np.array(steps), values.mean(axis=0), *student(values))


def student(values: Floats) -> tuple[Floats, Floats]:
    """Band of the mean of S seeds (S, N) by Student's t; NaN for a single one."""
    from scipy.stats import t

    seeds = len(values)
    if seeds < 2:
        nothing = np.full(values.shape[1], math.nan)
        return nothing, nothing
    reach = float(t.ppf((1 + LEVEL) / 2, seeds - 1)) * values.std(axis=0, ddof=1) / math.sqrt(seeds)
    return values.mean(axis=0) - reach, values.mean(axis=0) + reach


def wilson(rates: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Band of success rates (N,) over so many episodes (N,), by Wilson's score."""
    square = _NORMAL**2 / counts
    centre = (rates + square / 2) / (1 + square)
    reach = _NORMAL * np.sqrt(rates * (1 - rates) / counts + square / (4 * counts)) / (1 + square)
    return centre - reach, centre + reach


def group_runs(paths: Sequence[Path]) -> list[Group]:
    """Read runs, and put together those that differ in their seed alone.

    Raises:
        OneStrideError: No run is given, one is none, or two are the same run.
    """
    if not paths:
        raise OneStrideError("expected at least one run directory, got none")
    runs = [RunRecord.read(path) for path in paths]
    found: dict[str, list[RunRecord]] = {}
    for run in runs:
        found.setdefault(json.dumps(_settings(run.config), sort_keys=True), []).append(run)
    for key, same in found.items():
        seeds = [run.config.seed for run in same]
        if len(set(seeds)) < len(seeds):
            listed = ", ".join(str(run.path) for run in same)
            raise OneStrideError(f"expected runs of one kind with different seeds, got seeds {seeds} in {listed}")
        found[key] = sorted(same, key=lambda run: run.config.seed)
    labels = _labels([json.loads(key) for key in found])
    return [Group(label, tuple(same)) for label, same in zip(labels, found.values(), strict=True)]


def _settings(config: RunConfig) -> dict[str, Any]:
    """What a run was asked for, but its seed, as flat JSON values."""
    values = asdict(config)
    settings = values.pop("settings")
    rest = {name: value for name, value in values.items() if name not in _APART}
    return {"dataset": config.dataset_id, **rest, **settings}


def _labels(groups: Sequence[dict[str, Any]]) -> list[str]:
    """The agent and what differs from group to group."""
    names = list(dict.fromkeys(name for group in groups for name in group if name != "agent"))
    differing = [name for name in names if len({json.dumps(group.get(name)) for group in groups}) > 1]
    # What one agent has and another has not tells nothing that the agent's name does not.
    shared = [name for name in differing if all(name in group for group in groups)]
    of_own = [name for name in differing if name not in shared]
    labels = []
    for group in groups:
        kin = [other for other in groups if other["agent"] == group["agent"]]
        own = [name for name in of_own if name in group and len({json.dumps(one.get(name)) for one in kin}) > 1]
        told = [f"{name} {group[name]}" for name in (*_within(shared, groups, kin), *own)]
        labels.append(", ".join([str(group["agent"]), *told]))
    return labels


def _within(names: Sequence[str], groups: Sequence[dict[str, Any]], kin: Sequence[dict[str, Any]]) -> list[str]:
    """Names that differ among groups of one agent; all of them where no agent differs."""
    if len({group["agent"] for group in groups}) == 1:
        return list(names)
    return [name for name in names if len({json.dumps(one[name]) for one in kin}) > 1]

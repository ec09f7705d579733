"""The report of runs as one HTML file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from onestride.training.pages import COLOURS, document, new_figure, side_by_side, svg, table
from onestride.training.report import Curve, Group

EVALUATED = {
    "success": "Success rate",
    "return": "Return",
    "cost": "Cost",
    "length": "Episode length [steps]",
}
LOSSES = 6
"""Most loss curves that are shown."""


def build_page(groups: Sequence[Group]) -> str:
    """Headline, curves with bands over seeds, and a table of where each group ended."""
    figures = [_chart(groups, title, partial(Group.evaluation, column=column)) for column, title in _shown(groups)]
    losses = [_chart(groups, name, partial(Group.metric, column=name), log=True) for name in _losses(groups)[:LOSSES]]
    count = sum(len(group.runs) for group in groups)
    body = f"""<h1>{count} {"run" if count == 1 else "runs"}</h1>
<p class="note">Lines are means over seeds, bands 95 % confidence: Student's t over seeds; for a single seed Wilson's
interval of its success rate over the episodes, and no band elsewhere. Steps count gradient steps offline, then
environment steps online.</p>
<h2>Evaluation</h2>{side_by_side(figures) if figures else "<p>None of the runs was evaluated.</p>"}
{table(_ends(groups), ("group", "seeds", "step", "success", "return", "cost", "training"))}
{_multipliers(groups)}<h2>Losses</h2>{side_by_side(losses)}
<h2>Runs</h2>{table(_runs(groups), ("run", "group", "environment", "dataset"))}"""
    return document("onestride report", body)


def _multipliers(groups: Sequence[Group]) -> str:
    """A figure for each group of constrained agents: λ at the probe states of every run; and how far it swings."""
    constrained = [group for group in groups if any(run.multipliers for run in group.runs)]
    if not constrained:
        return ""
    rows = [(group.label, ", ".join(f"{swing:.3g}" for swing in _swings(group))) for group in constrained]
    return f"""<h2>Multipliers</h2>
<p class="note">A line for each of the states that were drawn when learning began. Oscillation is the mean change of
log(1 + multiplier) from one log line to the next, over the second half of the run.</p>
{side_by_side(_probed(group) for group in constrained)}{table(rows, ("group", "oscillation, seed by seed"))}
"""


def _swings(group: Group) -> list[float]:
    return [run.multipliers.oscillation for run in group.runs if run.multipliers]


def _probed(group: Group) -> str:
    figure, axes = new_figure()
    for index, found in enumerate(run.multipliers for run in group.runs if run.multipliers):
        axes.plot(found.steps, found.values, color=COLOURS[index % len(COLOURS)], linewidth=0.6, alpha=0.6)
    axes.set(xlabel="step", ylabel="multiplier", title=group.label)
    return svg(figure)


def _shown(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Columns worth a figure: evaluated, and not the same everywhere; success always."""
    rows = [row for group in groups for run in group.runs for row in run.evaluations]
    return [(name, title) for name, title in EVALUATED.items() if rows and (name == "success" or _varies(rows, name))]


def _varies(rows: Sequence[dict[str, float]], name: str) -> bool:
    return len({row[name] for row in rows}) > 1


def _losses(groups: Sequence[Group]) -> list[str]:
    names = [name for group in groups for run in group.runs for row in run.metrics for name in row]
    return [name for name in dict.fromkeys(names) if name.endswith("loss")]


def _chart(groups: Sequence[Group], title: str, curve_of: Callable[[Group], Curve | None], log: bool = False) -> str:
    figure, axes = new_figure()
    for index, group in enumerate(groups):
        curve, colour = curve_of(group), COLOURS[index % len(COLOURS)]
        if curve is None:
            continue
        axes.plot(curve.steps, curve.mean, color=colour, linewidth=1.2, label=group.label)
        if np.isfinite(curve.low).all():
            axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="step", title=title)
    if title == EVALUATED["success"]:
        axes.set_ylim(-0.02, 1.02)
    if log and all((curve.mean > 0).all() for curve in map(curve_of, groups) if curve is not None):
        axes.set_yscale("log")
    if len(groups) > 1:
        axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def _ends(groups: Sequence[Group]) -> list[list[str]]:
    """One line for each group: where its last common evaluation stands."""
    lines = []
    for group in groups:
        seeds = ", ".join(str(run.config.seed) for run in group.runs)
        seconds = [run.metrics[-1]["seconds"] for run in group.runs if run.metrics]
        spent = f"{sum(seconds) / len(seconds):.0f} s" if seconds else ""
        curves = [group.evaluation(column) for column in ("success", "return", "cost")]
        step = f"{curves[0].steps[-1]:.0f}" if curves[0] else ""
        lines.append([group.label, seeds, step, *(_end(curve) for curve in curves), spent])
    return lines


def _end(curve: Curve | None) -> str:
    if curve is None:
        return ""
    mean, low, high = curve.mean[-1], curve.low[-1], curve.high[-1]
    return f"{mean:.3g}" if math.isnan(low) else f"{mean:.3g} [{low:.3g}, {high:.3g}]"


def _runs(groups: Sequence[Group]) -> list[list[str]]:
    return [
        [str(run.path), group.label, run.config.env, run.config.dataset_id] for group in groups for run in group.runs
    ]

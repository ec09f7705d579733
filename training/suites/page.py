"""The table and the plot of a suite, made from its results and nothing else."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onestride.hardware.durable import write_atomic
from onestride.training.pages import COLOURS
from onestride.training.suites.cells import Cell, Suite
from onestride.training.suites.results import Entry
from onestride.training.suites.results import found as find

NOT_RUN = "not run"

STEP = "step; a run that goes on from another begins where that one ended"


def write_page(suite: Suite, scale: str, cells: Sequence[Cell], entries: Sequence[Entry], folder: Path) -> list[Path]:
    """Write `<suite>-<scale>.md`, and the curves beside it where any cell was run.

    Args:
        suite: The suite.
        scale: Of the cells.
        cells: All that the table shall show, run or not.
        entries: What was run.
        folder: Where to.

    Returns:
        The files.
    """
    found = {cell.key: find(cell, scale, entries) for cell in cells}
    stem = f"{suite.name}-{scale}"
    files = [folder / f"{stem}.md"]
    if any(found.values()):
        files.append(folder / f"{stem}.png")
        write_atomic(files[1], _plot(suite, _one_after_the_other(cells, found)), folder)
    write_atomic(files[0], _markdown(suite, scale, found, len(files) > 1).encode(), folder)
    return files


def _markdown(suite: Suite, scale: str, found: dict[tuple[str, str, int], Entry | None], plotted: bool) -> str:
    tasks, agents = list(dict.fromkeys(cell[0] for cell in found)), list(dict.fromkeys(cell[1] for cell in found))
    lines = [f"# {suite.title}: {scale}", "", f"Made by `onestride bench-train --suite {suite.name} --scale {scale}`."]
    lines += [_legend(suite), "", "| | " + " | ".join(agents) + " |", "|---" * (len(agents) + 1) + "|"]
    for task in tasks:
        cells = [[one for name, one in found.items() if name[:2] == (task, agent)] for agent in agents]
        lines.append(f"| {task} | " + " | ".join(_summary(suite, cell) for cell in cells) + " |")
    if plotted:
        lines += ["", f"![Evaluations]({suite.name}-{scale}.png)"]
    ran = [one for one in found.values() if one]
    lines += ["", *_rows(ran)] if ran else []
    watched = [one for one in ran if "multipliers" in one]
    lines += ["", *_swings(watched)] if watched else []
    return "\n".join(lines) + "\n"


def _legend(suite: Suite) -> str:
    if suite.measure == "success":
        return "Success of the last weights, mean over n seeds: offline, then → online. A cell nobody ran says so."
    return "Return / cost of the last weights, mean over n seeds. A cell nobody ran says so."


def _summary(suite: Suite, entries: Sequence[Entry | None]) -> str:
    ran = [one for one in entries if one]
    if not ran:
        return NOT_RUN
    stages = [[one[stage] for one in ran if one[stage]] for stage in ("offline", "online")]
    told = [f"{_mean(suite, stage)} (n={len(stage)})" for stage in stages if stage]
    return " → ".join(told) or f"no evaluation (n={len(ran)})"


def _mean(suite: Suite, rows: Sequence[Entry]) -> str:
    if suite.measure == "success":
        return f"{np.mean([row['success'] for row in rows]):.2f}"
    return f"{np.mean([row['return'] for row in rows]):.0f} / {np.mean([row['cost'] for row in rows]):.1f}"


def _rows(ran: Sequence[Entry]) -> list[str]:
    """Every cell that was run: its outcome, its interval, where and from what commit."""
    lines = [
        "| task | agent | seed | success [95 % interval] | return | cost | episodes | N=1 | min | device | commit |",
        "|---" * 11 + "|",
    ]
    for one in ran:
        row = one["online"] or one["offline"] or {}
        single = one["candidates"].get("1")
        cells: list[Any] = [one["task"], one["agent"], one["seed"], _rate(row), *_figures(row)]
        cells += [_rate(single) if single else "", round(one["train_s"] / 60), one["device"], (one["commit"] or "")[:8]]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def _swings(watched: Sequence[Entry]) -> list[str]:
    """How far each constrained agent's multipliers swing, and where they ended."""
    lines = [
        "Multipliers at the states that were drawn when learning began. Oscillation is the mean change of",
        "log(1 + multiplier) from one log line to the next, over the second half of the run.",
        "",
        "| task | agent | seed | oscillation | mean at the end | smallest to largest | states |",
        "|---" * 7 + "|",
    ]
    for one in watched:
        found = one["multipliers"]
        swing = "" if found["oscillation"] is None else f"{found['oscillation']:.4f}"
        ends = f"{found['low'][-1]:.3g} to {found['high'][-1]:.3g}"
        cells = [one["task"], one["agent"], one["seed"], swing, f"{found['mean'][-1]:.3g}", ends, found["probes"]]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def _rate(row: Entry) -> str:
    return f"{row['success']:.2f} [{row['interval'][0]:.2f}, {row['interval'][1]:.2f}]" if row else ""


def _figures(row: Entry) -> list[str]:
    return [f"{row['return']:.1f}", f"{row['cost']:.1f}", f"{row['episodes']:.0f}"] if row else ["", "", ""]


def _one_after_the_other(cells: Sequence[Cell], found: dict[tuple[str, str, int], Entry | None]) -> list[Entry]:
    """What is drawn: a run that goes on from another begins at the end of that one, and not at all without it."""
    drawn = []
    for cell in cells:
        one, before = found[cell.key], found.get((cell.task, cell.after, cell.seed))
        if one and before and before["evaluations"]:
            drawn.append(_after(before["evaluations"][-1], one))
        elif one and not cell.after:
            drawn.append(one)
    return drawn


def _after(last: Entry, one: Entry) -> Entry:
    rows = [last, *({**row, "step": last["step"] + row["step"]} for row in one["evaluations"])]
    if "multipliers" not in one:
        return {**one, "evaluations": rows}
    steps = [last["step"] + step for step in one["multipliers"]["steps"]]
    return {**one, "evaluations": rows, "multipliers": {**one["multipliers"], "steps": steps}}


def _plot(suite: Suite, ran: Sequence[Entry]) -> bytes:
    """A panel for each task and quantity: every run as a thin line, the agents' means as thick ones."""
    from matplotlib.figure import Figure

    tasks, agents = (list(dict.fromkeys(one[name] for one in ran)) for name in ("task", "agent"))
    columns = ["success"] if suite.measure == "success" else ["return", "cost"]
    columns += ["multiplier"] if any("multipliers" in one for one in ran) else []
    figure = Figure(figsize=(7.0 * len(columns), 3.4 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), len(columns), squeeze=False)
    for task, line in zip(tasks, grid, strict=True):
        for column, axes in zip(columns, line, strict=True):
            for number, agent in enumerate(agents):
                here = [one for one in ran if (one["task"], one["agent"]) == (task, agent)]
                _curves(axes, _runs(here, column), column, agent, COLOURS[number % len(COLOURS)])
            axes.set(title=task, xlabel=STEP, ylabel=column, **_limits(column))
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _limits(column: str) -> dict[str, Any]:
    return {"ylim": (-0.02, 1.02)} if column == "success" else {}


def _runs(entries: Sequence[Entry], column: str) -> list[Sequence[Entry]]:
    """Rows of `step` and the column, run by run; of multipliers the mean over the states."""
    if column != "multiplier":
        return [one["evaluations"] for one in entries if one["evaluations"]]
    found = [one["multipliers"] for one in entries if "multipliers" in one]
    return [
        [{"step": step, column: mean} for step, mean in zip(one["steps"], one["mean"], strict=True)] for one in found
    ]


def _curves(axes: Any, runs: Sequence[Sequence[Entry]], column: str, agent: str, colour: str) -> None:
    if not runs:
        return
    for run in runs:
        axes.plot([row["step"] for row in run], [row[column] for row in run], color=colour, alpha=0.35, linewidth=0.8)
    shared = sorted(set.intersection(*({row["step"] for row in run} for run in runs)))
    means = [np.mean([row[column] for run in runs for row in run if row["step"] == step]) for step in shared]
    axes.plot(shared, means, color=colour, linewidth=1.8, marker=".", label=f"{agent} (n={len(runs)})")

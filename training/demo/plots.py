"""The report's pictures, as SVG text that a page can hold."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from onestride.training.pages import BLUE, GREEN, GREY, RED, new_figure, svg


def loss_curve(metrics: Path) -> str:
    """Training loss over gradient steps, from a run's `metrics.csv`."""
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    figure, axes = new_figure()
    for name, label, colour in (
        ("actor/mean_flow_mse", "mean flow", BLUE),
        ("actor/instantaneous_mse", "instantaneous velocity", GREEN),
    ):
        axes.semilogy(steps, [float(row[name]) for row in rows], label=label, color=colour, linewidth=1)
    axes.set(xlabel="gradient step", ylabel="squared error", title="Training")
    axes.legend(frameon=False)
    return svg(figure)


def success_chart(trials: list[dict[str, Any]]) -> str:
    """Steps until solved, for each unseen seed, in the bare environment and through the node."""
    figure, axes = new_figure()
    for shift, name, label, colour in ((-0.2, "bare", "bare environment", GREY), (0.2, "node", "ROS 2 node", BLUE)):
        for index, trial in enumerate(trials):
            result = trial[name]
            steps = result["steps"] if name == "bare" else (result["solved_after"] or 0)
            height = steps if result["success"] else 0
            axes.bar(index + shift, height, 0.4, color=colour, label=label if index == 0 else None)
            if not result["success"]:
                axes.plot(index + shift, 2, "x", color=RED, markersize=7)
    axes.set(
        xlabel="unseen episode", ylabel="policy steps until solved", title="Unseen episodes (red cross: not solved)"
    )
    axes.set_xticks(range(len(trials)))
    axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return svg(figure)


def latency_histogram(histogram: dict[str, list[float]], tick_ms: dict[str, float]) -> str:
    """How long control ticks took."""
    figure, axes = new_figure()
    edges, counts = histogram["edges"], histogram["counts"]
    axes.stairs(counts, edges, fill=True, color=BLUE)
    axes.set(xscale="log", yscale="log", xlabel="control tick [ms]", ylabel="ticks", title="Time per control tick")
    for name in ("p50", "p99", "max"):
        axes.axvline(tick_ms[name], color=RED if name == "max" else GREY, linewidth=1)
        axes.text(tick_ms[name], axes.get_ylim()[1], f" {name} {tick_ms[name]:.2f}", rotation=90, va="top", fontsize=8)
    return svg(figure)

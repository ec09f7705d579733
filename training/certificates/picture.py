"""A certified region as a picture: the first position against its speed, other elements of the state at zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array
from onestride.training.certificates.claims import Function
from onestride.training.certificates.recipes import Issued
from onestride.training.certificates.systems import System

POINTS = 301


def plane(system: System) -> tuple[int, int]:
    """The elements of the state across and up."""
    return 0, len(system.domain) // 2


def on_plane(function: Function, system: System) -> tuple[Array, Array, Array]:
    """V on the plane: points across, points up, and values (up, across)."""
    across, up = (np.linspace(-system.domain[axis], system.domain[axis], POINTS) for axis in plane(system))
    grid = np.meshgrid(across, up)
    state = [np.zeros(POINTS * POINTS) for _ in system.domain]
    for axis, values in zip(plane(system), grid, strict=True):
        state[axis] = values.ravel()
    return across, up, np.asarray(function(state)).reshape(POINTS, POINTS)


def draw(issued: Issued, path: Path) -> None:
    """Write a PNG: the region filled, V as lines, another region to compare with, and counterexamples.

    Raises:
        OneStrideError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    system, verdict = issued.system, issued.verdict
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    across, up, values = on_plane(issued.function, system)
    if issued.terms is not None:
        axes.contourf(across, up, values, levels=[values.min() - 1.0, verdict.level], colors=["#9ecae1"])
    axes.contour(across, up, values, levels=8, colors="grey", linewidths=0.5)
    if values.min() < verdict.level < values.max():
        axes.contour(across, up, values, levels=[verdict.level], colors="tab:blue", linewidths=1.5)
    if issued.outline is not None:
        function, level = issued.outline
        axes.contour(across, up, on_plane(function, system)[2], levels=[level], colors="tab:orange", linestyles="--")
    if issued.terms is None and len(verdict.counterexamples):
        first, second = plane(system)
        points = verdict.counterexamples
        axes.plot(points[:, first], points[:, second], "r.", markersize=3)
    axes.set(xlabel=system.states[plane(system)[0]], ylabel=system.states[plane(system)[1]], title=_title(issued))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise OneStrideError(f"{path}: expected to write it, got: {error}") from error


def _title(issued: Issued) -> str:
    system, verdict = issued.system, issued.verdict
    if issued.terms is None:
        return f"{system.name}: not proved\nred: no input keeps the claim"
    dashed = "\ndashed: the quadratic one" if issued.outline is not None else ""
    return f"{system.name}: certified {verdict.share:.1%} of the domain{dashed}"

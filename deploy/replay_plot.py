"""A replay as a picture: each element of the action as it was recorded and as it came again."""

from __future__ import annotations

from pathlib import Path

from onestride.deploy.replay import Difference
from onestride.hardware.errors import OneStrideError

FORMATS = (".png", ".pdf", ".svg")

#: Elements that get a panel: those that differ most.
PANELS = 12


def plot(path: Path, actions: Difference, names: tuple[str, ...], title: str) -> None:
    """Write the picture; the ending of `path` chooses its format.

    Raises:
        OneStrideError: another ending, or a place that cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise OneStrideError(f"expected a picture ending in {', '.join(FORMATS)}, got {path.name!r}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted(abs(actions.again - actions.recorded).max(axis=0).argsort()[::-1][:PANELS].tolist())
    figure = Figure(figsize=(10, 1.0 + 1.3 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for panel, element in zip(panels, shown, strict=True):
        panel.plot(actions.recorded[:, element], color="0.6", linewidth=2.5, label="recorded")
        panel.plot(actions.again[:, element], color="tab:blue", linewidth=1.0, label="again")
        panel.set_ylabel(names[element], fontsize=7)
    panels[0].legend(fontsize=7, loc="upper right", ncols=2)
    panels[-1].set_xlabel("policy step")
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise OneStrideError(f"expected a writable place for the picture, got {path}: {error.strerror}") from error

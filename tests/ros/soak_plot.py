"""A soak at a glance: memory over time, and when what went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot


def plot(record: dict[str, Any], path: Path) -> None:
    """Draw a soak's record."""
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 7), height_ratios=(2, 3))
    minutes = [seconds / 60 for seconds in record["curve"]["times"]]
    for name, summary in record["memory_mb"].items():
        label = f"{name}: {summary['slope_per_half_hour']:+.2f} MB in 30 min"
        above.plot(minutes, record["curve"][name], label=label)
    above.set(ylabel="resident [MB]", ylim=(0, None))
    above.legend(loc="lower right")
    kinds = [*sorted(record["faults"]), ""]
    below.scatter([at / 60 for at, _ in record["events"]], [kinds.index(k) for _, k in record["events"]], s=6)
    below.set_yticks(range(len(kinds)), [kind or "nobody's" for kind in kinds], fontsize=7)
    below.set_xlabel(f"minutes, {record['ticks']} ticks at {record['rate_hz']:g} Hz")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)

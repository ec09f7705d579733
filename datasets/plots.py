"""One picture of a dataset: trajectories, what the actions are, and how regularly it was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.datasets.schema import BASE, Array, Feature
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

TRAJECTORIES = 12
"""Episodes that are drawn, spread evenly over the dataset."""
ELEMENTS = 6
"""Elements of a feature that get a panel of their own."""
FORMATS = (".png", ".pdf", ".svg")
STEPS = 200_000
"""Actions in the histograms at most, in evenly spread blocks."""


def plot(store: Store, path: Path) -> None:
    """Write the picture; the ending of `path` chooses its format.

    Raises:
        OneStrideError: an empty store, another ending, a place that cannot be written, or damage.
    """
    if path.suffix.lower() not in FORMATS:
        raise OneStrideError(f"expected a picture ending in {', '.join(FORMATS)}, got {path.name!r}")
    if not store.num_steps:
        raise OneStrideError(f"{store.path}: expected recorded episodes, got an empty store")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [_trajectory_feature(store), store.schema.feature(store.schema.label)]
    rows = [min(ELEMENTS, feature.size) for feature in shown]
    figure = Figure(figsize=(15, 2.0 + 1.7 * max(*rows, 3)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_title(store), fontsize=11, x=0.01, ha="left")
    columns: Any = figure.subfigures(1, 4, width_ratios=[1.25, 1.25, 1, 1.1])
    for column, feature, count in zip(columns[:2], shown, rows, strict=True):
        _trajectories(column, store, feature, count)
    _histograms(columns[2], store, shown[1], rows[1])
    _timing(columns[3], store)
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise OneStrideError(f"expected a writable place for the picture, got {path}: {error.strerror}") from error


def _title(store: Store) -> str:
    told = [info.attributes["success"] for info in store.episodes if "success" in info.attributes]
    success = f", {sum(map(bool, told))} of {len(told)} successful" if told else ""
    where = f", {store.schema.environment}" if store.schema.environment else ""
    counts = f"{store.num_episodes} episodes, {store.num_steps} steps"
    return f"{store.path.name} ({store.dataset_id}): {counts}{success}{where}"


def _trajectory_feature(store: Store) -> Feature:
    """The first flat observation, else the first flat state, else the label itself."""
    schema = store.schema
    offered = [*schema.by_role("observation"), *schema.by_role("state"), schema.feature(schema.label)]
    return next(one for one in offered if one.stream == BASE and len(one.shape) <= 1)


def _trajectories(column: Any, store: Store, feature: Feature, count: int) -> None:
    panels = column.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    chosen = np.unique(np.linspace(0, store.num_episodes - 1, TRAJECTORIES).round().astype(int))
    for place, number in enumerate(chosen):
        episode = store.read_episode(int(number), [feature.name])
        clock = episode.timestamps[BASE]
        values = episode.data[feature.name].reshape(len(clock), -1)
        for element, panel in enumerate(panels):
            panel.plot((clock - clock[0]) * 1e-9, values[:, element], lw=0.8, color=_colour(place, len(chosen)))
    for element, panel in enumerate(panels):
        panel.set_ylabel(_label(feature, element), fontsize=8)
        _tidy(panel)
    panels[-1].set_xlabel("time [s]", fontsize=8)
    more = f", {count} of {feature.size} elements" if feature.size > count else ""
    panels[0].set_title(f"{feature.name}: {len(chosen)} of {store.num_episodes} episodes{more}", fontsize=9, loc="left")


def _histograms(column: Any, store: Store, feature: Feature, count: int) -> None:
    panels = column.subplots(count, 1, squeeze=False)[:, 0]
    actions = _sample(store, feature)
    for element, panel in enumerate(panels):
        panel.hist(actions[:, element], bins=60, color="#4477aa")
        panel.set_yscale("log")
        panel.set_ylim(bottom=0.7)
        panel.set_xlabel(_label(feature, element), fontsize=8)
        _tidy(panel)
    panels[0].set_title(f"{feature.name}: {len(actions)} steps, counts", fontsize=9, loc="left")


def _timing(column: Any, store: Store) -> None:
    """Deviation of each interval from the median one, for each stream."""
    streams = store.schema.streams[:ELEMENTS]
    panels = column.subplots(max(len(streams), 3), 1, squeeze=False)[:, 0]
    for panel in panels[len(streams) :]:
        panel.axis("off")
    for stream, panel in zip(streams, panels, strict=False):
        gaps = _intervals(store, stream) * 1e-6
        if len(gaps):
            period = float(np.median(gaps))
            panel.hist(gaps - period, bins=80, color="#aa4466", range=_span(gaps - period))
            panel.set_yscale("log")
            panel.set_ylim(bottom=0.7)
            panel.locator_params(axis="x", nbins=5)
            rate = f"{1e3 / period:.4g} Hz" if period else "no rate"
            worst = f"worst {np.abs(gaps - period).max():.3g} ms"
            panel.set_title(f"stream {stream}: {rate}, {worst}", fontsize=9, loc="left")
        else:
            panel.set_title(f"stream {stream}: no intervals", fontsize=9, loc="left")
        _tidy(panel)
    panels[len(streams) - 1].set_xlabel("interval − median [ms]", fontsize=8)


def _sample(store: Store, feature: Feature) -> Array:
    """At most `STEPS` rows (N, D), in evenly spread blocks of a thousand."""
    total = store.num_steps
    if total <= STEPS:
        blocks = [store.read(feature.name)]
    else:
        starts = np.linspace(0, total - 1000, STEPS // 1000).astype(int)
        blocks = [store.read_rows(feature.name, int(start), int(start) + 1000) for start in starts]
    return np.concatenate(blocks).reshape(-1, feature.size)


def _intervals(store: Store, stream: str) -> NDArray[np.int64]:
    """Intervals [ns] within episodes."""
    clock, lengths = store.read_time(stream), store.stream_lengths(stream)
    gaps = np.diff(clock)
    between = np.cumsum(lengths)[:-1] - 1
    within = np.ones(len(gaps), bool)
    within[between[(between >= 0) & (between < len(gaps))]] = False
    intervals: NDArray[np.int64] = gaps[within]
    return intervals


def _span(away: Array) -> tuple[float, float]:
    """A range that shows the worst interval and is never empty."""
    worst = max(float(np.abs(away).max()), 0.01)
    return -worst, worst


def _label(feature: Feature, element: int) -> str:
    name, unit = feature.element_names[element], feature.element_units[element]
    return f"{name} [{unit}]" if unit and unit != "1" else name


def _colour(place: int, count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](0.9 * place / max(1, count - 1))


def _tidy(panel: Any) -> None:
    panel.tick_params(labelsize=7)
    panel.grid(alpha=0.25, lw=0.5)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)

"""A store in the Rerun viewer: every feature over its own measured clock, episode by episode.

Entities are `episode_<number>/<feature>`; timelines are `time` (since the episode's first step) and `step` (row of the
feature's stream). Needs rerun-sdk (extra `rerun`), which is imported only here and only when it is asked for. Rerun's
viewer reports its use to its makers unless told not to: `rerun analytics disable`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from onestride.datasets.schema import BASE, Array, Feature
from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError

APPLICATION = "onestride"
LONGEST = 200
"""Characters of an attribute that are shown: robomimic's hold whole models."""


def show(store: Store, episodes: Iterable[int], file: Path | None = None) -> None:
    """Open episodes in the viewer, or write them to a file that it opens.

    Args:
        store: the dataset.
        episodes: which to show.
        file: an `.rrd` file to write instead of opening the viewer.

    Raises:
        OneStrideError: rerun-sdk is missing, no viewer starts, no such episode, or damage.
    """
    rr = _rerun()
    recording = rr.RecordingStream(APPLICATION, recording_id=store.dataset_id)
    try:
        if file is None:
            _spawn(recording)
        else:
            recording.save(str(file))
    except (OSError, RuntimeError) as error:
        where = "a Rerun viewer to start (--rerun-file needs none)" if file is None else f"a writable place for {file}"
        raise OneStrideError(f"expected {where}, got: {str(error).splitlines()[0]}") from error
    chosen = list(episodes)
    recording.send_blueprint(_layout(store.schema.features, chosen))
    for number in chosen:
        _send(rr, recording, store, number)
    recording.flush()
    recording.disconnect()  # a file ends here, not when the stream is collected


def _spawn(recording: Any) -> None:
    """Start the viewer; the one that pip installed lies beside the interpreter, which need not be on the path."""
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([path, str(Path(sys.executable).parent)])
    try:
        recording.spawn()
    finally:
        os.environ["PATH"] = path


def _layout(features: Sequence[Feature], episodes: Sequence[int]) -> Any:
    """A tab for each episode: its cameras and what is noted of it above, a plot for each other feature below."""
    import rerun.blueprint as rrb

    legend = rrb.PlotLegend(visible=False)  # it would cover small plots; hovering names a line, too

    def tab(number: int) -> Any:
        origin = f"episode_{number}"
        cameras = [
            rrb.Spatial2DView(origin=f"{origin}/{one.name}", name=one.name) for one in features if _is_image(one)
        ]
        plots = [
            rrb.TimeSeriesView(origin=f"{origin}/{one.name}", name=one.name, plot_legend=legend)
            for one in features
            if not _is_image(one)
        ]
        notes = rrb.TextDocumentView(origin=origin, name="attributes")
        return rrb.Vertical(rrb.Horizontal(*cameras, notes), rrb.Grid(*plots), row_shares=[1, 2], name=origin)

    return rrb.Blueprint(rrb.Tabs(*map(tab, episodes)), collapse_panels=True)


def _send(rr: Any, recording: Any, store: Store, number: int) -> None:
    episode = store.read_episode(number)
    begin = int(episode.timestamps[BASE][0])
    for feature in store.schema.features:
        clock = episode.timestamps[feature.stream]
        if len(clock):
            index = [
                rr.TimeColumn("time", duration=(clock - begin).astype("timedelta64[ns]")),
                rr.TimeColumn("step", sequence=np.arange(len(clock))),
            ]
            path = f"episode_{number}/{feature.name}"
            rr.send_columns(
                path, index, _columns(rr, recording, path, feature, episode.data[feature.name]), recording=recording
            )
    told = "\n\n".join(f"{key}: {shorten(str(value), LONGEST)}" for key, value in episode.attributes.items())
    recording.log(f"episode_{number}", rr.TextDocument(told or "no attributes"), static=True)


def _columns(rr: Any, recording: Any, path: str, feature: Feature, rows: Array) -> Any:
    if _is_image(feature):
        height, width = feature.shape[:2]
        model = "L" if len(feature.shape) == 2 or feature.shape[2] == 1 else "RGB"
        layout = rr.components.ImageFormat(width=width, height=height, color_model=model, channel_datatype="U8")
        recording.log(path, rr.Image.from_fields(format=layout), static=True)
        return rr.Image.columns(buffer=rows.reshape(len(rows), -1))
    if len(feature.shape) <= 1:
        recording.log(path, rr.SeriesLines(names=list(feature.element_names)), static=True)
    return rr.Scalars.columns(scalars=rows.reshape(len(rows), -1).astype(np.float64))


def _is_image(feature: Feature) -> bool:
    """uint8 (H, W), (H, W, 1) or (H, W, 3)."""
    shape = feature.shape
    return feature.dtype == "uint8" and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))


def _rerun() -> Any:
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise OneStrideError(
            "expected rerun-sdk to show a dataset, got none: pip install 'onestride[rerun]'"
        ) from error
    return rerun

"""LeRobot datasets v3.0 as a target: written by `lerobot_export`, whose libraries are optional."""

from __future__ import annotations

from pathlib import Path

from onestride.datasets.converters import Options, Progress, Report
from onestride.datasets.converters.extras import needs
from onestride.datasets.store import Store

OPTIONS: tuple[str, ...] = ("codec", "leave_out")


def write(store: Store, path: Path, report: Report, options: Options, progress: Progress) -> None:
    """Write a store as a LeRobot dataset v3.0.

    Args:
        store: what to write.
        path: the folder to make.
        report: told what is kept, changed and left out.
        options: `codec` forces cameras to PNG images or to video, None = as the store keeps them; `leave_out` names
            features.
        progress: told about each episode.

    Raises:
        OneStrideError: the rate of the data is not known, or a library is not installed.
    """
    with needs("lerobot"):
        from onestride.datasets.converters import lerobot_export
    lerobot_export.write(store, path, report, options, progress)

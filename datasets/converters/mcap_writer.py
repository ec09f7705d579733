"""MCAP files of ROS 2 messages as a target: written by `mcap_export`, whose libraries are optional."""

from __future__ import annotations

from pathlib import Path

from onestride.datasets.converters import Options, Progress, Report
from onestride.datasets.converters.extras import needs
from onestride.datasets.store import Store

OPTIONS: tuple[str, ...] = ("leave_out",)


def write(store: Store, path: Path, report: Report, options: Options, progress: Progress) -> None:
    """Write a store as one MCAP file, every stream at its own rate.

    Raises:
        OneStrideError: a library is not installed, or times that MCAP cannot hold.
    """
    with needs("rosbag"):
        from onestride.datasets.converters import mcap_export
    mcap_export.write(store, path, report, options, progress)

"""LeRobot datasets v3.0, v2.1 and v2.0 as a source: recognised here, read by `lerobot_reader`."""

from __future__ import annotations

from pathlib import Path

from onestride.datasets.converters import Options, Report, Source
from onestride.datasets.converters.extras import needs

OPTIONS: tuple[str, ...] = ("environment", "codec", "leave_out")


def recognises(path: Path) -> bool:
    """Whether it is a folder with `meta/info.json`, sound or not."""
    return (path / "meta/info.json").is_file()


def read(path: Path, report: Report, options: Options) -> Source:
    """Look through a dataset, and make its episodes available one by one.

    Raises:
        OneStrideError: damaged or missing files, an unknown version, no action, or a library that is not installed.
    """
    with needs("lerobot"):
        from onestride.datasets.converters import lerobot_reader
    return lerobot_reader.read(path, report, options)

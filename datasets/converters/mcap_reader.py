"""MCAP files that `mcap_writer` wrote, as a source: recognised here, read by `mcap_episodes` without a mapping."""

from __future__ import annotations

from pathlib import Path

from onestride.datasets.converters import Options, Report, Source
from onestride.datasets.converters.extras import needs

OPTIONS: tuple[str, ...] = ("codec",)

_MAGIC = b"\x89MCAP0\r\n"
LIBRARY = "onestride"
"""What the header of the file says wrote it."""


def recognises(path: Path) -> bool:
    """Whether it begins as MCAP and its header names us."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(64)
    name = LIBRARY.encode()
    return head.startswith(_MAGIC) and len(name).to_bytes(4, "little") + name in head


def read(path: Path, report: Report, options: Options) -> Source:
    """Look through a file, and make its episodes available one by one.

    Raises:
        OneStrideError: truncated or damaged, or a library that is not installed.
    """
    with needs("rosbag"):
        from onestride.datasets.converters import mcap_episodes
    return mcap_episodes.read(path, report, options)

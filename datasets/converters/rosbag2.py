"""rosbag2 recordings as a source: recognised here, read by `rosbag2_reader`."""

from __future__ import annotations

from pathlib import Path

from onestride.datasets.converters import Options, Report, Source
from onestride.datasets.converters.extras import needs

OPTIONS: tuple[str, ...] = ("mapping", "environment")

METADATA = "metadata.yaml"
SUFFIXES = (".mcap", ".db3")
_MAGIC = (b"\x89MCAP0\r\n", b"SQLite format 3\0")


def recognises(path: Path) -> bool:
    """Whether it is a storage file by its first bytes, or a folder with such files or rosbag2's metadata."""
    if path.is_file():
        return is_storage(path)
    if not path.is_dir():
        return False
    return _is_metadata(path / METADATA) or any(is_storage(one) for one in path.iterdir() if one.suffix in SUFFIXES)


def is_storage(path: Path) -> bool:
    """Whether a file begins as MCAP or SQLite does."""
    with path.open("rb") as file:
        return file.read(16).startswith(_MAGIC)


def read(path: Path, report: Report, options: Options) -> Source:
    """Look through a recording, and make its episodes available one by one.

    Raises:
        OneStrideError: damaged or missing files, a library that is not installed, or a mapping that is missing or does
            not fit the recording. Without a mapping the message lists the topics and a mapping to begin with.
    """
    with needs("rosbag"):
        from onestride.datasets.converters import rosbag2_reader
    return rosbag2_reader.read(path, report, options)


def _is_metadata(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"rosbag2_bagfile_information" in file.read(1 << 16)

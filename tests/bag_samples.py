"""Bags with a known content and their mapping, for the tests of the rosbag2 reader."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import yaml
from bags import floats, joints

from onestride.datasets.converters import Options, Report, convert
from onestride.datasets.store import Store

MS = 1_000_000
ARM = ("a", "b")


def mapping_file(path: Path, **changes: Any) -> Path:
    """Two joints measured, a command of the same joints held."""
    content: dict[str, Any] = {
        "base": "/state",
        "topics": {
            "/state": {"features": {"q": {"role": "observation", "field": "position", "joints": list(ARM)}}},
            "/command": {"align": "hold", "features": {"action": {"role": "action", "field": "data"}}},
        },
    }
    content |= changes
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def read_bag(bag: Path, tmp_path: Path, **changes: Any) -> tuple[Store, Report]:
    mapping = mapping_file(tmp_path / "mapping.yaml", **changes)
    shutil.rmtree(tmp_path / "s", ignore_errors=True)
    report = convert(bag, tmp_path / "s", options=Options(mapping=mapping))
    return Store.open(tmp_path / "s"), report


def plain_messages(count: int = 6, period: int = 10 * MS) -> list[tuple[str, int, Any]]:
    """State and a command 2 ms after it."""
    found: list[tuple[str, int, Any]] = []
    for step in range(count):
        found.append(("/state", 10**9 + step * period, joints(ARM, (step, -step))))
        found.append(("/command", 10**9 + step * period + 2 * MS, floats(step + 0.5, 7)))
    return found


def content_of(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

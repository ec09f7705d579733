"""The shape of the tree: file sizes, the open namespace, the editable tree."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("hardware", "datasets", "policies", "deploy", "training")
MAX_LINES = 400
BUILT = {"build", "install", "log", "__pycache__"}


def python_files() -> list[Path]:
    every = [path for folder in (*ROOMS, "ros_ws", "tests") for path in (ROOT / folder).rglob("*.py")]
    return [path for path in every if not BUILT & set(path.relative_to(ROOT).parts)]


def test_no_file_holds_two_ideas() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in python_files()}
    assert lengths
    long = {path: lines for path, lines in lengths.items() if lines > MAX_LINES}
    assert not long, f"expected at most {MAX_LINES} lines, got {long}"


@pytest.mark.parametrize("path", ["__init__.py", "datasets/__init__.py", ".src/onestride/__init__.py"])
def test_namespace_stays_open(path: str) -> None:
    """`datasets/__init__.py` would shadow Hugging Face's `datasets`; one above it would close the namespace."""
    assert not (ROOT / path).exists()


@pytest.mark.parametrize("room", ROOMS)
def test_editable_tree_points_at_the_room(room: str) -> None:
    link = ROOT / ".src" / "onestride" / room
    assert link.is_symlink(), f"{link} is a plain file: git config core.symlinks true, then check out again"
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / room

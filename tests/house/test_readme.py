"""What the README and CONTRIBUTING show exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A command in a code block or between backticks: `onestride train mvp`, .venv/bin/onestride demo.
COMMAND = re.compile(r"(?:^|[`\s/])onestride ([a-z][a-z-]*)")
TARGET = re.compile(r"(?:^|[`\s])make ([a-z][a-z-]*)")
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)|src=\"(?!https?://)([^\"]+)\"")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code(markdown: str) -> str:
    """Everything set as code: blocks without their comments, and what stands between backticks."""
    blocks = BLOCK.findall(markdown)
    spans = re.findall(r"`([^`\n]+)`", BLOCK.sub("", markdown))
    return "\n".join(line.partition(" #")[0] for part in (*blocks, *spans) for line in part.splitlines())


def lines_of(block: str) -> list[str]:
    """The commands of a block, without comments and prompts."""
    bare = (line.partition("#")[0].strip().removeprefix("$ ") for line in block.splitlines())
    return [line for line in bare if line]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))


def test_first_block_is_the_two_commands() -> None:
    first = BLOCK.search(text("README.md"))
    assert first, "README.md has no code block"
    assert lines_of(first.group(1)) == ["make demo", "make test"]


def test_every_command_exists() -> None:
    from onestride.deploy.cli import COMMANDS

    shown = set(COMMAND.findall(code(text("README.md"))))
    assert "demo" in shown, "README.md shows no onestride command"
    assert shown <= set(COMMANDS), f"unknown: {shown - set(COMMANDS)}, available: {sorted(COMMANDS)}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_exists(name: str) -> None:
    shown = set(TARGET.findall(code(text(name))))
    assert shown
    assert shown <= targets(), f"unknown: {shown - targets()}, available: {sorted(targets())}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_linked_file_exists(name: str) -> None:
    linked = [first or second for first, second in LINK.findall(text(name))]
    missing = [path for path in linked if not (ROOT / path).exists()]
    assert not missing


def test_contributing_fits_on_a_screen() -> None:
    assert len(text("CONTRIBUTING.md").splitlines()) <= 50


def test_the_reader_sees_what_it_looks_for() -> None:
    sample = "Run `onestride bench p.onnx`.\n\n```sh\n$ make demo  # onestride never\n.venv/bin/onestride run x\n```\n"
    assert set(COMMAND.findall(code(sample))) == {"bench", "run"}
    assert TARGET.findall(code(sample)) == ["demo"]
    assert lines_of("$ make demo  # all\n\nmake test\n") == ["make demo", "make test"]
    assert [first or second for first, second in LINK.findall('[a](docs/x.md) <img src="y.png"> [b](https://z)')] == [
        "docs/x.md",
        "y.png",
    ]

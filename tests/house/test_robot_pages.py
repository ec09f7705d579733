"""Every robot has a page, and what the pages tell people to type exists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from onestride.deploy.cli import COMMANDS, main
from onestride.hardware.description import available_robots, load_robot

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "robots"
STATUS = re.compile(r"^Status: `(simulated|adapter tested by message|run on hardware)`", re.MULTILINE)
COMMAND = re.compile(r"\bonestride ([a-z][a-z-]*)((?: +(?!#)[^\s`,;)]+)*)")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def shown(text: str) -> list[tuple[str, list[str]]]:
    """Commands in code, with their options."""
    code = [*re.findall(r"^ {4,}(.*)$", text, re.MULTILINE), *re.findall(r"`([^`\n]+)`", text)]
    return [(name, re.findall(r"--[a-z-]+", arguments)) for line in code for name, arguments in COMMAND.findall(line)]


@cache
def options_of(command: str) -> str:
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        main([command, "--help"])
    return said.getvalue()


def test_there_is_one_page_a_robot() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*available_robots(), "README"}


@pytest.mark.parametrize("name", available_robots())
def test_a_page_says_how_far_the_robot_is(name: str) -> None:
    status = STATUS.search(page(name))
    assert status, "expected a line `Status: ...`"
    (row,) = [line for line in page("README").splitlines() if line.startswith(f"| [{name}]")]
    assert f"`{status[1]}`" in row
    assert status[1] != "run on hardware", "change this test with the first robot that moves"


@pytest.mark.parametrize("name", [*available_robots(), "README"])
def test_what_a_page_shows_exists(name: str) -> None:
    commands = shown(page(name))
    assert commands
    for command, options in commands:
        assert command in COMMANDS
        for option in options:
            assert re.search(rf"{option}\b", options_of(command)), f"onestride {command} has no {option}"
    for link in LINK.findall(page(name)):
        assert (PAGES / link).exists(), link


@pytest.mark.parametrize("name", available_robots())
def test_drivers_that_a_page_names_are_the_robots(name: str) -> None:
    named = re.findall(r"--driver (\w+)|-p driver:=(\w+)", page(name))
    for driver in (one for pair in named for one in pair if one):
        assert driver in load_robot(name).drivers

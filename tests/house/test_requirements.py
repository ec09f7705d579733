"""The pins agree with each other, with what the package declares, and name no package twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    pytest.skip("tomllib came with Python 3.11", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
ROBOT = {"3.10": "robot-py310.txt", "3.12": "robot.txt"}
# Pinned to spare pip a long search, asked for by another requirement.
INDIRECT = {"etils"}
# One version per interpreter, told apart by markers.
PER_INTERPRETER = "robot-tests.txt"


def requirements(name: str) -> list[Requirement]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins(name: str) -> dict[str, str]:
    """Canonical name -> pinned version."""
    every = requirements(name)
    return {canonicalize_name(one.name): next(iter(one.specifier)).version for one in every}


def declared(extra: str | None = None) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(one) for one in (project["optional-dependencies"][extra] if extra else project["dependencies"])]


def extras() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(project["optional-dependencies"])


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "requirements").glob("*.txt")))
def test_every_requirement_is_pinned_exactly_and_once(name: str) -> None:
    every = requirements(name)
    assert every
    loose = [str(one) for one in every if [spec.operator for spec in one.specifier] != ["=="]]
    assert not loose
    if name != PER_INTERPRETER:
        assert len(pins(name)) == len(every)


@pytest.mark.parametrize("name", [*ROBOT.values(), "stage1.txt"])
def test_pins_satisfy_the_package(name: str) -> None:
    pinned = pins(name)
    for one in [*declared(), *declared("cpu")]:
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), f"{name}: {one}"


def test_robot_side_installs_nothing_else() -> None:
    needed = {canonicalize_name(one.name) for one in [*declared(), *declared("cpu")]}
    assert all(set(pins(name)) - INDIRECT == needed for name in ROBOT.values())


@pytest.mark.parametrize("extra", extras())
def test_developer_pins_satisfy_the_extra(extra: str) -> None:
    pinned = pins("stage1.txt") | pins("stage2.txt")
    missing = [str(one) for one in declared(extra) if canonicalize_name(one.name) not in pinned]
    assert not missing, f"expected a pin in stage1.txt for {missing}"
    wrong = [str(one) for one in declared(extra) if not one.specifier.contains(pinned[canonicalize_name(one.name)])]
    assert not wrong


def test_robot_and_developer_run_the_same_versions() -> None:
    developer = pins("stage1.txt")
    assert {name: developer[name] for name in pins("robot.txt")} == pins("robot.txt")


def test_stages_do_not_overlap() -> None:
    """A package of stage 2 in stage 1 would be resolved with the pins that stage 2 is there to avoid."""
    assert set(pins("stage1.txt")).isdisjoint(pins("stage2.txt"))

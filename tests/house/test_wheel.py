"""The built wheel: what is in it, and its command line in a clean environment."""

from __future__ import annotations

import re
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from .environments import Environment, build_wheel, create

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("hardware", "datasets", "policies", "deploy", "training")
ROS_PACKAGES = (
    "onestride_controller",
    "onestride_plant",
    "onestride_recorder",
    "onestride_watchdog",
    "onestride_drivers",
)
SHIPPED = (*(f"onestride/{room}" for room in ROOMS), *ROS_PACKAGES)


def sources(folder: Path, prefix: str) -> set[str]:
    """The files of a folder under their names in the wheel."""
    every = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in every}


def expected() -> set[str]:
    rooms = [sources(ROOT / room, f"onestride/{room}") for room in ROOMS]
    return set().union(*rooms, *(sources(ROOT / "ros_ws/src" / name / name, name) for name in ROS_PACKAGES))


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """Freshly built, because the tree is compared with it."""
    with zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("content"))) as archive:
        return frozenset(archive.namelist())


def test_wheel_holds_every_file_of_every_room_and_nothing_else(names: frozenset[str]) -> None:
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - metadata == expected()


def test_wheel_keeps_the_namespace_open(names: frozenset[str]) -> None:
    assert {"onestride/__init__.py", "onestride/datasets/__init__.py"}.isdisjoint(names)
    assert all(name.startswith(SHIPPED) or ".dist-info/" in name for name in names)


def test_wheel_holds_robots_types_and_licence(names: frozenset[str]) -> None:
    assert any(re.fullmatch(r"onestride/hardware/robots/\w+\.yaml", name) for name in names)
    assert {f"onestride/{room}/py.typed" for room in ROOMS} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with its own dependencies and onnxruntime, at the versions of the robot side."""
    environment = create(sys.executable, tmp_path_factory.mktemp("installed") / "venv")
    environment.install(f"onestride[cpu] @ {wheel.as_uri()}", "--constraint", ROOT / "requirements" / "robot.txt")
    return environment


def test_help_lists_the_commands(installed: Environment) -> None:
    done = installed.run("onestride", "--help")
    assert done.returncode == 0, done.stderr
    assert {"demo", "train", "export", "check", "bench", "run"} <= set(re.findall(r"\w+", done.stdout))


def test_version_is_the_distribution_version(installed: Environment) -> None:
    done = installed.run("onestride", "--version")
    assert done.returncode == 0, done.stderr
    assert version("onestride") in done.stdout


def test_unknown_command_lists_what_exists(installed: Environment) -> None:
    done = installed.run("onestride", "nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr
    assert {"demo", "train", "run"} <= set(re.findall(r"\w+", done.stderr))
    assert "Traceback" not in done.stderr


def test_command_without_its_extra_names_the_extra(installed: Environment) -> None:
    done = installed.run("onestride", "train", "mvp", "--data", "nowhere.zarr")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "onestride[train]" in done.stderr


@pytest.mark.parametrize("package", ROS_PACKAGES)
def test_node_without_ros_names_the_extra(installed: Environment, package: str) -> None:
    done = installed.run("python", "-m", package)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "onestride[ros]" in done.stderr

"""The ROS 2 workspace builds with colcon and installs what ROS looks for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WORKSPACE = Path(__file__).resolve().parents[2] / "ros_ws"
EXECUTABLES = {
    "onestride_controller": "controller",
    "onestride_plant": "plant",
    "onestride_recorder": "recorder",
    "onestride_watchdog": "watchdog",
    "onestride_drivers": "unitree",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The install space of `colcon build`, made from a copy so that the tree stays clean."""
    colcon = Path(sys.executable).with_name("colcon")
    if not colcon.exists():
        pytest.skip("colcon is not installed beside this Python (pip install colcon-common-extensions)")
    folder = tmp_path_factory.mktemp("ros_ws")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(WORKSPACE / "src", folder / "src", ignore=unwanted)
    done = subprocess.run([str(colcon), "build"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "install"


def test_every_package_is_covered() -> None:
    assert {path.parent.name for path in WORKSPACE.glob("src/*/package.xml")} == set(EXECUTABLES)


@pytest.mark.parametrize("package", EXECUTABLES)
def test_package_is_found_by_ros(installed: Path, package: str) -> None:
    share = installed / package / "share"
    assert (share / "ament_index/resource_index/packages" / package).is_file()
    assert (share / package / "package.xml").is_file()


@pytest.mark.parametrize(("package", "executable"), EXECUTABLES.items())
def test_package_installs_its_executable(installed: Path, package: str, executable: str) -> None:
    script = installed / package / "lib" / package / executable
    assert script.is_file()
    assert script.stat().st_mode & 0o100


@pytest.mark.parametrize("package", EXECUTABLES)
@pytest.mark.parametrize(("folder", "pattern"), [("launch", "*.py"), ("config", "*.yaml")])
def test_package_installs_launch_and_config(installed: Path, package: str, folder: str, pattern: str) -> None:
    source = WORKSPACE / "src" / package / folder
    share = installed / package / "share" / package / folder
    assert {path.name for path in share.glob("*")} == {path.name for path in source.glob(pattern)}

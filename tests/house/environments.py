"""The project's wheel, and clean virtual environments to put it in."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = ("NewConnectionError", "name resolution", "Network is unreachable", "ConnectTimeoutError", "ProxyError")
# A clean environment must not see the developer's: neither a sourced ROS 2 nor this interpreter's paths.
INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "AMENT_PREFIX_PATH", "LD_LIBRARY_PATH")


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in INHERITED}


@dataclass(frozen=True)
class Environment:
    """A virtual environment with nothing of the developer's in it."""

    path: Path

    def run(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of its programs from a folder that holds none of our packages."""
        command = [str(self.path / "bin" / program), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=self.path, env=clean_environment(), check=False
        )

    def python(self, source: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-c", source)

    def install(self, *arguments: str | Path) -> None:
        """`pip install`; skips the test where no package index answers."""
        done = self.run("python", "-m", "pip", "install", "--no-compile", "--retries", "1", *arguments)
        if done.returncode and any(sign in done.stdout + done.stderr for sign in OFFLINE):
            pytest.skip("no package index is reachable, and the clean environment is installed from it")
        assert done.returncode == 0, done.stderr


def create(python: str, path: Path) -> Environment:
    """An empty virtual environment of the given interpreter."""
    subprocess.run([python, "-m", "venv", str(path)], check=True, capture_output=True, env=clean_environment())
    return Environment(path)


def build_wheel(folder: Path) -> Path:
    """The project's wheel, built from the tree as it is now."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel

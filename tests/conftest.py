"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from onestride.hardware.scene import Scene

ROOT = Path(__file__).resolve().parents[1]

# Small networks on several threads wait for one another, above all where another process has one of the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure() -> None:
    """Take Ctrl-C again: a shell's background job ignores it, and so would every process that a test interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs nodes and plants against the clock: it would be late beside other tests."""
    for item in items:
        if {ROOT / "tests" / "ros", ROOT / "tests" / "demo"} & set(item.path.parents):
            item.add_marker(pytest.mark.alone)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real third-party data, outside the repository; tests that read it skip where it is absent."""
    path = Path(os.environ.get("ONESTRIDE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no shared test data at {path} (set ONESTRIDE_TEST_DATA)")
    return path


CUBE = "ogbench/cube-single-singletask-task2-v0"


@dataclass(frozen=True)
class SmallRun:
    """A whole chain in seconds: few demonstrations, few gradient steps, a real export."""

    data: Path
    run: Path
    policy: Path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Four demonstrations, sixty gradient steps, one exported file: real in kind, poor in skill."""
    pytest.importorskip("ogbench", reason="needs the extra `sim`")
    pytest.importorskip("torch", reason="needs the extra `train`")
    from onestride.deploy.cli import main

    folder = tmp_path_factory.mktemp("small")
    small = SmallRun(folder / "cube.zarr", folder / "run", folder / "policy.onnx")
    hidden = ["--hidden", "32", "32"]
    assert main(["collect", str(small.data), "--env", CUBE, "--episodes", "4", "--json"]) == 0
    assert main(["train", "mvp", "--data", str(small.data), "--run", str(small.run), "--steps", "60", *hidden]) == 0
    assert main(["export", str(small.run), "-o", str(small.policy)]) == 0
    return small


@pytest.fixture(scope="session")
def cube_scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The scene of the single-cube task, exported anew."""
    pytest.importorskip("ogbench", reason="needs the extra `sim`")
    from onestride.training.environments.ogbench_cube import make_cube
    from onestride.training.environments.scenes import export_scene

    environment = make_cube(CUBE)
    scene = export_scene(environment, tmp_path_factory.mktemp("scene") / "cube")
    environment.close()
    return scene

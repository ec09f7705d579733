"""`onestride doctor`: what is installed, and what is missing for which job."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onestride.deploy.cli import install_hint

#: Job -> the extra that installs it and the distributions it needs.
JOBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "run a policy (robot side)": ("cpu", ("numpy", "pydantic", "mujoco", "daqp", "PyYAML", "onnxruntime")),
    "train and export": ("train", ("torch", "safetensors", "zarr", "h5py", "onnx", "onnxscript", "tensorboard")),
    "OGBench environments": ("sim", ("ogbench", "gymnasium", "dm_control")),
    "robomimic environments": ("robomimic", ("robomimic", "robosuite", "six")),
    "LeRobot datasets": ("lerobot", ("lerobot", "datasets", "av")),
    "the ROS 2 node": ("ros", ("ros-jazzy-rclpy", "ros-jazzy-sensor-msgs", "ros-jazzy-lifecycle-msgs")),
}

#: Packages whose own pins are wrong: they are installed without their dependencies.
STAGE2 = ("robosuite==1.5.2", "robosuite-models==1.0.0", "robomimic==0.3.0", "torchvision==0.28.0", "lerobot==0.4.4")


@dataclass
class Doctor:
    """Tell what is installed, and what is missing for which job. Always exits with 0: it only looks."""

    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Look and report."""
        found = {job: {name: installed(name) for name in names} for job, (_, names) in JOBS.items()}
        if self.json:
            from onestride.deploy.commands import print_json

            print_json({"python": platform.python_version(), "machine": platform.machine(), "jobs": found})
        else:
            _print(found)
        return 0


def installed(distribution: str) -> str | None:
    """Version of an installed distribution; None if it is missing."""
    names = (distribution, "onnxruntime-gpu") if distribution == "onnxruntime" else (distribution,)
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _print(found: dict[str, dict[str, str | None]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"onestride {version('onestride')}, Python {platform.python_version()} on {platform.machine()}")
    table = Table(box=None, show_header=False, padding=(0, 1))
    for job, packages in found.items():
        missing = [name for name, number in packages.items() if number is None]
        have = ", ".join(f"{name} {number}" for name, number in packages.items() if number)
        mark = "[green]ready[/]" if not missing else "[yellow]missing[/]"
        table.add_row(mark, f"[bold]{job}[/]", have if not missing else ", ".join(missing))
        if missing:
            table.add_row("", "", _remedy(job))
    console.print(table)
    if shutil.which("colcon") is None and not (Path(sys.executable).parent / "colcon").exists():
        console.print("colcon is not installed; it is needed to build ros_ws as a workspace only")


def _remedy(job: str) -> str:
    extra, names = JOBS[job]
    stage2 = [pin for pin in STAGE2 if pin.partition("==")[0] in names]
    second = f", then pip install --no-deps {' '.join(stage2)}" if stage2 else ""
    return f"{install_hint(extra)}{second}".replace("[", "\\[")

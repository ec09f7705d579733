"""`onestride doctor`: what is installed, what this machine permits, and what a robot says against a contract."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from onestride.deploy.cli import install_hint
from onestride.deploy.doctor.answers import Answer, Level, failed
from onestride.deploy.rooms import load
from onestride.hardware.errors import OneStrideError, unknown

if TYPE_CHECKING:
    from onestride.deploy.doctor.live import Heard
    from onestride.hardware.description import RobotDescription

#: Imported, not looked up: the operating system's ROS 2 serves as well as the extra's wheels.
ROS = ("rclpy", "sensor_msgs", "diagnostic_msgs", "geometry_msgs", "std_srvs", "lifecycle_msgs", "trajectory_msgs")

#: Job -> the extra that installs it, and what it needs: distributions, or Python packages that are imported.
JOBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "run a policy (robot side)": ("cpu", ("numpy", "pydantic", "mujoco", "daqp", "PyYAML", "onnxruntime")),
    "train and export": ("train", ("torch", "safetensors", "zarr", "h5py", "onnx", "onnxscript", "tensorboard")),
    "OGBench environments": ("sim", ("ogbench", "gymnasium", "dm_control")),
    "robomimic environments": ("robomimic", ("robomimic", "robosuite", "six")),
    "LeRobot datasets": ("lerobot", ("pyarrow", "av")),
    "rosbag2 and MCAP files": ("rosbag", ("rosbags", "mcap", "lz4")),
    "video in stores": ("video", ("av",)),
    "stores in Rerun": ("rerun", ("rerun-sdk",)),
    "sweeps on a cluster": ("ray", ("ray",)),
    "other precisions in bench": ("bench", ("onnx",)),
    "the ROS 2 node": ("ros", ROS),
}

#: Distribution -> those that hold the same package.
OTHER_NAMES = {"onnxruntime": ("onnxruntime-gpu",)}

#: Packages whose own pins are wrong: they are installed without their dependencies.
STAGE2 = ("robosuite==1.5.2", "robomimic==0.3.0")

MARKS = {Level.PASS: "[green]pass[/]", Level.WARN: "[yellow]warn[/]", Level.FAIL: "[red]FAIL[/]"}


@dataclass
class Doctor:
    """Tell what is installed, what this machine permits, and, with a policy, what the robot says against its contract.

    It only looks: nothing is published on a command topic. Exits with 1 where the job or the policy that is asked
    about is not ready.
    """

    policy: Annotated[Path | None, tyro.conf.Positional] = None
    """Policy file: listen to the robot's topics and judge them by its contract."""
    contract: Path | None = None
    """Contract file of a policy that carries none, or the name of one that comes with onestride."""
    job: str | None = None
    """Exit with 1 unless this is ready: cpu, train, sim, robomimic, lerobot, rosbag, video, rerun, ray, bench, ros."""
    robot: str | None = None
    """Robot description, by id or YAML file; default the contract's."""
    scene: Path | None = None
    """Folder of a scene with the robot's model; default the contract's, where it was exported."""
    model: Path | None = None
    """MuJoCo XML of the robot, for one whose model no installed package has."""
    namespace: str = ""
    """ROS namespace of the robot's topics."""
    listen: float = 3.0
    """How long to listen [s]."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Look and report."""
        extras = {extra: job for job, (extra, _) in JOBS.items()}
        if self.job is not None and self.job not in extras:
            raise unknown("job", self.job, extras)
        if self.contract is not None and self.policy is None:
            raise OneStrideError("--contract: expected the policy, too: onestride doctor policy.onnx --contract FILE")
        found = {job: {name: installed(name) for name in names} for job, (_, names) in JOBS.items()}
        ready = self.job is None or all(found[extras[self.job]].values())
        system, robot = self._system(), self._robot()
        if self.json:
            self._print_json(found, system, robot)
        else:
            _print(found)
            print_answers("this machine", system)
            if robot:
                print_answers("the robot", robot)
        return 0 if ready and not failed(robot) else 1

    def _system(self) -> list[Answer]:
        from onestride.deploy.doctor.system import system_answers

        return system_answers()

    def _robot(self) -> list[Answer]:
        return [] if self.policy is None else examine(self)

    def _print_json(self, found: dict[str, dict[str, str | None]], system: list[Answer], robot: list[Answer]) -> None:
        from onestride.deploy.commands import print_json

        about: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine(), "jobs": found}
        about["system"] = [answer.to_json() for answer in system]
        if self.policy is not None:
            about["robot"] = [answer.to_json() for answer in robot]
            about["passed"] = not failed(robot)
        print_json(about)


def examine(doctor: Doctor) -> list[Answer]:
    """Listen to the robot of a policy, and judge what is heard."""
    from onestride.deploy.doctor.live import judge_commands, judge_policy, judge_streams
    from onestride.deploy.kinematics import ForwardKinematics
    from onestride.deploy.runtime import PolicyRuntime
    from onestride.hardware.description import load_robot

    if doctor.policy is None or not 0 < doctor.listen <= 600:
        raise OneStrideError(f"expected a policy and to listen for up to 600 s, got {doctor.policy}, {doctor.listen}")
    policy = PolicyRuntime(doctor.policy, contract=doctor.contract)
    contract = policy.contract
    if contract.robot is None:
        raise OneStrideError(f"{doctor.policy} names no robot (actions as in its dataset): no robot can run it")
    robot = load_robot(doctor.robot or contract.robot.id)
    forward = ForwardKinematics.load(_model(doctor, contract.environment, robot), robot)
    heard = _listen(doctor, contract, robot)
    return [
        *judge_streams(contract, robot, heard),
        *judge_commands(heard),
        *judge_policy(policy, robot, forward, heard),
    ]


def _model(doctor: Doctor, environment: str | None, robot: RobotDescription) -> Path:
    from onestride.hardware.models import robot_scene
    from onestride.hardware.scene import Scene, find_scene

    if doctor.scene is not None:
        return Scene.load(doctor.scene).model_path
    if environment is None or robot.base is not None:
        return robot_scene(robot, doctor.model).model_path
    return find_scene(environment).model_path


def _listen(doctor: Doctor, contract: Any, robot: RobotDescription) -> Heard:
    listening = "onestride_controller.listening"
    with load(f"{listening}:listening_node", "ros")(doctor.namespace) as node:
        heard: Heard = load(f"{listening}:listen", "ros")(node, contract, robot, doctor.listen)
    return heard


def installed(name: str) -> str | None:
    """Version of an installed distribution, or of a ROS package that can be imported; None if it is missing."""
    if name in ROS and not _imports(name):
        return None
    for distribution in (name, *OTHER_NAMES.get(name, ()), f"ros-jazzy-{name.replace('_', '-')}"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "found" if name in ROS else None


def _imports(package: str) -> bool:
    """Whether a ROS package is there, and made for this Python."""
    try:
        load(f"{package}:__name__", JOBS["the ROS 2 node"][0])
    except (ImportError, OneStrideError):
        return False
    return True


def print_answers(title: str, answers: list[Answer]) -> None:
    """A line for each answer."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 1))
    for _ in range(3):
        table.add_column(overflow="fold")
    for answer in answers:
        table.add_row(MARKS[answer.level], f"[bold]{escape(answer.question)}[/]", escape(answer.detail))
    console = Console()
    console.print(f"\n[bold]{title}[/]")
    console.print(table)


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

"""`onestride calibrate-latency`: how long a robot takes, measured and written beside its description."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from onestride.deploy.commands_real import GateOptions, ask, need_a_person, say
from onestride.deploy.rooms import load
from onestride.hardware.errors import OneStrideError

if TYPE_CHECKING:
    from onestride.hardware.latency import Latency


@dataclass
class CalibrateLatency:
    """Move one joint of a robot a little, through its safety chain, and measure the delays.

    From the joint state to the command that is made from it, and from the command to the joint's motion. Without
    `--real` a plant is started for it, confined to this machine; with it, the robot's driver is talked to behind the
    gate of `onestride run --real`. The figures go into an overlay, a file of their own beside the robot's description.
    """

    robot: str = "ur5e_2f85"
    """Robot description, by id or YAML file."""
    scene: Path | None = None
    """Folder of a scene with the robot in it; default the robot alone on a floor."""
    out: Path | None = None
    """Overlay to write; default ROBOT.latency.yaml in this folder."""
    joint: str | None = None
    """Joint to move; default the last one with a speed limit."""
    amplitude: float = 0.02
    """How far it moves [rad], at most 0.05."""
    seconds: float = 10.0
    """How long it goes to and fro [s]."""
    plant: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
    """Further argument of the plant, such as --plant=--latency --plant=0.02."""
    logs: Path = Path("runs/calibrate/log")
    """Folder for the processes' logs."""
    robot_options: GateOptions = field(default_factory=GateOptions)
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Measure, write and print."""
        from onestride.hardware.description import load_robot
        from onestride.hardware.latency import RobotOverlay, write_overlay

        if not 3.0 <= self.seconds <= 600.0:
            raise OneStrideError(f"expected 3 to 600 seconds, got {self.seconds:g}")
        robot = load_robot(self.robot).id
        latency = self._measured()
        path = self.out or Path(f"{robot}.latency.yaml")
        write_overlay(path, RobotOverlay(overlay_of=robot, latency=latency))
        self._print(latency, path)
        return 0

    def _measured(self) -> Latency:
        calibrating, options = "onestride_controller.calibrating", self.robot_options
        wanted = load(f"{calibrating}:Calibration", "ros")(
            robot=self.robot,
            scene=self._scene(),
            logs=self.logs,
            joint=self.joint,
            amplitude=self.amplitude,
            seconds=self.seconds,
            plant=tuple(self.plant),
        )
        found: Latency
        if options.real:
            need_a_person()
            terms = load("onestride_controller.real:Terms", "ros")(
                options.driver, options.namespace, options.speed, options.deadman
            )
            found = load(f"{calibrating}:calibrate_real", "ros")(wanted, terms, say, ask)
        else:
            found = load(f"{calibrating}:calibrate", "ros")(wanted)
        return found

    def _scene(self) -> Path:
        from onestride.hardware.description import load_robot
        from onestride.hardware.models import robot_scene

        return self.scene if self.scene is not None else robot_scene(load_robot(self.robot)).folder

    def _print(self, latency: Latency, path: Path) -> None:
        from rich.console import Console

        from onestride.deploy.commands import print_json

        if self.json:
            print_json({**latency.model_dump(mode="json"), "file": str(path)})
            return
        console = Console(highlight=False, soft_wrap=True)
        console.print(
            f"sensor to command: p50 {latency.sensor_to_command * 1e3:.1f}, "
            f"p99 {latency.sensor_to_command_p99 * 1e3:.1f} ms at {latency.control_rate:g} Hz"
        )
        console.print(
            f"command to motion of {latency.joint}: {latency.command_to_motion * 1e3:.1f} ms, give or take "
            f"{latency.command_to_motion_spread * 1e3:.1f} ms, then a lag of {latency.drive_lag * 1e3:.0f} ms "
            f"({latency.explained:.1%} of the motion explained)"
        )
        console.print(f"{'simulated; ' if latency.simulated else ''}written to {path}")

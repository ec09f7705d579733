"""`onestride scene`: what the plant simulates, of an environment or of a robot alone on a floor."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from onestride.deploy.rooms import load
from onestride.hardware.errors import OneStrideError

if TYPE_CHECKING:
    from onestride.hardware.scene import Scene


@dataclass
class ExportScene:
    """Export a scene for the plant: an environment's with its episode starts, or a robot's, alone on a floor."""

    env: Annotated[str | None, tyro.conf.Positional] = None
    """Environment id."""
    robot: str | None = None
    """Instead of an environment: a robot description, by id or YAML file."""
    model: Path | None = None
    """The robot's MuJoCo XML; default what its description names."""
    friction: float = 0.8
    """Sliding friction of floor and feet."""
    folder: Path | None = None
    """Where the robot's scene goes; default the user's cache."""
    starts: int = 20
    """Episode starts to keep with an environment's scene."""
    seed: int = 1_000_000
    """Seed of the first start."""
    json: bool = False
    """Print JSON and nothing else on the standard output."""

    def __call__(self) -> int:
        """Export and print the folder."""
        scene = self._scene()
        if self.json:
            from onestride.deploy.commands import print_json

            print_json({"scene": str(scene.folder), "robot": scene.description.robot})
        else:
            sys.stdout.write(f"scene of {scene.description.environment} ({scene.description.source}): {scene.folder}\n")
        return 0

    def _scene(self) -> Scene:
        if (self.env is None) == (self.robot is None):
            raise OneStrideError("expected one of both: onestride scene ENVIRONMENT, or onestride scene --robot ID")
        if self.robot is not None:
            from onestride.hardware.description import load_robot
            from onestride.hardware.models import robot_scene

            return robot_scene(load_robot(self.robot), self.model, friction=self.friction, folder=self.folder)
        if self.model is not None or self.folder is not None:
            raise OneStrideError("expected --model and --folder with --robot only: an environment brings its own model")
        scene: Scene = load("onestride.training.environments.scenes:prepare_scene", "sim")(
            self.env, self.starts, self.seed
        )
        return scene

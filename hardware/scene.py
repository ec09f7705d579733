"""A simulated scene on disk: a MuJoCo model, what is tracked in it, when it is solved, and how episodes start."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import Model, Positive, explain
from onestride.hardware.state import Array

SCENE_FILE = "scene.json"
STARTS_FILE = "starts.json"


def scene_folder(environment: str, source: str) -> Path:
    """Where the scene of an environment is kept: in the user's cache, apart for every package version."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"{environment}-{source}".replace("/", "_").replace(" ", "-")
    return cache / "onestride" / "scenes" / name


def find_scene(environment: str) -> Scene:
    """The scene of an environment that was exported on this machine, the newest where several versions exist.

    Raises:
        OneStrideError: none was exported.
    """
    pattern = scene_folder(environment, "*")
    found = [path for path in pattern.parent.glob(pattern.name) if (path / SCENE_FILE).is_file()]
    if not found:
        raise OneStrideError(f"no scene of {environment} on this machine; make it: onestride scene {environment}")
    return Scene.load(max(found, key=lambda path: path.stat().st_mtime))


class TrackedObject(Model):
    """A free body whose pose is published.

    Attributes:
        joint: its free joint in the MuJoCo model.
    """

    joint: str


class ContactSensor(Model):
    """A contact reading: `clip(|external wrench on body| / full_scale, 0, 1)`.

    Attributes:
        body: MuJoCo body that feels the wrench.
        full_scale: wrench norm that reads 1.
    """

    body: str
    full_scale: Positive


class ObjectAtTarget(Model):
    """Solved when an object's origin is within `tolerance` [m] of a mocap target's."""

    object: str
    target_body: str
    tolerance: Positive


class SceneDescription(Model):
    """The content of `scene.json`.

    Attributes:
        schema_version: version of this format.
        environment: the environment the scene was exported from.
        source: package and version that defined it.
        robot: id of the robot description in it.
        model: MuJoCo XML file, relative to the scene's folder.
        physics_timestep: [s].
        control_period: period at which the environment judges success [s].
        horizon: steps of `control_period` before an episode counts as failed.
        judged: whether the environment judges success `before` or `after` it takes an action; `before` leaves
            the state after the last action unjudged.
        objects: tracked objects by name.
        contacts: contact sensors by name.
        success: all of these must hold at once.
        camera: the camera films are taken from.
    """

    schema_version: int = Field(1, ge=1, le=1)
    environment: str
    source: str
    robot: str
    model: str
    physics_timestep: Positive
    control_period: Positive
    horizon: int = Field(gt=0)
    judged: Literal["before", "after"] = "after"
    objects: dict[str, TrackedObject]
    contacts: dict[str, ContactSensor]
    success: tuple[ObjectAtTarget, ...]
    camera: str | None = None

    @property
    def last_judged(self) -> int:
        """The last control period whose end is judged."""
        return self.horizon - (1 if self.judged == "before" else 0)

    @property
    def substeps(self) -> int:
        """Physics steps in one control period."""
        return round(self.control_period / self.physics_timestep)


class Scene:
    """A scene's folder: its description and the path of its model."""

    def __init__(self, folder: Path, description: SceneDescription) -> None:
        self.folder = folder
        self.description = description

    @property
    def model_path(self) -> Path:
        """The MuJoCo XML file."""
        return self.folder / self.description.model

    @property
    def starts_path(self) -> Path | None:
        """Episode starts that came with the scene; None where there are none."""
        path = self.folder / STARTS_FILE
        return path if path.is_file() else None

    @classmethod
    def load(cls, folder: str | Path) -> Scene:
        """Read a scene's folder.

        Raises:
            OneStrideError: the folder is not a scene, or its description or model is unreadable.
        """
        folder = Path(folder)
        path = folder / SCENE_FILE
        if not path.is_file():
            makes = "`onestride scene ENVIRONMENT` or `onestride scene --robot ID`"
            raise OneStrideError(f"not a scene: expected {path}; export one with {makes}")
        try:
            description = SceneDescription.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise OneStrideError(f"{path}: {explain(error)}") from None
        scene = cls(folder, description)
        if not scene.model_path.is_file():
            raise OneStrideError(f"{path}: expected the model {scene.model_path}, which does not exist")
        return scene


def write_scene(folder: Path, write: Callable[[Path], None]) -> Scene:
    """The scene in `folder`, written first if it is not there; nobody ever sees half of it.

    Args:
        folder: of the scene.
        write: writes its files into the folder that it is given.
    """
    if not (folder / SCENE_FILE).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".staging-"))
        try:
            write(staging)
            staging.chmod(0o755)  # mkdtemp makes it private
            _publish(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Scene.load(folder)


def _publish(staging: Path, folder: Path) -> None:
    try:
        staging.replace(folder)
    except OSError:
        if not (folder / SCENE_FILE).is_file():  # otherwise another process was faster: its scene is the same
            raise


def save_starts(path: str | Path, seeds: list[int], states: Array) -> None:
    """Write episode starts: one full MuJoCo state (E, S) per seed."""
    content = {"seeds": seeds, "states": np.asarray(states).tolist()}
    Path(path).write_text(json.dumps(content), encoding="utf-8")


def load_starts(path: str | Path) -> tuple[list[int], Array]:
    """Read episode starts written by `save_starts`.

    Raises:
        OneStrideError: the file is missing or is not a table of states.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        seeds, states = list(content["seeds"]), np.asarray(content["states"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OneStrideError(f"{path}: expected episode starts, got: {error}") from None
    if states.ndim != 2 or len(states) != len(seeds) or not np.isfinite(states).all():
        raise OneStrideError(f"{path}: expected {len(seeds)} finite states, got an array of shape {states.shape}")
    return seeds, states

"""Read a robot's MuJoCo model from where its description says, with the meshes that are at hand."""

from __future__ import annotations

import os
import shutil
from importlib import metadata, util
from pathlib import Path
from typing import Any

import mujoco

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.sources import MenagerieModel, PackagedModel

#: MuJoCo shows groups up to this one, unless told otherwise.
SHOWN = 2


def model_file(robot: RobotDescription, given: Path | None = None) -> Path:
    """The XML file of the robot's model.

    Args:
        robot: the robot.
        given: the user's own file, before any other.

    Raises:
        OneStrideError: there is none, or its package or checkout is not installed.
    """
    if given is not None:
        return _existing(given, f"model of {robot.id}")
    source = robot.model
    if isinstance(source, PackagedModel):
        return _existing(_package(source.package) / source.file, f"model of {robot.id} in {source.package}")
    if isinstance(source, MenagerieModel):
        root = os.environ.get("MENAGERIE_ROOT")
        if not root:
            raise OneStrideError(
                f"robot {robot.id}: expected MENAGERIE_ROOT, the path of a checkout of MuJoCo Menagerie, got none"
            )
        return _existing(Path(root) / source.menagerie, f"model of {robot.id} in MENAGERIE_ROOT")
    raise OneStrideError(f"robot {robot.id}: no package has its model; give its MuJoCo XML: --model PATH")


def model_origin(robot: RobotDescription, given: Path | None = None) -> str:
    """What the model is of, for people: a package and its version, or a file's name."""
    if given is None and isinstance(robot.model, PackagedModel):
        return f"{robot.model.package} {metadata.version(robot.model.package)}"
    return model_file(robot, given).name


def read_model(file: Path, assets: Path, label: str) -> mujoco.MjSpec:
    """A model whose meshes and textures were copied to `assets`, under names that begin with `label`.

    What only the eye needs and is not there is left out: meshes of geoms that touch nothing.

    Raises:
        OneStrideError: MuJoCo cannot read the file, or a mesh that touches something is missing.
    """
    try:
        spec = mujoco.MjSpec.from_file(str(file))
    except ValueError as error:
        raise OneStrideError(f"{file}: MuJoCo refuses the model: {error}") from None
    missing = [mesh for mesh in spec.meshes if not _copied(mesh, file.parent / spec.meshdir, assets, label)]
    for mesh in missing:
        _leave_out(spec, mesh, file)
    _show(spec, solids=bool(missing))
    for texture in spec.textures:
        if texture.file and not _copied(texture, file.parent / spec.texturedir, assets, label):
            raise OneStrideError(f"{file}: texture {texture.name} is missing: {texture.file}")
    spec.meshdir = spec.texturedir = f"{assets}/"
    return spec


def mounted(robot: RobotDescription, spec: mujoco.MjSpec, assets: Path) -> mujoco.MjSpec:
    """The robot with its tool and its names' prefix."""
    source = robot.model
    if isinstance(source, PackagedModel) and source.tool is not None:
        tool = read_model(_package(source.package) / source.tool.file, assets, "tool")
        spec.attach(tool, site=spec.site(source.tool.site), prefix=source.tool.prefix)
    if not source.prefix:
        return spec
    whole = mujoco.MjSpec()
    whole.meshdir = whole.texturedir = f"{assets}/"
    whole.compiler.degree, whole.compiler.autolimits = False, True
    whole.option = spec.option
    whole.attach(spec, frame=whole.worldbody.add_frame(), prefix=source.prefix)
    return whole


def _package(name: str) -> Path:
    found = util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise OneStrideError(f"this robot's model is in the Python package {name}, which is not installed")
    return Path(found.submodule_search_locations[0])


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise OneStrideError(f"{what}: expected a file, got {path}")
    return path


def _copied(asset: Any, folder: Path, assets: Path, label: str) -> bool:
    source = folder / asset.file
    if not source.is_file():
        return False
    name = f"{label}-{asset.name or source.stem}{source.suffix}"
    shutil.copyfile(source, assets / name)
    if not asset.name:
        asset.name = source.stem
    asset.file = name
    return True


def _leave_out(spec: mujoco.MjSpec, mesh: Any, file: Path) -> None:
    name = mesh.name or Path(mesh.file).stem
    for geom in list(spec.geoms):
        if geom.meshname == name:
            if geom.contype or geom.conaffinity:
                raise OneStrideError(f"{file}: mesh {name}, which touches things, is missing: {mesh.file}")
            spec.delete(geom)
    spec.delete(mesh)


def _show(spec: mujoco.MjSpec, solids: bool) -> None:
    """Show either the meshes for the eye or, where some are missing, the solids behind them."""
    eyes = [geom for geom in spec.geoms if not geom.contype and not geom.conaffinity and geom.meshname]
    for geom in spec.geoms:
        if solids:
            geom.group = min(geom.group, SHOWN)
        elif eyes and (geom.contype or geom.conaffinity):
            geom.group = SHOWN + 1

"""A robot's MuJoCo model without what kinematics never asks for: pictures, meshes for the eye, sensors.

Those are nine tenths of a model's memory, and most of the time that it takes to load. Meshes are left out before
MuJoCo reads their files. Frames, axes, joints and masses stay what they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco

from onestride.deploy.safety.capsules import add_capsules, capsules_of, collision_rows
from onestride.hardware.description import RobotDescription


def needs_solids(robot: RobotDescription) -> bool:
    """Whether a robot's safety asks for the shapes that may touch."""
    return bool(collision_rows(robot))


def kinematic_model(path: Path, robot: RobotDescription, *, solids: bool = True) -> mujoco.MjModel:
    """Compile the model of an XML file, with the capsules that the robot's safety declares.

    Args:
        path: the MuJoCo XML file.
        robot: that is in it.
        solids: keep the meshes that may touch something; only collision rows ask for them.

    Raises:
        OneStrideError: the model has no body that a capsule is declared for.
        ValueError: MuJoCo refuses the model.
    """
    spec = mujoco.MjSpec.from_file(str(path))
    _leave_out_references(spec)
    _leave_out_pictures(spec)
    _leave_out_meshes(spec, robot, solids)
    add_capsules(spec, path.name, capsules_of(robot))
    return spec.compile()


def _leave_out_references(spec: mujoco.MjSpec) -> None:
    """Sensors and pairs of contacts name geoms, and a model is refused in which one of these is missing."""
    for one in [*spec.sensors, *spec.pairs]:
        spec.delete(one)


def _leave_out_pictures(spec: mujoco.MjSpec) -> None:
    for material in spec.materials:
        material.textures = [""] * len(material.textures)
    for one in [*spec.textures, *spec.skins]:
        spec.delete(one)


def _leave_out_meshes(spec: mujoco.MjSpec, robot: RobotDescription, solids: bool) -> None:
    feet = {foot.geom for foot in robot.base.feet} if robot.base else set()
    for geom in list(spec.geoms):
        solid = bool(geom.contype or geom.conaffinity)
        if geom.meshname and geom.name not in feet and not (solids and solid) and _weightless(spec, geom):
            spec.delete(geom)
    used = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if _name(mesh) not in used:
            spec.delete(mesh)


def _weightless(spec: mujoco.MjSpec, geom: Any) -> bool:
    """Whether a shape adds nothing to its body's mass: the body states its own, or it is the world."""
    body, always = geom.parent, mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE
    stated = bool(body.explicitinertial) and spec.compiler.inertiafromgeom != always
    return stated or bool(body == spec.worldbody)


def _name(mesh: Any) -> str:
    """A mesh without a name is called as its file."""
    return str(mesh.name or Path(mesh.file).stem)

"""Simple shapes that a robot's description puts in place of a model's own geometry, added before it is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mujoco

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import unknown
from onestride.hardware.safety.chain import ProjectionFilter
from onestride.hardware.safety.geometry import Capsule, CollisionRow

#: What the names of added geometry begin with.
ADDED = "onestride_capsule_"


def capsules_of(robot: RobotDescription) -> tuple[Capsule, ...]:
    """The capsules that a robot's safety declares."""
    projections = (terms for terms in robot.safety if isinstance(terms, ProjectionFilter))
    rows = (row for terms in projections for row in terms.rows if isinstance(row, CollisionRow))
    return tuple(capsule for row in rows for capsule in row.capsules)


def model_with_capsules(path: Path, capsules: Sequence[Capsule]) -> mujoco.MjModel:
    """Compile the model of an XML file, with capsules added to its bodies; nothing else changes.

    Raises:
        OneStrideError: the model has no such body.
        ValueError: MuJoCo refuses the model.
    """
    if not capsules:
        return mujoco.MjModel.from_xml_path(str(path))
    spec = mujoco.MjSpec.from_file(str(path))
    for index, capsule in enumerate(capsules):
        body = spec.body(capsule.body)
        if body is None:
            raise unknown(f"body for a capsule in {path.name}", capsule.body, [one.name for one in spec.bodies])
        _add(body, f"{ADDED}{index}", capsule)
    return spec.compile()


def _add(body: mujoco.MjsBody, name: str, capsule: Capsule) -> None:
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[*capsule.start, *capsule.end],
        size=[capsule.radius, 0.0, 0.0],
        contype=0,
        conaffinity=0,
        mass=0.0,
        group=5,
    )

"""Simple shapes that a robot's description puts in place of a model's own geometry, added before it is compiled."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco

from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import unknown
from onestride.hardware.safety.chain import ProjectionFilter
from onestride.hardware.safety.geometry import Capsule, CollisionRow

#: What the names of added geometry begin with.
ADDED = "onestride_capsule_"


def collision_rows(robot: RobotDescription) -> tuple[CollisionRow, ...]:
    """The rows of a robot's safety that keep shapes apart."""
    projections = (terms for terms in robot.safety if isinstance(terms, ProjectionFilter))
    return tuple(row for terms in projections for row in terms.rows if isinstance(row, CollisionRow))


def capsules_of(robot: RobotDescription) -> tuple[Capsule, ...]:
    """The capsules that a robot's safety declares."""
    return tuple(capsule for row in collision_rows(robot) for capsule in row.capsules)


def add_capsules(spec: mujoco.MjSpec, model: str, capsules: Sequence[Capsule]) -> None:
    """Put capsules on the bodies of a model that is not compiled yet; nothing else changes.

    Args:
        spec: the model.
        model: what it is called.
        capsules: to add.

    Raises:
        OneStrideError: the model has no such body.
    """
    for index, capsule in enumerate(capsules):
        body = spec.body(capsule.body)
        if body is None:
            raise unknown(f"body for a capsule in {model}", capsule.body, [one.name for one in spec.bodies])
        _add(body, f"{ADDED}{index}", capsule)


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

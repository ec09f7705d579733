"""In the simulator, on its drives and with its contacts: an arm that is driven into things stays clear of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from geometry_samples import HOME, PERIOD, ROBOT, Geometry, Pushed

from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.apart import Clearing
from onestride.hardware.plant import Plant
from onestride.hardware.safety.chain import ProjectionFilter
from onestride.hardware.safety.geometry import CollisionRow, WorkspaceRow
from onestride.hardware.safety.joints import JointRows
from onestride.hardware.scene import Scene
from onestride.hardware.state import Array

BALL = WorkspaceRow.model_validate(
    {
        "frames": {"pinch": 0.03},
        "spheres": [{"name": "ball", "centre": [0.49, 0.4, 0.3], "radius": 0.12}],
        "margin": 0.02,
    }
)
FREE = WorkspaceRow.model_validate({"frames": {"pinch": 0.0}, "inside": [[-2, -2, -2], [2, 2, 2]]})
#: The hand with its fingers, which are no part of the claim themselves.
HAND = CollisionRow.model_validate(
    {
        "capsules": [{"body": "ur5e/robotiq/base", "from": [0, 0, 0.02], "to": [0, 0, 0.1], "radius": 0.08}],
        "ignore": [["ur5e/robotiq/base", "ur5e/wrist_1_link"]],
        "margin": 0.02,
    }
)


@pytest.fixture(scope="module")
def with_hand(cube_scene: Scene) -> ForwardKinematics:
    """Kinematics of the scene with the hand's capsule in it."""
    projection = ProjectionFilter(rows=(JointRows(), HAND))
    return ForwardKinematics.load(cube_scene.model_path, ROBOT.model_copy(update={"safety": (projection,)}))


@dataclass
class Drive:
    """What was seen of an arm that was driven.

    Attributes:
        nearest: smallest measured distance, less the margin [m].
        touches: contacts of the robot with itself and with what stands still.
    """

    nearest: float = float("inf")
    touches: int = 0


def driven(plant: Plant, watched: Clearing, nominals: list[Array], pushed: Pushed) -> Drive:
    """Send what is certified to the plant, and look at where the arm really is."""
    plant.reset()
    seen = Drive()
    for nominal in nominals:
        plant.command(pushed.push(nominal))
        plant.step(round(PERIOD / plant.scene.physics_timestep))
        measured = plant.read().position
        seen.nearest = min(seen.nearest, float(watched.at(measured[None]).distance.min()))
        seen.touches += sum(_is_touch(plant, contact) for contact in plant.data.contact)
    assert pushed.refusals == {}
    return seen


def _is_touch(plant: Plant, contact: Any) -> bool:
    names = [plant.model.body(plant.model.geom_bodyid[geom]).name for geom in contact.geom]
    fingers = all("robotiq" in name for name in names)
    return any(name.startswith("ur5e/") for name in names) and not fingers and "object_0" not in names


def at_once(*changes: tuple[int, float]) -> list[Array]:
    """A jump of some joints, asked for at once, and time to get there."""
    target = HOME.copy()
    for joint, change in changes:
        target[joint] += change
    return [target] * 300


CRASHES = {
    "into the table": (FREE, at_once((1, 1.2)), "collision"),
    "into itself": (FREE, at_once((2, 1.4)), "collision"),
    "into the ball": (BALL, at_once((0, 1.5)), "workspace"),
}


@pytest.mark.parametrize("crash", CRASHES)
def test_an_arm_that_is_driven_into_something_stays_clear(plant, with_hand, crash):
    """By the stated margin, of which the drives' lag may use its part; without the rows it touches."""
    workspace, nominals, watched = CRASHES[crash]
    geometry = Geometry(with_hand, workspace_terms=workspace, collision_terms=HAND)
    clearing = geometry.workspace if watched == "workspace" else geometry.collision
    kept = driven(plant, clearing, nominals, pushed := Pushed(geometry.sources()))
    assert min(pushed.least.values()) > -1e-6, "a command broke the claim"
    assert kept.nearest > -0.02, "the measured arm used up the margin"
    assert kept.nearest < 0.03, "it was driven that far"
    assert kept.touches == 0
    free = driven(plant, clearing, nominals, Pushed([]))
    assert free.nearest < -0.02, "else this would show nothing"
    assert watched == "workspace" or free.touches > 0

"""Distances of meshes are true, also of those that MuJoCo takes for touching: a plane between them is the witness."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from panda_scene import panda_scene

from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.braking import Path
from onestride.deploy.safety.clearance import least
from onestride.deploy.safety.collision import Collision
from onestride.deploy.safety.distance import NUDGE, geom_distance
from onestride.deploy.safety.frames import Frames
from onestride.hardware.description import load_robot
from onestride.hardware.safety.geometry import CollisionRow
from onestride.hardware.state import Array

mujoco: Any = import_module("mujoco")  # its compiled modules declare no types
FAR = 1.0


@pytest.fixture(scope="module")
def arm(tmp_path_factory) -> Collision:
    pytest.importorskip("robosuite", reason="needs requirements/stage2.txt")
    scene, robot = panda_scene(tmp_path_factory.mktemp("panda") / "scene"), load_robot("panda")
    return Collision(CollisionRow(margin=0.005), Frames(ForwardKinematics.load(scene.model_path, robot)))


def corners(arm: Collision, geom: int) -> Array:
    """Of a mesh, in the world (k, 3) [m]."""
    model, data = arm._frames.model, arm._frames.data
    first, count = (int(part[model.geom_dataid[geom]]) for part in (model.mesh_vertadr, model.mesh_vertnum))
    return model.mesh_vert[first : first + count] @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]


def clear_along(arm: Collision, pair: tuple[int, int], ends: Array) -> float:
    """How far apart two planes across the way between two points are, with one mesh behind each [m].

    No distance is smaller, and along the way between the nearest points it is the distance.
    """
    way = (ends[3:] - ends[:3]) / np.linalg.norm(ends[3:] - ends[:3])
    return float((corners(arm, pair[1]) @ way).min() - (corners(arm, pair[0]) @ way).max())


def test_meshes_that_are_apart_are_never_said_to_touch(arm):
    rng, ends, wrong = np.random.default_rng(0), np.empty(6), 0
    model, data = arm._frames.model, arm._frames.data
    for _ in range(150):
        arm._frames.place(rng.uniform(*load_robot("panda").position_limits))
        for pair in arm.pairs.geoms:
            wrong += mujoco.mj_geomDistance(model, data, *pair, FAR, None) == 0.0
            before = data.geom_xpos.copy()
            distance = geom_distance(model, data, pair, FAR, ends)
            np.testing.assert_array_equal(data.geom_xpos, before)
            assert distance != 0.0
            if 0.0 < distance < FAR:
                true = clear_along(arm, pair, ends)
                assert distance <= true + 1e-9, "more is claimed than there is"
                assert distance >= true - 4.0 * NUDGE, "and not much less"
    assert wrong > 5, "MuJoCo is mended: so is the need for this"


def test_the_row_does_not_jump_where_mujoco_is_wrong(arm):
    """A milliradian further on, the distance is the same but for what a milliradian can do."""
    rng, model, data = np.random.default_rng(1), arm._frames.model, arm._frames.data
    seen = 0
    while seen < 5:
        posture = rng.uniform(*load_robot("panda").position_limits)
        arm._frames.place(posture)
        wrong = [mujoco.mj_geomDistance(model, data, *pair, FAR, None) == 0.0 for pair in arm.pairs.geoms]
        if any(wrong):
            here, there = arm.at(posture[None]).distance[0], arm.at((posture + 0.001)[None]).distance[0]
            assert np.abs(here - there)[wrong].max() < 0.01
            seen += 1


def test_no_distance_of_meshes_is_ever_below_its_bound(arm):
    """Random postures, and random ways to go from there."""
    rng, nearest = np.random.default_rng(2), np.inf
    for _ in range(150):
        posture = rng.uniform(*load_robot("panda").position_limits)
        here = arm.at(posture[None])
        apart = here.distance > -0.004  # overlapping meshes have no normal
        for size in (0.01, 0.1, 0.3):
            way = rng.normal(size=7) * size * rng.integers(0, 2, 7)
            there = arm.at((posture + way)[None]).distance
            bound = least(here, Path.around(way[None], np.zeros((1, 7))))
            assert np.all((there >= bound - 3.0 * NUDGE)[apart])
            nearest = min(nearest, float(np.min((there - bound)[apart & (bound > 0)], initial=np.inf)))
    assert nearest < 1e-3, "and the bound is of some use"

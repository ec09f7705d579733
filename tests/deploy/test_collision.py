"""The right pairs are kept apart, at their true distances; what cannot be claimed is said."""

from __future__ import annotations

from copy import copy
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from geometry_samples import HOME, ROBOT, Geometry
from pydantic import ValidationError
from scipy.optimize import minimize

from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.capsules import capsules_of
from onestride.deploy.safety.collision import Collision
from onestride.deploy.safety.frames import Frames
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.chain import ProjectionFilter
from onestride.hardware.safety.geometry import CollisionRow
from onestride.hardware.safety.joints import JointRows

mujoco: Any = import_module("mujoco")  # its compiled modules declare no types
HAND = {"body": "ur5e/robotiq/base", "from": [0, 0, 0.02], "to": [0, 0, 0.12], "radius": 0.08}


def declared(**terms: Any) -> RobotDescription:
    """The robot with a collision row."""
    rows = (JointRows(), CollisionRow.model_validate(terms))
    projection = ProjectionFilter(rows=rows)
    return ROBOT.model_copy(update={"safety": (*ROBOT.safety[:-1], projection)})


def collision(forward: ForwardKinematics, **terms: Any) -> Collision:
    return Collision(CollisionRow.model_validate(terms), Frames(forward))


@pytest.fixture(scope="module")
def chosen(forward) -> Collision:
    return Geometry(forward).collision


def test_the_choice_is_what_mujoco_would_let_collide_and_the_robot_can_move(forward, chosen):
    """Against MuJoCo's own contacts, with every shape blown up until all that may touch do."""
    model = copy(forward.model)
    model.geom_margin[:] = 5.0
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    found = set()
    for contact in data.contact[: data.ncon]:
        pair = frozenset(int(geom) for geom in contact.geom)
        names = {model.body(model.geom_bodyid[geom]).name for geom in pair}
        if not names & set(chosen.pairs.unclaimed):
            found.add(pair)
    touching = {frozenset(pair) for pair in chosen.pairs.touching}
    pairs = {frozenset(pair) for pair in chosen.pairs.geoms}
    missing = {frozenset(model.body(model.geom_bodyid[geom]).name for geom in pair) for pair in found - pairs}
    assert missing <= touching
    assert len(pairs) > 30
    # MuJoCo sees no contact between shapes of one rigid part or of neighbours, and neither is chosen here
    assert all(model.body_weldid[model.geom_bodyid[a]] != model.body_weldid[model.geom_bodyid[b]] for a, b in pairs)


def test_what_is_not_claimed_is_said(chosen):
    assert chosen.pairs.touching == [("ur5e/shoulder_link", "world")]
    assert "right_driver_joint, of whose stop" in chosen.pairs.unclaimed["ur5e/robotiq/right_driver"]
    assert "moved by object_joint_0" in chosen.pairs.unclaimed["object_0"]
    assert not any("object" in name or "pad" in name for name in chosen.names)


def test_rates_are_the_derivatives_of_the_distances(chosen):
    rng, h = np.random.default_rng(0), 1e-6
    for _ in range(60):
        position = np.append(rng.uniform(-3, 3, 6), 0.0)
        here = chosen.at(position[None])
        measured = (here.bend[0].sum(-1) > 0) & (here.distance[0] > 0.0)
        for joint in range(6):
            ends = [chosen.at((position + side * np.eye(7)[joint])[None]).distance[0] for side in (-h, h)]
            slope = (ends[1] - ends[0]) / (2 * h)
            np.testing.assert_allclose(here.rate[0, measured, joint], slope[measured], atol=1e-3)


def test_the_distance_of_two_capsules_is_that_of_their_axes(forward, chosen):
    """By an optimiser of our own on the two segments."""
    model, rng = forward.model, np.random.default_rng(1)
    capsules = [
        (row, pair)
        for row, pair in enumerate(chosen.pairs.geoms)
        if all(model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE for geom in pair)
    ]
    for _ in range(20):
        position = np.append(rng.uniform(-3, 3, 6), 0.0)
        distance = chosen.at(position[None]).distance[0] + 0.01
        for row, pair in capsules:
            expected = segment_distance(chosen._frames, *pair)
            if 0.0 < distance[row] < 0.99:
                assert distance[row] == pytest.approx(expected, abs=1e-6)
    assert len(capsules) > 10


def segment_distance(frames: Frames, a: int, b: int) -> float:
    """Of two capsules: convex in how far along their axes the two points are."""
    axes = []
    for geom in (a, b):
        size = frames.model.geom_size[geom]
        axis = frames.data.geom_xmat[geom].reshape(3, 3)[:, 2] * size[1]
        axes.append((frames.data.geom_xpos[geom], axis, size[0]))
    (p, u, r), (q, v, s) = axes
    found = minimize(
        lambda t: float(np.sum((p + t[0] * u - q - t[1] * v) ** 2)),
        [0.0, 0.0],
        bounds=[(-1, 1), (-1, 1)],
        options={"ftol": 1e-16, "gtol": 1e-12},
    )
    return float(np.sqrt(found.fun)) - float(r + s)


def test_pairs_that_are_far_apart_are_bounded_and_not_measured(forward):
    near, far = collision(forward, look=2.0), collision(forward, look=0.05)
    rng = np.random.default_rng(2)
    for _ in range(50):
        position = np.append(rng.uniform(-3, 3, 6), 0.0)
        measured, bounded = near.at(position[None]), far.at(position[None])
        assert np.all(bounded.distance <= measured.distance + 1e-9)
        unseen = bounded.bend[0].sum(-1) == 0
        assert np.all(bounded.rate[0, unseen] == 0.0)
        assert np.all(bounded.distance[0, unseen] > 0.05 - 0.01 - 1e-9)
        np.testing.assert_allclose(bounded.distance[0, ~unseen], measured.distance[0, ~unseen], atol=1e-9)


def test_declared_pairs_are_the_only_ones(forward):
    found = collision(forward, pairs=[["ur5e/wrist_3_link", "world"], ["ur5e/shoulder_link", "ur5e/wrist_2_link"]])
    firsts = [name.split("#")[0] for name in found.names]
    assert sorted(firsts) == 2 * ["ur5e/shoulder_link"] + 5 * ["ur5e/wrist_3_link"]  # two capsules; a floor, four walls


def test_ignored_pairs_are_left_out(forward, chosen):
    found = collision(forward, ignore=[["ur5e/forearm_link", "world"]])
    gone = set(chosen.names) - set(found.names)
    assert gone == {name for name in chosen.names if name.startswith("ur5e/forearm_link#") and "-world" in name}
    assert len(gone) == 2


def test_a_capsule_stands_for_its_body(cube_scene):
    robot = declared(capsules=[HAND])
    forward = ForwardKinematics.load(cube_scene.model_path, robot)
    found = Collision(CollisionRow.model_validate({"capsules": [HAND]}), Frames(forward))
    hands = [geom for pair in found.pairs.geoms for geom in pair if forward.model.geom_bodyid[geom] == 11]
    assert hands
    assert all(forward.model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE for geom in hands)
    plain = ForwardKinematics.load(cube_scene.model_path, ROBOT)
    assert forward.model.ngeom == plain.model.ngeom + 1
    for one in (forward, plain):
        one.place(HOME + 0.1)
    np.testing.assert_array_equal(forward.position("pinch"), plain.position("pinch"))
    row = next(row for row, name in enumerate(found.names) if "robotiq/base#" in name and "-world" in name)
    found._frames.place(HOME)
    hand = found._frames.data.body("ur5e/robotiq/base")
    ends = [hand.xpos + hand.xmat.reshape(3, 3) @ np.array(HAND[end]) for end in ("from", "to")]
    lowest = min(end[2] for end in ends) - HAND["radius"]
    assert found.at(HOME[None]).distance[0, row] == pytest.approx(lowest - 0.01, abs=1e-6)


def test_capsules_are_found_in_the_robots_chain():
    assert capsules_of(ROBOT) == ()
    assert [one.body for one in capsules_of(declared(capsules=[HAND]))] == ["ur5e/robotiq/base"]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"pairs": [["ur5e/forearm", "world"]]}, "unknown body of the model .* got 'ur5e/forearm', available: world"),
        ({"ignore": [["world", "table"]]}, "unknown body of the model .* got 'table'"),
        (
            {"pairs": [["ur5e/robotiq/left_pad", "world"]]},
            "nothing can be claimed about body ur5e/robotiq/left_pad",
        ),
        ({"pairs": [["object_0", "ur5e/forearm_link"]]}, "about body object_0: it is moved by object_joint_0"),
        ({"pairs": [["object_target_0", "ur5e/forearm_link"]]}, "body object_target_0: it is moved from outside"),
        ({"pairs": [["ur5e/base", "ur5e/forearm_link"]]}, "ur5e/base has no geometry that may collide; declare"),
        ({"pairs": [["ur5e/shoulder_link", "world"]]}, "ur5e/shoulder_link and world touch in the default pose"),
        ({"pairs": [["world", "world"]]}, "the robot moves neither world nor world"),
    ],
)
def test_what_cannot_be_claimed_is_refused_by_name(forward, terms, message):
    with pytest.raises(OneStrideError, match=message):
        collision(forward, **terms)


def test_a_capsule_on_an_unknown_body_is_refused_by_name(cube_scene):
    with pytest.raises(OneStrideError, match=r"unknown body for a capsule in \S+: got 'hand', available: world, ur5e/"):
        ForwardKinematics.load(cube_scene.model_path, declared(capsules=[HAND | {"body": "hand"}]))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"capsules": [HAND | {"to": HAND["from"]}]}, "expected two ends"),
        ({"capsules": [HAND | {"radius": 0}]}, "greater than 0"),
        ({"margin": 0}, "greater than 0"),
        ({"pairs": [["a"]]}, "Field required"),
    ],
)
def test_contradictory_terms_are_refused(terms, message):
    with pytest.raises(ValidationError, match=message):
        CollisionRow.model_validate(terms)


def test_a_batch_is_its_rows(chosen):
    positions = np.random.default_rng(3).uniform(-3, 3, (3, 7))
    together = chosen.at(positions)
    for row, position in enumerate(positions):
        alone = chosen.at(position[None])
        np.testing.assert_array_equal(together.distance[row], alone.distance[0])
        np.testing.assert_array_equal(together.rate[row], alone.rate[0])


def test_shapes_that_touch_have_no_direction_and_no_number_is_missing(chosen):
    rng = np.random.default_rng(4)
    for _ in range(300):
        clear = chosen.at(np.append(rng.uniform(-3, 3, 6), 0.0)[None])
        assert all(np.isfinite(part).all() for part in (clear.distance, clear.rate, clear.turn, clear.bend))

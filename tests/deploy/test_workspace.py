"""Distances to half-spaces, balls and boxes are the true ones, and the declared workspace says what is meant."""

from __future__ import annotations

import numpy as np
import pytest
from geometry_samples import HOME, WORKSPACE, Geometry
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from onestride.deploy.safety.frames import Frames
from onestride.deploy.safety.workspace import Workspace, box_distances, half_space_distances, sphere_distances
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.geometry import WorkspaceRow

points = arrays(float, 3, elements=st.floats(-2, 2))
CENTRE, HALF = np.array([0.1, -0.2, 0.3]), np.array([0.5, 0.3, 0.7])


@given(points)
def test_the_distance_to_a_box_is_that_to_its_nearest_surface_point(point):
    distance, direction = box_distances(point[None], CENTRE[None], HALF[None])
    inside = np.all(np.abs(point - CENTRE) <= HALF)
    # independently: outside by clamping into the box, inside by the six faces
    nearest = np.clip(point, CENTRE - HALF, CENTRE + HALF)
    faces = np.concatenate([HALF - (point - CENTRE), HALF + (point - CENTRE)])
    expected = -faces.min() if inside else np.linalg.norm(point - nearest)
    assert distance[0, 0] == pytest.approx(expected, abs=1e-12)
    assert np.linalg.norm(direction) == pytest.approx(1.0)
    assert_grows(box_distances, (CENTRE[None], HALF[None]), point, direction[0, 0])


@given(points)
def test_the_distance_to_a_ball(point):
    distance, direction = sphere_distances(point[None], CENTRE[None], np.array([0.4]))
    assert distance[0, 0] == pytest.approx(np.linalg.norm(point - CENTRE) - 0.4)
    assert np.linalg.norm(direction) == pytest.approx(1.0)


def test_out_of_the_middle_of_a_ball_any_way_is_right():
    distance, direction = sphere_distances(CENTRE[None], CENTRE[None], np.array([0.4]))
    assert distance[0, 0] == -0.4
    assert np.linalg.norm(direction) == 1.0


@given(points)
def test_the_distance_to_a_half_space(point):
    normal = np.array([0.6, 0.0, 0.8])
    distance, direction = half_space_distances(point[None], normal[None], np.array([0.5]))
    assert distance[0, 0] == pytest.approx(0.5 - normal @ point)
    np.testing.assert_array_equal(direction[0, 0], -normal)


def assert_grows(measure, shapes, point: np.ndarray, direction: np.ndarray) -> None:
    """The distance grows by as much as one goes along the direction, unless an edge is near."""
    h = 1e-6
    ends = [measure((point + side * direction)[None], *shapes)[0][0, 0] for side in (-h, h)]
    here = measure(point[None], *shapes)[0][0, 0]
    assume(abs(here) > 2 * h)
    assert (ends[1] - here) / h == pytest.approx(1.0, abs=1e-6)


def test_each_frame_keeps_each_rule_and_each_is_named(forward):
    workspace = Geometry(forward).workspace
    rules = ["lowest_x", "lowest_y", "lowest_z", "highest_x", "highest_y", "highest_z", "ball", "crate"]
    assert workspace.names == tuple(f"{frame}.{rule}" for frame in ("pinch", "flange") for rule in ("slant", *rules))
    clear = workspace.at(HOME[None])
    forward.place(HOME)
    for frame, radius in (("pinch", 0.05), ("flange", 0.0)):
        x, y, z = forward.position(frame)
        kept = radius + WORKSPACE.margin
        named = dict(zip(workspace.names, clear.distance[0] + kept, strict=True))
        assert named[f"{frame}.lowest_z"] == pytest.approx(z - 0.02)
        assert named[f"{frame}.highest_x"] == pytest.approx(0.9 - x)
        assert named[f"{frame}.slant"] == pytest.approx(1.0 - (x + y) / np.sqrt(2))
        assert named[f"{frame}.ball"] == pytest.approx(np.linalg.norm([x - 0.5, y - 0.35, z - 0.3]) - 0.1)


def test_rates_are_the_derivatives_of_the_distances(forward):
    workspace, rng, h = Geometry(forward).workspace, np.random.default_rng(0), 1e-6
    for _ in range(100):
        position = np.append(rng.uniform(-3, 3, 6), 0.3)
        rate = workspace.at(position[None]).rate[0]
        for joint in range(7):
            ends = [workspace.at((position + side * np.eye(7)[joint])[None]).distance[0] for side in (-h, h)]
            np.testing.assert_allclose(rate[:, joint], (ends[1] - ends[0]) / (2 * h), atol=1e-6)


def test_a_batch_is_its_rows(forward):
    workspace = Geometry(forward).workspace
    positions = np.random.default_rng(1).uniform(-3, 3, (4, 7))
    together = workspace.at(positions)
    for row, position in enumerate(positions):
        alone = workspace.at(position[None])
        np.testing.assert_array_equal(together.distance[row], alone.distance[0])
        np.testing.assert_array_equal(together.rate[row], alone.rate[0])


def test_frames_that_cannot_be_claimed_are_refused_by_name(forward):
    unknown = WORKSPACE.model_copy(update={"frames": {"tool0": 0.0}})
    with pytest.raises(OneStrideError, match="unknown frame of robot ur5e_2f85: got 'tool0', available: pinch, flange"):
        Workspace(unknown, Frames(forward))
    joints = tuple(joint.model_copy(update={"velocity": None}) for joint in forward.robot.joints)
    still = type(forward)(forward.model, forward.robot.model_copy(update={"joints": joints}))
    with pytest.raises(OneStrideError, match=r"frame pinch is moved by ur5e/\S+_joint, of whose stop nothing"):
        Workspace(WORKSPACE, Frames(still))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inside": None, "half_spaces": (), "spheres": (), "boxes": ()}, "expected inside, half_spaces, spheres or"),
        ({"inside": ((0, 0, 0), (1, 0, 1))}, "inside: expected lowest < highest"),
        ({"half_spaces": ({"name": "flat", "normal": (0, 0, 0), "offset": 0},)}, "half space flat: expected a normal"),
        ({"boxes": ({"name": "b", "lowest": (0, 0, 0), "highest": (0, 1, 1)},)}, "box b: expected lowest < highest"),
        ({"spheres": ({"name": "slant", "centre": (0, 0, 0), "radius": 1},)}, "expected each name once"),
        ({"spheres": ({"name": "s", "centre": (0, 0, 0), "radius": 0},)}, "greater than 0"),
        ({"frames": {}}, "at least 1 item"),
        ({"margin": 0.0}, "greater than 0"),
        ({"frames": {"pinch": -0.1}}, "greater than or equal to 0"),
    ],
)
def test_contradictory_terms_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        WorkspaceRow.model_validate(WORKSPACE.model_dump() | change)

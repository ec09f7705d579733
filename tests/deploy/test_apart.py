"""Whatever is asked for, what is sent keeps its distance, and so does every stop from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from geometry_samples import ATTACKS, HOME, PERIOD, ROBOT, Geometry, Pushed, limited
from limited_arm import limited_content

from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.apart import Apart
from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.joints import JointLimits
from onestride.deploy.safety.projection import Projection
from onestride.deploy.safety.stopping import Stopping
from onestride.deploy.safety.types import Box, Motion, Rows
from onestride.hardware.description import parse_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

DRIVES = {"speed": (None, None), "acceleration": (20.0, None), "jerk": (20.0, 500.0)}
ARM = slice(0, 6)


def attacked(forward, attack: str, drive: str, steps: int, seed: int) -> Pushed:
    """A robot that was attacked for many steps; its stops were looked at now and then."""
    robot = limited(*DRIVES[drive])
    pushed = Pushed(Geometry(forward, robot).sources(), robot)
    push = ATTACKS[attack](np.random.default_rng(seed), pushed.sources)
    for tick in range(steps):
        pushed.push(push(tick, pushed.sent))
        if tick % 40 == 0:
            for command in pushed.stop()[::4]:
                assert min(pushed.distances(command).values()) > -1e-6, "a stop would come too near"
    return pushed


def assert_kept(pushed: Pushed, steps: int) -> None:
    assert min(pushed.least.values()) > -1e-6
    assert pushed.refusals == {}
    assert pushed.counts["ticks"] == steps


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("drive", DRIVES)
def test_under_attack_every_command_and_its_stop_keep_the_margin(forward, attack, drive):
    assert_kept(attacked(forward, attack, drive, 1200, seed=1), 1200)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("drive", DRIVES)
def test_under_a_million_steps_of_attack_too(forward, attack, drive):
    assert_kept(attacked(forward, attack, drive, 112_000, seed=2), 112_000)


@pytest.mark.parametrize("drive", DRIVES)
def test_an_attack_comes_near_and_the_robot_gets_about(forward, drive):
    """A robot that never moves is safe as well."""
    pushed = attacked(forward, "far_away", drive, 800, seed=3)
    assert min(pushed.least.values()) < 0.05
    way = 0.0
    push = ATTACKS["far_away"](np.random.default_rng(4), pushed.sources)
    for tick in range(400):
        pushed.push(push(tick, pushed.sent))
        way += float(np.abs(pushed.velocity[ARM]).mean()) * PERIOD
    assert way > 0.5, "half a radian per joint in two seconds"


def motion(step: Array | None = None, sent: Array = HOME) -> Motion:
    still = np.zeros((1, 7))
    velocity = still if step is None else step[None] / PERIOD
    return Motion(PERIOD, sent[None], still, sent[None], velocity, still)


@pytest.mark.parametrize("kind", [0, 1])
def test_far_from_everything_nothing_is_asked_for(forward, kind):
    """At rest, with room around: one box, no row, and a nominal command in the box is passed on as it is."""
    source = Geometry(forward).sources()[kind]
    claims = source.rows(motion())
    assert all(isinstance(one, Box) or one.yields for one in claims), "no hard row"
    projection = Projection([JointLimits(ROBOT), *Geometry(forward).sources()], ROBOT.joint_names)
    rng = np.random.default_rng(0)
    pushed = Pushed([])
    for _ in range(200):
        nominal = HOME + 0.0004 * np.append(rng.uniform(-1, 1, 6), 0.0)
        answer = projection.certify(pushed.state, nominal)
        assert answer.active == ()
        np.testing.assert_allclose(answer.action, nominal, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [0, 1])
def test_what_passes_without_a_row_keeps_the_claim(forward, kind):
    """Every stop from a command that is said to leave something, by the true distances at each of its commands."""
    source, rng, passed, nearest = Geometry(forward).sources()[kind], np.random.default_rng(6), 0, np.inf
    pushed = Pushed([])
    for _ in range(150):
        pushed.place(np.append(rng.uniform(-2, 2, 6), 0.0))
        pushed.velocity = np.append(rng.uniform(-1, 1, 6), 0.0) * rng.random()
        command = pushed.sent + pushed.velocity * PERIOD + np.append(rng.uniform(-1, 1, 6) * 5e-4, 0.0)
        left = source.spare(pushed.state.motion, command[None])[0]
        pushed.acceleration = ((command - pushed.sent) / PERIOD - pushed.velocity) / PERIOD
        pushed.velocity, pushed.sent = (command - pushed.sent) / PERIOD, command
        if left >= 0.0:
            distances = source._clearing.at(np.array([command, *pushed.stop()])).distance
            assert distances.min() >= left - 1e-6
            passed, nearest = passed + 1, min(nearest, float(distances.min()))
    assert passed > 30
    assert nearest < 0.05, "some pass near to something"


def test_a_demonstration_that_keeps_clear_is_not_touched(forward):
    """At speed, a few centimetres from what it must keep clear of: no rule is even named."""
    pushed, time = Pushed(Geometry(forward).sources()), 0.0
    for _ in range(400):
        time += PERIOD
        nominal = HOME + np.array([-0.3, 0.1, -0.1, 0.1, 0.2, 0.3, 0.0]) * np.sin(2.0 * time) ** 3
        np.testing.assert_array_equal(pushed.push(nominal), nominal)
    assert set(pushed.counts) == {"ticks"}
    assert min(pushed.least.values()) < 0.035


def test_the_gripper_is_left_alone(forward):
    claims = [claim for source in Geometry(forward).sources() for claim in source.rows(motion())]
    for claim in claims:
        if isinstance(claim, Box):
            assert claim.low[0, 6] == -np.inf
            assert claim.high[0, 6] == np.inf
        else:
            assert np.all(claim.matrix[:, :, 6] == 0.0)


def test_the_stops_next_step_is_always_permitted(forward):
    """Whatever the robot does, also where no claim could be made: the way to a standstill is never closed."""
    rng, sources = np.random.default_rng(1), Geometry(forward).sources()
    stopping, boxes, closed = Stopping(ROBOT), 0, 0
    for _ in range(300):
        sent = np.append(rng.uniform(-2, 2, 6), 0.0)
        if min(float(one._clearing.at(sent[None]).distance.min()) for one in sources) < 0.0:
            continue
        state = motion(np.append(rng.uniform(-1, 1, 6) * 0.0157, 0.0), sent)
        command = sent + stopping.ahead(state).stop[0]
        for claim in (claim for source in sources for claim in source.rows(state)):
            if isinstance(claim, Box):
                boxes += 1
                closed += bool(np.max((claim.high - claim.low)[0, ARM]) < 1e-8)
                assert np.all((command >= claim.low[0]) & (command <= claim.high[0]))
            else:
                assert np.all(claim.matrix[0] @ command <= claim.bound[0] + 1e-5)
    assert boxes > 100
    assert closed > 10, "some of these states leave nothing but the stop"


def test_inside_a_margin_nothing_is_certified(forward):
    """A robot that is already too near is not moved by a policy; the message names the row."""
    pushed = Pushed(Geometry(forward).sources())
    inside = HOME.copy()
    inside[1] += 0.9  # the hand is under the floor of the workspace
    pushed.place(inside)
    answer = pushed.projection.certify(pushed.state, inside)
    assert not answer.feasible
    assert "workspace" in answer.reason


@pytest.mark.parametrize("kind", ["workspace", "collision"])
def test_a_command_that_the_rows_would_let_in_is_refused_by_the_recheck(forward, kind):
    """Along a surface, straight on: to first order the distance stays, but the robot turns into what is there."""
    source = Geometry(forward).sources()[("workspace", "collision").index(kind)]
    rng, refused, pushed = np.random.default_rng(3), 0, Pushed([source])
    push = ATTACKS["steepest"](rng, pushed.sources)
    for tick in range(900):
        sent = pushed.push(push(tick, pushed.sent))
        clear = source._clearing.at(sent[None])
        if not 0.0 < clear.distance.min() < 0.02:
            continue
        row = int(np.argmin(clear.distance))
        rate = clear.rate[0, row]
        if not rate.any():
            continue
        for step in np.append(rng.normal(size=(4, 6)), np.zeros((4, 1)), axis=1):
            aside = step - rate * (rate @ step) / (rate @ rate)
            aside *= 0.6 / np.linalg.norm(aside)
            assert clear.distance[0, row] + rate @ aside > -1e-9, "the linear row lets it in"
            command = (sent + aside)[None]
            if source._clearing.at(command).distance[0, row] < -1e-5:
                assert source.shortfall(motion(sent=sent), command)[0] > 0.0
                refused += 1
    assert refused > 10


def test_the_recheck_refuses_a_command_from_which_no_stop_is_possible(forward):
    """Where it is, it is clear of everything; at the speed it would have, it cannot be stopped in time."""
    source = Geometry(forward).sources()[0]
    rate = source._clearing.at(HOME[None])
    row = int(np.argmin(rate.distance[0]))
    towards = -rate.rate[0, row] / np.abs(rate.rate[0, row]).max()
    sent = HOME.copy()
    while source._clearing.at(sent[None]).distance[0, row] > 0.06:
        sent = sent + 0.002 * towards
    step = 0.0157 * towards
    assert source._clearing.at((sent + step)[None]).distance.min() > 0.0
    assert source.shortfall(motion(step, sent), (sent + step)[None])[0] > 0.0
    assert source.shortfall(motion(sent=sent), sent[None])[0] <= 0.0


def test_who_came_to_rest_at_a_margin_can_leave_again(forward):
    pushed = Pushed(Geometry(forward).sources())
    down = np.zeros(7)
    for _ in range(400):
        clear = pushed.sources[0]._clearing.at(pushed.sent[None])
        row = pushed.sources[0]._clearing.names.index("pinch.lowest_z")
        down = -clear.rate[0, row]
        pushed.push(pushed.sent + 0.05 * down)
    assert pushed.least["workspace"] < 0.01
    for _ in range(100):
        pushed.push(pushed.sent + (HOME - pushed.sent) * 0.2)
    assert pushed.distances(pushed.sent)["workspace"] > 0.03
    assert pushed.refusals == {}


def test_pushed_onto_the_floor_it_still_slides_along(forward):
    """The reserve is what lets it: a policy that aims a little too low is not stuck."""
    pushed = Pushed(Geometry(forward).sources())
    clearing = pushed.sources[0]._clearing
    row = clearing.names.index("pinch.lowest_z")
    for _ in range(300):
        pushed.push(pushed.sent - 0.05 * clearing.at(pushed.sent[None]).rate[0, row])
    start = pushed.sent[0]
    for _ in range(200):
        nominal = pushed.sent - 0.05 * clearing.at(pushed.sent[None]).rate[0, row]
        nominal[0] += 0.01
        pushed.push(nominal)
    assert pushed.sent[0] - start > 0.3, "radians in one second"
    assert pushed.least["workspace"] > -1e-6


def test_a_batch_is_asked_what_its_rows_are(forward):
    source, rng = Geometry(forward).sources()[0], np.random.default_rng(5)
    sent = HOME + np.append(rng.uniform(-0.5, 0.5, (6, 6)), np.zeros((6, 1)), axis=1)
    step = np.append(rng.uniform(-0.01, 0.01, (6, 6)), np.zeros((6, 1)), axis=1)
    still = np.zeros((6, 7))
    together = source.rows(Motion(PERIOD, sent, still, sent, step / PERIOD, still))
    commands = sent + step * 0.9
    for row in range(6):
        alone = source.rows(motion(step[row], sent[row]))
        for name, slack in slacks(alone, commands[row], 0).items():
            assert slacks(together, commands[row], row)[name] == pytest.approx(slack, abs=1e-9)


def slacks(claims: tuple[Rows | Box, ...], command: Array, row: int) -> dict[str, float]:
    """By rule, what a command leaves of it."""
    found = {}
    for claim in claims:
        if isinstance(claim, Box):
            found[claim.name] = float(np.minimum(command - claim.low[row], claim.high[row] - command).min())
        else:
            found |= dict(zip(claim.names, claim.bound[row] - claim.matrix[row] @ command, strict=True))
    return found


ROWS = """
safety:
  - {filter: finite}
  - filter: projection
    rows:
      - {row: joints}
      - {row: workspace, frames: {FRAME: 0.05}, inside: [[-0.7, -0.9, 0.02], [0.9, 0.9, 1.1]], margin: 0.01}
      - row: collision
        capsules: [{body: ur5e/robotiq/base, from: [0, 0, 0.02], to: [0, 0, 0.1], radius: 0.08}]
        ignore: [[ur5e/robotiq/base, ur5e/wrist_1_link]]
"""


def declared(frame: str) -> str:
    """The robot's YAML with rows of geometry."""
    content = limited_content() | yaml.safe_load(ROWS.replace("FRAME", frame))
    return yaml.safe_dump(content)


def test_a_robots_yaml_makes_the_chain(cube_scene, contract):
    robot = parse_robot(declared("pinch"), "robot.yaml")
    chain = build_chain(contract, robot, ForwardKinematics.load(cube_scene.model_path, robot))
    projection = chain.filters[-1]
    assert isinstance(projection, Projection)
    assert [source.name for source in projection.sources] == ["joints", "workspace", "collision"]
    away = HOME + np.array([0, 0.5, 0, 0, 0, 0, 0])
    answer = chain.certify(Pushed([]).state, away)
    assert answer.feasible
    assert np.all(np.abs(answer.action - HOME)[ARM] < 0.02)
    assert {"workspace.distance", "collision.distance"} <= set(answer.readings)


def test_a_frame_that_the_robot_lacks_is_refused_at_load():
    with pytest.raises(OneStrideError, match="unknown frame: got 'tool0', available: "):
        parse_robot(declared("tool0"), "robot.yaml")


def test_without_a_model_geometry_is_refused(contract):
    with pytest.raises(OneStrideError, match="expected a MuJoCo model for rows of geometry"):
        build_chain(contract, parse_robot(declared("pinch"), "robot.yaml"))


def test_people_read_the_smallest_distance(forward):
    source: Apart = Geometry(forward).sources()[1]
    source.observe(motion())
    expected = float(source._clearing.at(HOME[None]).distance.min())
    assert source.readings() == {"collision.distance": pytest.approx(expected)}
    other = replace(motion(), sent=(HOME + 0.2)[None])
    source.observe(other)
    assert source.readings()["collision.distance"] != pytest.approx(expected)

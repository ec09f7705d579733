"""One command that keeps every row: the closest, the untouched one where possible, or none and the reason why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from limited_arm import limited_ur5e

from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.joints import JointLimits
from onestride.deploy.safety.projection import Projection
from onestride.deploy.safety.solver import OPTIMAL, Solution, Solver
from onestride.deploy.safety.types import Box, ControlState, Follows, Motion, Rows, Yield
from onestride.hardware.state import Array, Measurement

JOINTS = ("a", "b")
NOWHERE = np.full(2, np.inf)
points = arrays(float, 2, elements=st.floats(-3, 3))


def state(sent: Array | None = None) -> ControlState:
    zero = np.zeros(2)
    return ControlState(1.0, 0.01, Measurement(zero, zero), zero if sent is None else sent)


@dataclass
class Stated:
    """A source that states what it was given, and writes down what it is told."""

    claims: tuple[Rows | Box, ...]
    name: str = "stated"
    told: list[str] = field(default_factory=list)

    def reset(self, motion: Motion) -> None:
        self.told.append(f"reset {motion.sent[0, 0]}")

    def observe(self, motion: Motion) -> None:
        self.told.append(f"observe {motion.sent[0, 0]}")

    def rows(self, motion: Motion) -> tuple[Rows | Box, ...]:  # noqa: ARG002
        self.told.append("rows")
        return self.claims

    def sent(self, motion: Motion, command: Array) -> None:  # noqa: ARG002
        self.told.append(f"sent {command[0, 0]}")

    def readings(self) -> Mapping[str, float]:
        return {f"{self.name}.told": float(len(self.told))}


def box(name: str, low, high, yields: Yield = Yield.NEVER, *, lasting: bool = False) -> Box:
    return Box(name, np.array([low], float), np.array([high], float), yields, lasting)


def row(name: str, normal, bound: float, yields: Yield = Yield.NEVER) -> Rows:
    return Rows((name,), np.array([[normal]], float), np.array([[bound]], float), yields)


def certify(nominal, *claims: Rows | Box):
    return Projection([Stated(claims)], JOINTS).certify(state(), np.array(nominal, float))


# Nothing to do, and the nearest


@given(points, points, st.floats(-2, 2))
def test_a_command_that_keeps_everything_is_passed_on_as_it_is(nominal, normal, slack):
    kept = row("wall", normal, float(normal @ nominal) + abs(slack))
    answer = certify(nominal, box("room", -np.abs(nominal) - 1, np.abs(nominal) + 1), kept)
    assert answer.feasible
    np.testing.assert_array_equal(answer.action, nominal)
    assert answer.active == ()


def test_what_was_checked_cannot_be_changed_behind_its_back():
    """The second look of the chain is told the first answer again."""
    projection = Projection([Stated((box("limit", [-1, -1], [1, 1]),))], JOINTS)
    now, nominal = state(), np.array([2.0, 0.0])
    answer = projection.certify(now, nominal)
    np.testing.assert_array_equal(answer.action, [1.0, 0.0])
    with pytest.raises(ValueError, match="read-only"):
        answer.action[0] = 2.0
    nominal[1] = 0.5  # whoever asked goes on as they like
    assert projection.certify(now, answer.action).action is answer.action


def test_the_very_object_is_passed_on_so_that_the_chain_need_not_check_again():
    nominal = np.array([0.5, 0.5])
    assert Projection([Stated((box("room", [-1, -1], [1, 1]),))], JOINTS).certify(state(), nominal).action is nominal


@given(points, points, st.floats(-1, 1))
def test_it_is_the_nearest_of_those_that_keep_a_row_and_a_box(nominal, normal, offset):
    """Against a search over the box's grid."""
    length = np.linalg.norm(normal)
    if length < 0.1 or abs(offset) > 0.9 * np.abs(normal).sum():
        return
    answer = certify(nominal, box("room", [-1, -1], [1, 1]), row("wall", normal, offset))
    assert answer.feasible
    assert normal @ answer.action <= offset + 1e-8
    axis = np.linspace(-1, 1, 81)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    kept = grid[grid @ normal <= offset]
    if len(kept):
        assert np.linalg.norm(answer.action - nominal) <= np.linalg.norm(kept - nominal, axis=1).min() + 1e-9


def test_rows_of_any_length_mean_the_same():
    answers = [certify([1.0, 1.0], row("wall", [scale, scale], scale)).action for scale in (1e-6, 1.0, 1e6)]
    np.testing.assert_allclose(answers, np.full((3, 2), 0.5), rtol=0, atol=1e-9)


def test_rows_that_ask_for_nothing_are_harmless():
    quiet = row("quiet", [0.0, 0.0], np.inf)
    np.testing.assert_allclose(certify([1.0, 1.0], quiet, row("wall", [1, 1], 1)).action, [0.5, 0.5], atol=1e-9)
    assert certify([1.0, 1.0], quiet, box("room", -NOWHERE, NOWHERE)).active == ()


# Yielding


def test_jerk_gives_way_before_acceleration_and_no_further_than_it_must():
    jerk = box("jerk", [-0.1, -0.1], [0.1, 0.1], Yield.JERK)
    acceleration = box("acceleration", [-0.5, -0.5], [0.5, 0.5], Yield.ACCELERATION)
    brake = row("brake", [1.0, 0.0], -0.3)  # a <= -0.3
    answer = certify([1.0, 1.0], jerk, acceleration, brake)
    np.testing.assert_allclose(answer.action, [-0.3, 0.1], rtol=0, atol=1e-9)
    assert answer.active == ("stated.jerk", "stated.acceleration", "stated.brake", "stated.jerk.yielded")
    answer = certify([1.0, 1.0], jerk, acceleration, row("brake", [1.0, 0.0], -0.7))
    np.testing.assert_allclose(answer.action, [-0.7, 0.1], rtol=0, atol=1e-9)
    assert {"stated.jerk.yielded", "stated.acceleration.yielded"} <= set(answer.active)


def test_boxes_give_way_joint_by_joint():
    jerk = box("jerk", [-0.1, -0.1], [0.1, 0.1], Yield.JERK)
    limit = box("limit", [-9.0, -9.0], [-0.4, 9.0])
    answer = certify([1.0, 0.05], jerk, limit)
    np.testing.assert_allclose(answer.action, [-0.4, 0.05], rtol=0, atol=1e-12)
    assert "stated.jerk.yielded" in answer.active


def test_yielding_rows_give_way_too():
    soft = row("soft", [1.0, 0.0], -2.0, Yield.ACCELERATION)
    answer = certify([1.0, 0.0], box("room", [-1, -1], [1, 1]), soft)
    assert answer.feasible
    assert answer.active == ("stated.soft", "stated.soft.yielded")
    np.testing.assert_allclose(answer.action, [-1.0, 0.0], rtol=0, atol=1e-5)  # as near to it as may be


def test_what_never_yields_is_kept_or_there_is_no_command():
    room = box("room", [-1, -1], [1, 1])
    answer = certify([0.0, 0.0], room, row("wall", [1.0, 0.0], -2.0))
    assert not answer.feasible
    assert answer.reason == "no command keeps stated.wall (solver flag -1)"
    answer = certify([0.0, 0.0], room, box("elsewhere", [-3, 2], [3, 3]))
    assert not answer.feasible
    assert answer.reason == (
        "no command of b keeps stated.elsewhere (at least 2.0000 rad) and stated.room (at most 1.0000 rad)"
    )


@pytest.mark.parametrize(
    "claim",
    [row("wall", [np.nan, 1.0], 1.0), row("wall", [1.0, 0.0], np.nan), box("room", [np.nan, 0.0], [1.0, 1.0])],
)
def test_claims_that_are_not_numbers_refuse(claim):
    answer = certify([0.0, 0.0], claim)
    assert not answer.feasible


# The recheck


class Doubting(Stated):
    """A source whose rows let more through than its claim does."""

    def shortfall(self, motion: Motion, command: Array) -> Array:
        del motion
        return command[:, 0] - 0.2


def test_a_source_that_knows_better_than_its_rows_has_the_last_word():
    projection = Projection([Doubting((box("room", [-1, -1], [1, 1]),), name="doubting")], JOINTS)
    assert projection.certify(state(), np.array([0.1, 0.0])).feasible
    answer = projection.certify(state(), np.array([0.3, 0.0]))
    assert not answer.feasible
    assert answer.reason == "recheck failed: doubting"


@dataclass
class Foreseeing(Stated):
    """A source whose rows let less through than its claim does, and which knows it."""

    def spare(self, motion: Motion, command: Array) -> Array:
        del motion
        return 0.5 - command[:, 0]


def test_a_source_that_foresees_is_asked_for_rows_only_where_it_sees_none():
    source = Foreseeing((box("tight", [-0.1, -0.1], [0.1, 0.1]),), name="foreseeing")
    projection, now = Projection([source, Stated((box("room", [-1, -1], [1, 1]),))], JOINTS), state()
    passed = projection.certify(now, np.array([0.4, 2.0]))
    np.testing.assert_array_equal(passed.action, [0.4, 1.0])
    assert passed.active == ("stated.room",)
    assert source.told == []
    answer = projection.certify(now, np.array([0.6, 2.0]))
    np.testing.assert_array_equal(answer.action, [0.1, 0.1])
    assert answer.active == ("foreseeing.tight", "stated.room")
    assert source.told == ["rows"]


def test_what_is_no_number_is_foreseen_by_nobody():
    source = Foreseeing((), name="foreseeing")
    assert not Projection([source], JOINTS).certify(state(), np.array([np.nan, 0.0])).feasible


class Careless(Solver):
    """A solver that answers with anything."""

    def smallest_change(self, *_: Any) -> Solution:
        return Solution(np.zeros(2), OPTIMAL)


def test_an_answer_of_the_solver_is_not_believed():
    projection = Projection([Stated((row("wall", [1.0, 0.0], -0.5),))], JOINTS)
    projection._solver = Careless(2)
    answer = projection.certify(state(), np.array([0.3, 0.0]))
    assert not answer.feasible
    assert answer.reason == "recheck failed: stated.wall"


# What is reported, and who is told


def test_the_margin_is_that_of_rows_and_of_bounds_that_last():
    lasting = box("limits", [-1, -1], [1, 1], lasting=True)
    step = box("step", [-0.1, -0.1], [0.1, 0.1])
    assert certify([0.1, 0.0], lasting, step).margin == pytest.approx(0.9)
    assert certify([0.1, 0.0], lasting, step, row("wall", [2.0, 0.0], 1.0)).margin == pytest.approx(0.4)
    assert certify([0.1, 0.0], step).margin == np.inf


def test_sources_are_told_of_every_tick_and_their_rows_asked_for_once():
    source = Stated((box("room", [-1, -1], [0.25, 1]),))
    projection = Projection([source], JOINTS)
    assert isinstance(projection, Follows)
    chain = Chain([projection])
    first = state()
    chain.begin(first)
    chain.observe(first)
    certified = chain.certify(first, np.array([1.0, 0.0]))
    chain.sent(first, certified.action)
    assert source.told == ["reset 0.0", "observe 0.0", "rows", "sent 0.25"]
    assert certified.readings == {"stated.told": 3.0}
    assert certified.active == ("projection.stated.room",)
    again = state(np.array([0.25, 0.0]))
    chain.observe(again)
    chain.certify(again, again.last_sent)
    assert source.told[4:] == ["observe 0.25", "rows"]


def test_a_measurement_that_is_none_is_not_shown_to_the_sources():
    source = Stated(())
    chain = Chain([Projection([source], JOINTS)])
    for position in (np.array([0.0, np.nan]), np.zeros(3)):
        spoilt = ControlState(1.0, 0.01, Measurement(position, np.zeros(2)), np.zeros(2))
        chain.begin(spoilt)
        chain.observe(spoilt)
        chain.sent(spoilt, np.zeros(2))
    assert source.told == []


def test_the_joints_rows_are_one_source_among_others():
    """A wall in joint space, approached at full speed: kept exactly, by braking in time."""
    robot = limited_ur5e()
    normal = np.array([1.0, 1.0, 0, 0, 0, 0, 0]) / np.sqrt(2)
    claim = Rows(("wall",), normal[None, None], np.array([[-1.0]]))
    projection = Projection([JointLimits(robot), Stated((claim,), name="wall")], robot.joint_names)
    sent = np.array([joint.default for joint in robot.joints])
    velocity = acceleration = np.zeros(7)
    yielded = 0
    for _ in range(400):
        measurement = Measurement(sent, velocity)
        now = ControlState(0.0, 0.005, measurement, sent, sent_velocity=velocity, sent_acceleration=acceleration)
        answer = projection.certify(now, sent + 0.01)
        assert answer.feasible, answer.reason
        yielded += any(name.endswith("yielded") for name in answer.active)
        before, velocity = velocity, (answer.action - sent) / 0.005
        acceleration, sent = (velocity - before) / 0.005, answer.action
        assert normal @ sent <= -1.0 + 1e-9
    assert normal @ sent == pytest.approx(-1.0, abs=0.01)
    assert yielded > 0, "a wall without a rule for braking is kept at the cost of comfort"

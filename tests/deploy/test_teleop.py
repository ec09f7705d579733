"""A person at the controls of the plant, tick by tick: who acts, with what, and that nobody moves it otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from controller_drive import FORWARD, Always
from hypothesis import given
from hypothesis import strategies as st
from teleop_drive import (
    ASKED,
    BRAKING,
    CLOSE,
    DEADMAN,
    NOTHING,
    OPEN,
    STEP,
    acting,
    brakes_to_rest,
    pinch,
    pressed,
    rests,
    within_limits,
)

from onestride.deploy.controller import Actor, Mode
from onestride.deploy.recorded import HUMAN, NOMINAL, PolicySteps, recorded_schema
from onestride.deploy.teleop.mapping import load_mapping
from onestride.deploy.teleop.operator import Operator
from onestride.deploy.ticks import Moment, TickLayout
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Measurement


def test_what_the_person_asks_is_the_nominal_action_and_moves_the_arm(person, forward):
    one = person()
    one.says(NOTHING, ticks=STEP)
    before = pinch(one, forward)
    ticks = one.says(ASKED, DEADMAN, ticks=10 * STEP)
    assert acting(ticks) == [Actor.OPERATOR] * 10
    for tick in ticks:
        if tick.action is not None:
            np.testing.assert_allclose(tick.action[:4], [0.5, 0.0, -0.4, 0.0], atol=1e-12)
            assert abs(tick.action[4]) < 0.05, "the gripper is kept, not asked for"
        assert tick.mode is Mode.ACTIVE
        assert tick.certified is not None
    moved = pinch(one, forward) - before
    assert moved[0] > 0.05
    assert moved[2] < -0.03
    within_limits(one)


def test_without_the_deadman_nothing_moves(person):
    one = person()
    assert rests(one.says(ASKED, CLOSE, ticks=5 * STEP))
    assert set(acting(one.ticks)) == {Actor.NOBODY}
    for tick in one.ticks:
        if tick.action is not None:
            assert np.abs(tick.action).max() < 0.2, "only what keeps a loaded arm where it was sent"


def test_a_stick_in_its_middle_lets_the_arm_stay(person, forward):
    """Zero increments of what is measured would let it sink: that is the contract's action, not the person's wish."""
    heights = {}
    for reference in ("sent", "measured"):
        one = person(reference=reference)
        one.says(NOTHING, ticks=20 * STEP)
        before = pinch(one, forward)
        one.says(NOTHING, DEADMAN, ticks=100 * STEP)
        heights[reference] = np.abs(pinch(one, forward) - before)
    assert heights["sent"].max() < 2e-4
    assert heights["measured"][2] > 0.03


def test_a_stick_asks_for_a_speed(person, forward):
    one = person(reference="sent")
    one.says(NOTHING, ticks=STEP)
    one.says(-ASKED / 5, DEADMAN, ticks=10 * STEP)
    before = pinch(one, forward)
    one.says(-ASKED / 5, DEADMAN, ticks=10 * STEP)
    np.testing.assert_allclose(pinch(one, forward) - before, [-0.05, 0.0, 0.04], atol=5e-3)  # of 0.05 m in a step
    within_limits(one)


def test_staying_is_the_inverse_of_the_mapping_to_joint_targets(contract, forward, plant, start):
    from onestride.deploy.actions import ActionMapper
    from onestride.deploy.teleop.staying import Increments

    measurement = plant.reset(start)
    rng = np.random.default_rng(4)
    for _ in range(20):
        shift = np.append(rng.uniform(-0.02, 0.02, 6), rng.uniform(-0.3, 0.0))
        measured = replace(measurement, position=measurement.position + shift)
        sent = ActionMapper(contract, forward).target(measurement, rng.uniform(-0.5, 0.5, 5), measurement.position)
        action = Increments(contract, forward).staying(measured, sent)
        again = ActionMapper(contract, forward).target(measured, action, sent)
        np.testing.assert_allclose(again, sent, atol=2e-3)


def test_a_deadman_held_from_the_beginning_counts_only_once_it_was_let_go(person):
    one = person()
    assert rests(one.says(ASKED, DEADMAN, ticks=5 * STEP))
    one.says(ASKED, ticks=STEP)
    assert not rests(one.says(ASKED, DEADMAN, ticks=2 * STEP))


def test_letting_go_brakes_with_the_very_next_command_and_holds_for_good(person):
    one = person()
    one.says(NOTHING, ticks=STEP)
    one.says(ASKED, DEADMAN, ticks=3 * STEP + 4)
    ticks = one.says(ASKED, ticks=20 * STEP)
    brakes_to_rest(one, since=len(one.ticks) - len(ticks))
    assert np.abs(one.plant.read().velocity[:6]).max() < 0.01, "the arm itself has come to rest"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda *_: None,
        lambda joy, now: joy(ASKED * np.nan, pressed(DEADMAN), now),
        lambda joy, now: joy(np.full(8, np.inf), pressed(DEADMAN), now),
        lambda joy, now: joy(ASKED[:3], pressed(DEADMAN), now),
        lambda joy, now: joy(ASKED, pressed(DEADMAN)[:6], now),
        lambda joy, now: joy(ASKED, pressed(DEADMAN), now - 1.0),
    ],
    ids=["silence", "NaN", "infinite", "too few axes", "too few buttons", "old"],
)
def test_a_message_that_is_missing_or_bad_is_no_motion(person, spoil):
    one = person()
    one.says(NOTHING, ticks=STEP)
    one.says(ASKED, DEADMAN, ticks=2 * STEP)
    stale = one.operator.mapping.stale
    told = one.now - one.controller.period
    for _ in range(10 * STEP):
        spoil(one.operator.hear_joy, one.now)
        one.run(1)
    last = one.ticks[-1].command
    moving = [index for index, tick in enumerate(one.ticks) if not np.array_equal(tick.command, last)]
    assert moving[-1] * one.controller.period <= told + stale + (1 + BRAKING) * one.controller.period
    assert one.controller.mode is Mode.ACTIVE
    assert one.operator.problem(one.now)

    assert rests(one.says(ASKED, DEADMAN, ticks=3 * STEP)), "it goes on only after the deadman was let go"
    one.says(ASKED, ticks=STEP)
    assert not rests(one.says(ASKED, DEADMAN, ticks=2 * STEP))


def test_a_bad_message_stops_at_once_not_after_the_stale_bound(person):
    one = person()
    one.says(NOTHING, ticks=STEP)
    one.says(ASKED, DEADMAN, ticks=2 * STEP + 3)
    one.operator.hear_joy(ASKED * np.nan, pressed(DEADMAN), one.now)
    one.run(STEP)
    brakes_to_rest(one, since=len(one.ticks) - STEP)
    assert one.operator.counts["joy"]["axes not finite"] == 1
    assert one.operator.problem(one.now) == "joy: axes not finite"


def test_the_gripper_closes_on_a_button_and_keeps_its_grip(person):
    one = person()
    one.says(NOTHING, ticks=STEP)
    one.says(NOTHING, DEADMAN, CLOSE, ticks=2)
    ticks = one.says(NOTHING, DEADMAN, ticks=10 * STEP)
    assert {tick.action[4] for tick in ticks[STEP:] if tick.action is not None} == {1.0}, "until asked otherwise"
    assert ticks[-1].command[6] == pytest.approx(0.8)
    held = one.says(NOTHING, OPEN, ticks=5 * STEP)
    assert {tick.command[6] for tick in held} == {ticks[-1].command[6]}, "without the deadman it is not let go"
    taken = one.says(NOTHING, DEADMAN, ticks=5 * STEP)
    assert taken[-1].command[6] == pytest.approx(0.8, abs=1e-6), "what was asked before is forgotten, the grip kept"
    opened = one.says(NOTHING, DEADMAN, OPEN, ticks=10 * STEP)
    assert opened[-1].command[6] == pytest.approx(0.0)


# Interventions


def test_the_person_takes_over_and_hands_back(person):
    policy = Always()
    one = person(policy=policy)
    ticks = one.says(ASKED, ticks=3 * STEP)
    assert acting(ticks) == [Actor.POLICY] * 3
    requests = policy.requests
    assert requests == 1
    ticks = one.says(ASKED, DEADMAN, ticks=3 * STEP)
    assert acting(ticks) == [Actor.OPERATOR] * 3
    ticks = one.says(ASKED, ticks=3 * STEP)
    assert acting(ticks) == [Actor.POLICY] * 3
    assert policy.requests == requests + 3 + 1, "asked along in every step of the person's, and anew at hand-back"
    for tick in one.ticks:
        if tick.action is not None:
            label = [0.5, 0.0, -0.4, 0.0] if tick.actor is Actor.OPERATOR else FORWARD[:4]
            np.testing.assert_allclose(tick.action[:4], label, atol=1e-6)
    within_limits(one)


def test_hand_over_and_hand_back_are_bumpless(person):
    """No command jumps further than the policy and the person themselves ever ask for within a tick."""
    one = person(policy=Always(np.tile(0.3 * FORWARD, (5, 1))))
    for _ in range(4):
        one.says(NOTHING, ticks=2 * STEP + 3)
        one.says(0.5 * ASKED, DEADMAN, ticks=2 * STEP + 7)
    jumps = np.abs(np.diff(one.commands[:, :6], axis=0)).max(axis=1)
    assert jumps[2:].max() < 0.012  # [rad]; full deflection asks for about 0.008 in a tick


class Silent(Always):
    def answer(self, at):
        del at


@pytest.mark.parametrize("ticks", [STEP - 1, STEP, STEP + 1])
def test_letting_go_holds_until_the_policy_answers(person, ticks):
    one = person(policy=Silent(), soft_start=5.0)  # so slow that a step ends short of its target
    one.operator.hear_joy(NOTHING, pressed(), one.now)
    one.operator.look(one.now)  # seen let go
    one.says(ASKED, DEADMAN, CLOSE, ticks=ticks)
    one.says(ASKED, ticks=STEP)
    brakes_to_rest(one, since=len(one.ticks) - STEP)


def test_what_the_policy_would_have_done_is_kept_beside_the_label(person):
    one = person(policy=Always())
    one.says(ASKED, ticks=2 * STEP)
    one.says(ASKED, DEADMAN, ticks=3 * STEP)
    one.says(ASKED, DEADMAN, ticks=5)
    for _ in range(60):
        one.run(1)  # silence
    layout = TickLayout.of(one.controller, "0" * 64, operator="joy")
    schema, steps, rows = recorded_schema(layout), PolicySteps(), []
    for index, tick in enumerate(one.ticks):
        packed = np.zeros(layout.size)
        layout.pack(packed, tick, Moment(1, index, 0, index, 0.0, 0.0, 0.0))
        rows.append(steps.add(layout.unpack(packed)))
    rows = [row.values() for row in [*rows, steps.finish()] if row is not None]
    assert {feature.name for feature in schema.features if feature.stream == "base"} == set(rows[0])
    actors = [row["actor"] for row in rows]
    assert actors[:6] == [0, 0, 1, 1, 1, 1]
    assert set(actors[6:]) <= {1, 2}
    assert actors[-1] == 2
    assert steps.actors == {"policy": 2, "operator": actors.count(1), "nobody": actors.count(2)}
    for row in rows:
        assert row["label_source"] == (HUMAN if row["actor"] == 1 else NOMINAL)
        assert row["policy_known"] == (row["actor"] != 2)
        given = FORWARD if row["policy_known"] else np.zeros(5)
        np.testing.assert_allclose(row["policy_action"], given, atol=1e-6)
        if row["actor"] == 0:
            np.testing.assert_array_equal(row["policy_action"], row["action"])
    ordinary = recorded_schema(TickLayout.of(one.controller, "0" * 64))
    assert {feature.name for feature in schema.features} - {feature.name for feature in ordinary.features} == {
        "actor",
        "policy_action",
        "policy_known",
    }


def test_a_policy_without_a_living_person_holds(person):
    policy = Always()
    one = person(policy=policy)
    assert rests(one.run(3 * STEP)), "nobody has been heard yet"
    assert policy.requests == 0
    one.says(NOTHING, ticks=2 * STEP)
    one.run(100)
    assert rests(one.ticks[-50:])
    assert one.ticks[-1].actor is Actor.NOBODY
    ticks = one.says(NOTHING, ticks=2 * STEP)
    assert acting(ticks)[-1] is Actor.POLICY, "heard again with the deadman up, the policy goes on"


def test_a_break_while_the_person_acts_does_not_give_the_robot_to_the_policy(person):
    one = person(policy=Always())
    one.says(NOTHING, ticks=STEP)
    one.says(ASKED, DEADMAN, ticks=2 * STEP)
    one.run(60)
    ticks = one.says(ASKED, DEADMAN, ticks=3 * STEP)
    assert set(acting(ticks)) == {Actor.NOBODY}
    assert rests(ticks)


class Failing(Always):
    def answer(self, at):
        from onestride.deploy.runtime import Prediction

        return Prediction(None, at, "out of memory")


def test_a_policy_that_fails_while_the_person_acts_stops_nobody_until_it_acts(person):
    one = person(policy=Failing())
    one.operator.hear_joy(NOTHING, pressed(), one.now)
    one.operator.look(one.now)  # seen let go
    ticks = one.says(ASKED, DEADMAN, ticks=3 * STEP)
    assert ticks[-1].mode is Mode.ACTIVE
    ticks = one.says(ASKED, ticks=2 * STEP)
    assert ticks[-1].mode is Mode.FAULT
    assert "out of memory" in ticks[-1].reason


def test_an_unknown_device_is_refused(contract, forward):
    with pytest.raises(OneStrideError, match=r"'mouse', available: joy, twist, leader"):
        Operator(contract, load_mapping(None, contract), forward, "mouse", supervises=False)  # type: ignore[arg-type]


# Laws


@given(
    axes=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=10),
    buttons=st.lists(st.integers(-1, 2), max_size=10),
    age=st.floats(0, 1),
)
def test_whatever_is_heard_the_action_is_in_its_box_and_only_a_whole_fresh_message_moves(
    contract, robot, forward, axes, buttons, age
):
    operator = Operator(contract, load_mapping(None, contract), forward, "joy", supervises=False)
    operator.hear_joy(NOTHING, pressed(), 0.0)
    operator.look(0.0)
    operator.hear_joy(axes, buttons, 0.0)
    sound = len(axes) >= 5 and len(buttons) >= 8 and np.isfinite(axes).all() and age <= operator.mapping.stale
    here = np.array([joint.default for joint in robot.joints])
    if operator.look(age) is not Actor.OPERATOR:
        assert not (sound and buttons[DEADMAN] > 0)
        np.testing.assert_allclose(operator.rest(Measurement(here, np.zeros(7)), here), 0.0, atol=1e-12)
        return
    assert sound
    assert buttons[DEADMAN] > 0
    action = operator.action(Measurement(here, np.zeros(7)), here)
    assert (np.abs(action) <= 1).all()
    assert np.isfinite(action).all()

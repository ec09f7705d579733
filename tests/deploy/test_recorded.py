"""What a recorder gets of a controller: ticks through an array and back, and the policy's steps out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestride.datasets.journal_reader import Journal
from onestride.deploy.contract import Contract, DatasetTerms, ExecutionTerms, PolicyTerms, RobotTerms
from onestride.deploy.controller import Mode, Tick
from onestride.deploy.episode_recorder import EpisodeRecorder
from onestride.deploy.recorded import LABEL_SOURCES, PolicySteps, recorded_schema, tick_values
from onestride.deploy.safety.types import Certified
from onestride.deploy.terms import ActionTerm, JointSource, ObjectSource, ObservationTerm, ScalarSource
from onestride.deploy.ticks import Moment, TickLayout, parse_layout
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError

ROBOT = load_robot("ur5e_2f85")
JOINT = ROBOT.joint_names[0]
COUNT = len(ROBOT.joint_names)
OBSERVATIONS = (
    ObservationTerm(name="q", source=JointSource(field="position", joints=(JOINT,)), unit="rad"),
    ObservationTerm(name="cube", source=ObjectSource(field="position", object="cube"), unit="m"),
    ObservationTerm(name="touch", source=ScalarSource(scalar="touch"), unit="1"),
)
ACTION = ActionTerm(name="move", mode="joint_increment", unit="rad", joints=(JOINT,), names=("pan",))
NAMES = tuple(name for term in OBSERVATIONS for name in term.element_names)


def layout() -> TickLayout:
    contract = Contract(
        schema_version=1,
        policy=PolicyTerms(name="toy", algorithm="none", nfe=(1,), seed=0, steps=0, config={}),
        environment="toy/push-v0",
        robot=RobotTerms.of(ROBOT),
        history=2,
        observations=OBSERVATIONS,
        actions=(ACTION,),
        execution=ExecutionTerms(control_rate=100.0, policy_rate=20.0, horizon=4, n_action_steps=2),
        dataset=DatasetTerms(
            id="none",
            statistics="none",
            episodes=1,
            steps=1,
            observation_names=NAMES,
            observation_units=tuple(unit for term in OBSERVATIONS for unit in term.element_units),
            action_names=ACTION.element_names,
            minimum=(-9.0,) * 5,
            maximum=(9.0,) * 5,
        ),
    )
    return TickLayout(
        contract=contract,
        policy_sha256="0" * 64,
        joints=ROBOT.joint_names,
        commands=ROBOT.commands,
        filters=("finite", "joint_limits"),
        control_rate=100.0,
    )


LAYOUT = layout()
SCHEMA = recorded_schema(LAYOUT)


def vector(size: int) -> st.SearchStrategy[Any]:
    return st.lists(st.floats(allow_nan=False), min_size=size, max_size=size).map(np.array)


MOMENTS = st.builds(
    Moment,
    activation=st.integers(1, 1 << 50),
    index=st.integers(0, 1 << 50),
    seed=st.integers(0, (1 << 31) - 1),
    stamp=st.integers(0, (1 << 62) - 1),
    late=st.floats(0, 1),
    elapsed=st.floats(0, 1),
    age=st.floats(0, 1),
)
TICKS = st.builds(
    Tick,
    mode=st.sampled_from(list(Mode)),
    command=vector(COUNT),
    nominal=st.none() | vector(COUNT),
    certified=st.none()
    | st.builds(
        Certified,
        action=vector(COUNT),
        feasible=st.booleans(),
        active=st.lists(st.sampled_from(["finite.a", "joint_limits.velocity", "joint_limits.position"])).map(tuple),
    ),
    observation=st.none() | vector(10),
    action=st.none() | vector(1),
)


@given(TICKS, MOMENTS)
def test_a_tick_survives_its_packing_bit_for_bit(tick: Tick, moment: Moment) -> None:
    values = np.zeros(LAYOUT.size)
    LAYOUT.pack(values, tick, moment)
    row = LAYOUT.unpack(values)
    assert (row.moment, row.mode) == (moment, tick.mode)
    np.testing.assert_array_equal(row.command, tick.command)
    np.testing.assert_array_equal(row.nominal, tick.command if tick.nominal is None else tick.nominal)
    newest = None if tick.observation is None else tick.observation[5:]
    for got, wanted in ((row.observation, newest), (row.action, tick.action)):
        assert (got is None) == (wanted is None)
        assert got is None or wanted is None or got.tobytes() == wanted.tobytes()
    active = () if tick.certified is None else tick.certified.active
    assert row.active.tolist() == ["finite.a" in active, any(rule.startswith("joint") for rule in active)]
    assert row.feasible is (tick.certified is None or tick.certified.feasible)


def test_a_tick_without_a_command_is_no_row() -> None:
    values = np.zeros(LAYOUT.size)
    LAYOUT.pack(values, Tick(Mode.IDLE), Moment(1, 0, 0, 0, 0.0, 0.0, 0.0))
    assert tick_values(LAYOUT.unpack(values)) is None
    with pytest.raises(OneStrideError, match=f"expected a tick of {LAYOUT.size} numbers"):
        LAYOUT.unpack(np.zeros(3))


def test_rows_fit_the_schema_whatever_a_tick_says() -> None:
    values = np.zeros(LAYOUT.size)
    LAYOUT.pack(values, Tick(Mode.FAULT, np.ones(COUNT)), Moment(1, 0, 0, 0, 0.0, 0.0, float("inf")))
    row = tick_values(LAYOUT.unpack(values))
    assert row is not None
    for feature in SCHEMA.features:
        if feature.stream == "ticks":
            value = np.asarray(row[feature.name], feature.dtype)
            assert value.shape == feature.shape
            assert np.isfinite(value).all()


def test_a_layout_is_announced_as_json() -> None:
    assert parse_layout(LAYOUT.model_dump_json()) == LAYOUT
    with pytest.raises(OneStrideError, match="announced ticks: format"):
        parse_layout(LAYOUT.model_copy(update={"format": 2}).model_dump_json())


def test_the_schema_is_the_contracts() -> None:
    observation, action = SCHEMA.feature("observation"), SCHEMA.feature("action")
    assert (observation.names, observation.dtype) == (NAMES, "float32")
    assert observation.units == ("rad", "m", "m", "m", "1")
    assert action.names == ("move.pan",)
    assert [one.name for one in SCHEMA.by_role("observation")] == ["observation"], "what a policy sees by default"
    assert (SCHEMA.label, SCHEMA.label_source) == ("action", "nominal")
    assert (SCHEMA.control_rate, SCHEMA.environment, SCHEMA.robot) == (20.0, "toy/push-v0", "ur5e_2f85")
    commands = [f"command.{group.topic.replace('/', '.')}" for group in ROBOT.commands]
    sensed = ("joint_states", "joint_effort", "object.cube", "scalar.touch")
    assert SCHEMA.streams == ("base", "ticks", *sensed, *commands)


def told(index: int, *, observed: float | None = None, acted: float | None = None, active: bool = False, run: int = 1):
    """A tick as it arrives."""
    values = np.zeros(LAYOUT.size)
    tick = Tick(
        Mode.ACTIVE,
        np.zeros(COUNT),
        np.zeros(COUNT),
        Certified(np.zeros(COUNT), active=("joint_limits.velocity",) if active else ()),
        None if observed is None else np.full(10, observed),
        None if acted is None else np.array([acted]),
    )
    LAYOUT.pack(values, tick, Moment(run, index, 7, 100 + index, 0.0, 0.0, 0.0))
    return LAYOUT.unpack(values)


def test_steps_join_an_observation_with_the_action_that_came_of_it() -> None:
    """The policy may take a tick or two; a step is whole when the next begins."""
    steps = PolicySteps()
    rows = [
        told(0, observed=0.1),
        told(1),
        told(2, acted=1.0),
        told(3, active=True),
        told(4, observed=0.2, acted=2.0),
        told(5),
        told(6, observed=0.3),
        told(7, acted=3.0, active=True),
    ]
    done = [steps.add(row) for row in rows]
    done.append(steps.finish())
    found = [(one.stamp, one.observation[0], one.action[0], one.intervened) for one in done if one is not None]
    assert found == [(100, 0.1, 1.0, True), (104, 0.2, 2.0, False), (106, 0.3, 3.0, True)]
    assert [index for index, one in enumerate(done) if one is not None] == [4, 7, 8]
    assert (steps.lost, steps.activations) == (0, {1: 7})
    assert steps.finish() is None
    assert steps.after is None
    (values,) = [one.values(terminal=True) for one in done[-1:] if one is not None]
    assert values["terminal"] is True
    assert LABEL_SOURCES[values["label_source"]] == "nominal"
    assert values["observation"].dtype == np.float32


def test_what_was_observed_after_the_last_step_ends_the_episode(tmp_path: Path) -> None:
    """The policy was asked once more, and the episode ended before it answered."""
    recorder = EpisodeRecorder(LAYOUT, tmp_path, least_free=0)
    rows = [told(0, observed=0.1, acted=1.0), told(1, observed=0.2, acted=2.0), told(2, observed=0.3)]
    for asked in (rows, rows[:2]):
        recorder.start({})
        for row in asked:
            recorder.tick(row)
        recorder.stop()
    recorder.close()
    with Journal(Path(recorder.journal)) as read:
        first, second = (read.read(one) for one in read.episodes)
    assert (first.length, second.length) == (2, 2)
    np.testing.assert_array_equal(first.final["observation"], np.full(5, 0.3, np.float32))
    assert second.final == {}


def test_an_action_whose_observation_was_before_the_episode_is_no_step() -> None:
    steps = PolicySteps()
    assert steps.add(told(5, acted=1.0), expected=False) is None
    assert steps.add(told(6, observed=0.2, acted=2.0)) is None
    assert steps.lost == 0
    last = steps.finish()
    assert last is not None
    assert last.action[0] == 2.0


@given(st.lists(st.integers(0, 40), unique=True, min_size=1).map(sorted), st.booleans())
def test_ticks_that_did_not_arrive_are_counted(arrived: list[int], expected: bool) -> None:
    steps = PolicySteps()
    for place, index in enumerate(arrived):
        steps.add(told(index), expected=expected or place > 0)
    first = 0 if expected else arrived[0]
    assert steps.lost == arrived[-1] + 1 - first - len(arrived)


def test_another_activation_counts_from_its_own_beginning() -> None:
    steps = PolicySteps()
    for row in (told(3), told(4), told(1, run=2)):
        steps.add(row, expected=False)
    assert steps.lost == 1
    assert list(steps.activations) == [1, 2]

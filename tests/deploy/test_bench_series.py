"""The bench's arithmetic: percentiles, runs, stages that add up, and deadlines."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestride.deploy.bench.series import Stopwatch, back_to_back, figures, longest_run, paced


def test_percentiles_of_a_known_series():
    found = figures(np.arange(1.0, 1002.0, dtype=np.float64))
    assert (found.min, found.max, found.mean, found.n) == (1, 1001, 501, 1001)
    assert (found.p50, found.p90, found.p99, found.p999) == (501, 901, 991, 1000)


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=50))
def test_percentiles_are_in_order(durations):
    found = figures(np.array(durations))
    values = [found.min, found.p50, found.p90, found.p95, found.p99, found.p999, found.max]
    assert values == sorted(values)
    assert found.min <= found.mean + 0.01 and found.mean <= found.max + 0.01  # each is rounded by itself


@pytest.mark.parametrize(("missed", "longest"), [([], 0), ([0, 0], 0), ([1, 0, 1, 1, 0], 2), ([1, 4, 1, 0, 5], 6)])
def test_longest_run(missed, longest):
    assert longest_run(np.array(missed, np.int64)) == longest


def test_a_stage_that_does_not_run_stays_out_of_its_series():
    watch = Stopwatch(("infer", "tick"), 3)
    for turn, (infer, tick) in enumerate([(2000, 5000), (0, 1000), (4000, 9000)]):
        watch.begin(turn)
        watch.add("infer", infer)
        watch.add("tick", tick)
    assert watch.durations("infer").tolist() == [2.0, 4.0]
    assert watch.durations("tick").tolist() == [5.0, 1.0, 9.0]
    assert watch.durations("tick", when="infer").tolist() == [5.0, 9.0]


@given(st.lists(st.integers(0, 10_000), min_size=3, max_size=3), st.integers(0, 50_000))
def test_the_stages_of_a_turn_add_up_to_it(parts, unseen):
    watch = Stopwatch(("observe", "infer", "filters", "rest", "tick"), 1)
    watch.begin(0)
    for stage, part in zip(("observe", "infer", "filters"), parts, strict=True):
        watch.add(stage, part)
    watch.add("tick", sum(parts) + unseen)
    watch.remainder("rest", "tick")
    stages = sum(watch.durations(stage).sum() for stage in ("observe", "infer", "filters", "rest"))
    assert stages == pytest.approx(watch.durations("tick").sum())


class Arm:
    """Something whose methods are watched."""

    def move(self, far: float, *, fast: bool = False) -> float:
        if far < 0:
            raise ValueError("backwards")
        return far * (2 if fast else 1)


def test_watched_methods_answer_as_before_and_are_counted_also_when_they_raise():
    arm, watch = Arm(), Stopwatch(("move",), 2)
    watch.watch("move", arm, "move")
    watch.begin(0)
    assert arm.move(3.0, fast=True) == 6.0
    watch.begin(1)
    with pytest.raises(ValueError, match="backwards"):
        arm.move(-1.0)
    assert len(watch.durations("move")) == 2
    watch.clear(1)
    assert len(watch.durations("move")) == 0


def test_back_to_back_makes_every_turn_once():
    watch, seen = Stopwatch(("turn",), 20), []

    def turn(index: int) -> None:
        seen.append(index)
        watch.add("turn", 1000 * (index + 1))

    found = back_to_back(turn, watch, 20)["turn"]
    assert seen == list(range(20))
    assert (found.n, found.min, found.max) == (20, 1.0, 20.0)


def test_deadlines_that_pass_during_turns_are_overruns_and_not_made_up():
    watch, period, begun = Stopwatch(("turn",), 5), 0.002, []

    def turn(_: int) -> None:
        begun.append(time.perf_counter())
        time.sleep(2.5 * period)  # a sleep is never shorter
        watch.add("turn", 1000)

    found = paced(turn, watch, 5, 1.0 / period)
    # Two deadlines pass during every turn, and the next turn waits for a third: on the grid, or later.
    assert found.stages["turn"].n == 5
    assert found.overruns == found.longest_run >= 10
    assert min(np.diff(begun)) >= 2.5 * period


def test_what_happens_between_turns_is_no_part_of_them():
    watch, order = Stopwatch(("turn",), 2), []

    def turn(index: int) -> None:
        order.append(f"turn {index}")
        watch.add("turn", 1000)

    found = paced(turn, watch, 2, 1000.0, between=lambda index: order.append(f"world {index}"))
    assert order == ["turn 0", "world 0", "turn 1", "world 1"]
    assert found.stages["turn"].mean == 1.0

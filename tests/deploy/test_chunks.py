"""Chunks are executed by consumed steps, and joint targets reached at the end of the policy step."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestride.deploy.chunks import ChunkExecutor, Interpolator
from onestride.deploy.contract import ExecutionTerms

HORIZON = 8
angles = st.floats(-6.3, 6.3)


def terms(
    n_action_steps: int = 5, ticks: int = 10, interpolation: Literal["linear", "hold"] = "linear"
) -> ExecutionTerms:
    return ExecutionTerms(
        control_rate=20.0 * ticks,
        policy_rate=20.0,
        horizon=HORIZON,
        n_action_steps=n_action_steps,
        interpolation=interpolation,
    )


def chunk_predicted_at(step: int) -> np.ndarray:
    """(h, 2): the step it was predicted at, and the step each action is meant for."""
    return np.array([[step, step + i] for i in range(HORIZON)], dtype=float)


# Chunks


@given(st.integers(1, HORIZON), st.lists(st.sampled_from(["request", "arrive", "act"]), max_size=60))
def test_every_action_is_the_one_predicted_for_the_step_it_is_executed_at(n_action_steps, events):
    executor = ChunkExecutor(terms(n_action_steps))
    step, requested, loaded = 0, [], None
    for event in events:
        if event == "request":
            requested.append(step)
        elif event == "arrive" and requested:
            loaded = requested.pop(0)
            executor.load(chunk_predicted_at(loaded), requested_at=loaded)
        assert executor.consumed == step
        assert executor.empty == (loaded is None or step - loaded >= n_action_steps)
        if event == "act" and not executor.empty:
            assert executor.next().tolist() == [loaded, step]
            step += 1


def test_a_used_up_chunk_gives_nothing_more():
    executor = ChunkExecutor(terms(n_action_steps=2))
    with pytest.raises(IndexError, match="used up"):
        executor.next()
    executor.load(chunk_predicted_at(0), requested_at=0)
    assert [executor.next()[1] for _ in range(2)] == [0, 1]
    with pytest.raises(IndexError, match="used up"):
        executor.next()


def test_a_chunk_that_comes_too_late_is_not_begun():
    executor = ChunkExecutor(terms(n_action_steps=3))
    executor.load(chunk_predicted_at(0), requested_at=0)
    for _ in range(3):
        executor.next()
    executor.load(chunk_predicted_at(0), requested_at=0)
    assert executor.empty


def test_reset_forgets_the_chunk_and_the_count():
    executor = ChunkExecutor(terms())
    executor.load(chunk_predicted_at(0), requested_at=0)
    executor.next()
    executor.reset()
    assert executor.empty
    assert executor.consumed == 0


# Targets between policy steps


@given(st.integers(1, 30), st.lists(angles, min_size=3, max_size=3), st.lists(angles, min_size=3, max_size=3))
def test_the_target_is_reached_on_a_straight_line_and_exactly_at_the_end(ticks, start, target):
    first, last = np.array(start), np.array(target)
    interpolator = Interpolator(terms(ticks=ticks))
    interpolator.hold(first)
    interpolator.aim(last)
    for tick in range(1, ticks + 1):
        nominal = interpolator.nominal()
        np.testing.assert_allclose(nominal, first + (last - first) * tick / ticks, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(nominal, last)


@given(st.integers(1, 12), st.integers(1, 40), angles)
def test_while_the_next_chunk_is_late_the_target_is_held(ticks, late, target):
    interpolator = Interpolator(terms(ticks=ticks))
    interpolator.hold(np.zeros(1))
    interpolator.aim(np.array([target]))
    for _ in range(ticks):
        interpolator.nominal()
    assert [interpolator.nominal().tolist() for _ in range(late)] == [[target]] * late


@given(angles, angles)
def test_a_new_target_starts_a_new_line_from_where_the_old_one_was(first, second):
    interpolator = Interpolator(terms(ticks=4))
    interpolator.hold(np.zeros(1))
    interpolator.aim(np.array([first]))
    interpolator.nominal()
    there = interpolator.nominal()
    interpolator.aim(np.array([second]))
    np.testing.assert_allclose(interpolator.nominal(), there + (second - there) / 4, rtol=0, atol=1e-12)


def test_to_hold_ends_the_line_at_once():
    interpolator = Interpolator(terms(ticks=4))
    interpolator.hold(np.zeros(1))
    interpolator.aim(np.array([1.0]))
    interpolator.nominal()
    interpolator.hold(np.array([0.5]))
    assert [interpolator.nominal().tolist() for _ in range(6)] == [[0.5]] * 6


def test_hold_commands_the_target_at_once():
    interpolator = Interpolator(terms(ticks=4, interpolation="hold"))
    interpolator.aim(np.array([1.5]))
    assert [interpolator.nominal().tolist() for _ in range(6)] == [[1.5]] * 6

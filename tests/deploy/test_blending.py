"""Going over from chunk to chunk: every step once, nothing waited for, and no jump larger than a blended one."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from controller_drive import Always, Drive
from hypothesis import given
from hypothesis import strategies as st

from onestride.deploy.blending import blended, weights
from onestride.deploy.chunks import ChunkExecutor
from onestride.deploy.contract import ExecutionTerms
from onestride.deploy.controller import Controller, Mode
from onestride.deploy.runtime import Prediction
from onestride.hardware.errors import OneStrideError
from onestride.hardware.plant import Plant

HORIZON = 8
numbers = st.floats(-1, 1)
chunks = st.lists(numbers, min_size=HORIZON, max_size=HORIZON).map(lambda values: np.array(values)[:, None])


def terms(n_action_steps: int) -> ExecutionTerms:
    return ExecutionTerms(control_rate=200.0, policy_rate=20.0, horizon=HORIZON, n_action_steps=n_action_steps)


@st.composite
def executions(draw):
    """Actions per chunk, a blend that they allow, and how many steps late each chunk comes."""
    n_action_steps = draw(st.integers(1, HORIZON))
    blend = draw(st.integers(0, n_action_steps - 1))
    return n_action_steps, blend, draw(st.lists(st.integers(0, 4), min_size=40, max_size=40))


def execute(execution, predict, steps=40):
    """`(actions, waits)`: what was executed, asking and taking chunks as the controller does, and steps waited."""
    n_action_steps, blend, delays = execution
    executor, delays = ChunkExecutor(terms(n_action_steps), blend), deque(delays)
    requested, arrives, actions, waits = None, 0, [], 0
    for step in range(steps):
        if executor.due and requested is None and delays:
            requested, arrives = executor.consumed, step + delays.popleft()
        if requested is not None and step >= arrives:
            executor.load(predict(requested), requested)
            requested = None
        if executor.empty:
            waits += 1
        else:
            actions.append(executor.next())
    return np.array(actions), waits


# The mean


@given(st.integers(1, 50))
def test_the_old_chunk_loses_weight_evenly_from_nearly_all_to_nearly_none(steps):
    old = weights(steps)
    assert len(old) == steps
    np.testing.assert_allclose(np.diff([1.0, *old, 0.0]), -1 / (steps + 1))


def test_by_hand():
    left, chunk = np.array([[3.0], [6.0], [9.0]]), np.zeros((5, 1))
    np.testing.assert_allclose(blended(left, chunk, 1, 2).ravel(), [0, 2, 2, 0, 0])  # weights 2/3 and 1/3
    assert not chunk.any(), "the new chunk itself is left alone"


@given(chunks, chunks, st.integers(0, HORIZON + 2), st.integers(0, HORIZON), st.integers(0, HORIZON))
def test_every_blended_action_is_between_both_and_the_others_are_the_new_ones(old, new, start, most, left):
    mixed = blended(old[:left], new, start, most)
    overlap = max(0, min(most, left, HORIZON - start))
    steps = slice(start, start + overlap)
    low, high = np.minimum(old[:overlap], new[steps]), np.maximum(old[:overlap], new[steps])
    assert (mixed[steps] >= low - 1e-12).all()
    assert (mixed[steps] <= high + 1e-12).all()
    np.testing.assert_array_equal(np.delete(mixed, steps, axis=0), np.delete(new, steps, axis=0))


@given(chunks, chunks, st.integers(1, HORIZON - 1), st.integers(0, HORIZON - 1), st.integers(1, HORIZON))
def test_no_jump_is_larger_than_the_chunks_own_and_a_blended_share_of_their_gap(old, new, done, start, most):
    """From the last action of the old chunk through the blend into the new one."""
    left = old[done:]
    overlap = min(most, len(left), HORIZON - start)
    executed = np.concatenate([old[done - 1 : done], blended(left, new, start, most)[start:]])
    gap = np.abs(left[:overlap] - new[start : start + overlap]).max()
    own = max(np.abs(np.diff(old, axis=0)).max(), np.abs(np.diff(new, axis=0)).max())
    assert np.abs(np.diff(executed, axis=0)).max() <= own + gap / (overlap + 1) + 1e-12


# The executor


@given(executions())
def test_no_step_is_skipped_or_taken_twice_whatever_the_delays(execution):
    """Each action says for which step it was predicted; any mean of such actions still does."""
    actions, waits = execute(execution, lambda step: np.arange(step, step + HORIZON, dtype=float)[:, None])
    np.testing.assert_allclose(actions.ravel(), np.arange(len(actions)), rtol=0, atol=1e-9)
    assert len(actions) + waits == 40


@given(executions(), st.integers(0, 2**32 - 1))
def test_without_a_blend_actions_are_those_of_the_newest_chunk_bit_by_bit(execution, seed):
    n_action_steps, _, delays = execution
    known: dict[int, np.ndarray] = {}

    def predict(step):
        return known.setdefault(step, np.random.default_rng([seed, step]).normal(size=(HORIZON, 2)))

    actions, _ = execute((n_action_steps, 0, delays), predict)
    for step, action in enumerate(actions):
        newest = max(begun for begun in known if begun <= step)
        np.testing.assert_array_equal(action, known[newest][step - newest])


@given(st.integers(2, HORIZON), st.data())
def test_a_chunk_that_comes_within_the_blend_is_never_waited_for(n_action_steps, data):
    blend = data.draw(st.integers(1, n_action_steps - 1))
    in_time = min(blend, n_action_steps - blend - 1)  # while one is awaited, no other can be
    delays = [0, *data.draw(st.lists(st.integers(0, in_time), min_size=40, max_size=40))]
    _, waits = execute((n_action_steps, blend, delays), lambda _: np.zeros((HORIZON, 1)))
    assert waits == 0
    late = [0] + [blend + 1] * 40
    assert execute((n_action_steps, blend, late), lambda _: np.zeros((HORIZON, 1)))[1] > 0


@pytest.mark.parametrize("blend", [-1, 3, 10])
def test_a_blend_that_leaves_no_action_is_refused(blend):
    with pytest.raises(OneStrideError, match=rf"chunk blend: expected 0 to 2 steps, got {blend}"):
        ChunkExecutor(terms(3), blend)


# The controller


class Slow(Always):
    """Inference that answers after some polls, each time with a chunk of another level."""

    def __init__(self, polls: int) -> None:
        super().__init__()
        self.polls, self._left = polls, 0

    def request(self, observation, at):
        self.chunk = np.full((5, 5), 0.4 * (-1) ** self.requests)
        super().request(observation, at)
        self._left = self.polls if self.requests > 1 else 0

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        if self._left > 0:
            self._left -= 1
            return None
        return super().poll(timeout)


@pytest.mark.parametrize(("blend", "smooth"), [(0, False), (3, True)])
def test_a_slow_policy_keeps_a_blending_controller_waiting_no_more(
    blend, smooth, contract, robot, forward, cube_scene, start
):
    inference = Slow(1)
    driven = Drive(Controller(contract, robot, forward, inference, chunk_blend=blend), Plant(cube_scene, robot))
    driven.activate(start)
    driven.run(400)
    assert driven.ticks[-1].mode is Mode.ACTIVE, driven.ticks[-1].reason
    began = [index for index, tick in enumerate(driven.ticks) if tick.action is not None]
    actions = np.array([tick.action for tick in driven.ticks if tick.action is not None])
    assert inference.requests > 5
    assert (set(np.diff(began)) == {10}) is smooth, "a policy step every tenth tick, without a wait"
    largest = np.abs(np.diff(actions, axis=0)).max()
    assert largest == pytest.approx(0.8) if not smooth else largest < 0.5

"""Nothing is commanded from numbers that are none, from old measurements, or long after the policy fell silent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestride.deploy.safety.finite import Finite
from onestride.deploy.safety.guards import FreshStreams, PolicyAlive
from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.description import Detection
from onestride.hardware.state import Measurement

BOUNDS = Detection(joints_stale=0.1, objects_stale=0.2, policy_stall=0.15)
GOOD = np.linspace(-1, 1, 7)
STREAMS = ("joints", "block", "touch")
ages = st.floats(0, 1)


def state(
    now: float = 100.0,
    position: np.ndarray = GOOD,
    velocity: np.ndarray = GOOD,
    received: dict[str, float] | None = None,
    waiting: float = 0.0,
) -> ControlState:
    clocks: dict[str, float] = dict.fromkeys(STREAMS, now) if received is None else received
    return ControlState(now, 0.005, Measurement(position, velocity, received=clocks), GOOD, waiting=waiting)


# Finite


def finite_answer(where: str, values: np.ndarray) -> Certified:
    """What `Finite` says of values in one place, all else being good."""
    position, velocity = (values if where == name else GOOD for name in ("position", "velocity"))
    return Finite(7).certify(state(position=position, velocity=velocity), values if where == "action" else GOOD)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=7, max_size=7))
def test_finite_numbers_pass_unchanged(values):
    answer = Finite(7).certify(state(), np.array(values))
    assert answer.feasible
    assert answer.active == ()
    np.testing.assert_array_equal(answer.action, values)


@given(
    st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 6), st.sampled_from(["position", "velocity", "action"])
)
def test_one_number_that_is_none_is_refused_and_placed(number, joint, where):
    spoilt = GOOD.copy()
    spoilt[joint] = number
    named = {"position": "measured position", "velocity": "measured velocity", "action": "action"}[where]
    answer = finite_answer(where, spoilt)
    assert not answer.feasible
    assert answer.reason == f"{named}: not finite at joint {joint}"


def test_the_cause_is_named_before_its_consequence():
    nothing = np.full(7, np.nan)
    assert Finite(7).certify(state(position=nothing), nothing).reason.startswith("measured position")


@pytest.mark.parametrize("shape", [(), (0,), (6,), (8,), (1, 7)])
@pytest.mark.parametrize("where", ["position", "velocity", "action"])
def test_another_shape_is_refused(where, shape):
    values = np.zeros(shape)
    answer = finite_answer(where, values)
    assert not answer.feasible
    assert f"expected 7 values, got shape {shape}" in answer.reason


# Fresh streams


@given(ages, ages, ages, st.floats(0, 1e6))
def test_streams_pass_exactly_while_all_are_younger_than_their_bounds(joints, block, touch, now):
    received: dict[str, float] = {"joints": now - joints, "block": now - block, "touch": now - touch}
    measured = {name: now - at for name, at in received.items()}  # as rounded
    bounds = {"joints": 0.1, "block": 0.2, "touch": 0.2}
    answer = FreshStreams(BOUNDS, STREAMS).certify(state(now, received=received), GOOD)
    assert answer.feasible == all(measured[name] <= bounds[name] for name in STREAMS)
    if answer.feasible:
        assert answer.margin == min(bounds[name] - measured[name] for name in STREAMS)
        np.testing.assert_array_equal(answer.action, GOOD)


def test_a_stale_stream_is_named_with_its_age():
    answer = FreshStreams(BOUNDS, STREAMS).certify(state(received={"joints": 99.95, "block": 99.7, "touch": 100}), GOOD)
    assert not answer.feasible
    assert answer.reason == "stream block is stale: expected age <= 0.2 s, got 0.300 s"


def test_a_stream_that_never_came_is_named():
    answer = FreshStreams(BOUNDS, STREAMS).certify(state(received={"joints": 100.0, "touch": 100.0}), GOOD)
    assert not answer.feasible
    assert answer.reason == "stream block: nothing received"


@pytest.mark.parametrize(("received", "word"), [(np.nan, "stale"), (-np.inf, "stale"), (101.0, "from the future")])
def test_a_clock_that_cannot_be_true_is_refused(received, word):
    answer = FreshStreams(BOUNDS, ("joints",)).certify(state(received={"joints": received}), GOOD)
    assert not answer.feasible
    assert f"stream joints is {word}" in answer.reason


@given(st.floats(0.001, 1), ages)
def test_the_policy_may_ask_for_younger_readings_but_never_accept_older_ones(max_age, age):
    guard = FreshStreams(BOUNDS, ("block",), {"block": max_age})
    received = {"block": 100.0 - age}
    answer = guard.certify(state(received=received), GOOD)
    assert answer.feasible == (100.0 - received["block"] <= min(max_age, 0.2))


# The policy


@given(ages)
def test_a_silent_policy_is_refused_beyond_its_bound(waiting):
    answer = PolicyAlive(BOUNDS).certify(state(waiting=waiting), GOOD)
    assert answer.feasible == (waiting <= 0.15)
    if not answer.feasible:
        assert answer.reason == f"policy stalled: expected a chunk within 0.15 s, waiting for {waiting:.3f} s"

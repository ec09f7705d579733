"""Observations unlike the training data are warned of or refused, by name, and others are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from controller_drive import FORWARD, Always
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from policy_samples import changed, cube_contract, parse

from onestride.deploy.controller import Mode
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.envelope import Envelope, beyond
from onestride.deploy.safety.types import ControlState
from onestride.hardware.safety.guards import EnvelopeGuard
from onestride.hardware.state import Measurement

CONTRACT = cube_contract()
LOW, HIGH = np.array(CONTRACT.dataset.minimum), np.array(CONTRACT.dataset.maximum)
NAMES, SIZE = CONTRACT.observation_names, CONTRACT.observation_size
STOP, WARN = EnvelopeGuard(reaction="stop"), EnvelopeGuard()
NOMINAL = np.zeros(7)


def certify(observation: np.ndarray | None, terms: EnvelopeGuard = STOP, contract=CONTRACT):
    state = ControlState(0.0, 0.005, Measurement(NOMINAL, NOMINAL), NOMINAL, observation=observation)
    return Envelope(terms, contract).certify(state, NOMINAL)


@given(arrays(float, SIZE, elements=st.floats(0, 1)), st.integers(0, SIZE - 1), st.floats(-0.5, 0.5))
def test_it_passes_exactly_what_is_within_the_ranges_and_their_margin(shares, element, excess):
    observation = LOW + shares * (HIGH - LOW)
    assert certify(observation) == certify(None)
    over = (HIGH - LOW)[element] * abs(excess)
    observation[element] = HIGH[element] + over if excess > 0 else LOW[element] - over
    room = max(STOP.margin * (HIGH - LOW)[element], STOP.least)
    if abs(over - room) < 1e-9:
        return
    answer = certify(observation)
    assert answer.feasible == (over < room)
    if not answer.feasible:
        assert answer.reason.startswith(f"observation {NAMES[element]} left the training data: expected ")
    warned = certify(observation, WARN)
    assert warned.feasible
    assert warned.warnings == (() if over < room else ("outside",))
    assert warned.active == ()


def test_an_element_that_never_changed_has_the_least_of_room():
    def constant(content):
        content["dataset"]["minimum"][3] = content["dataset"]["maximum"][3] = 0.5

    contract, observation = parse(changed(CONTRACT, constant)), (LOW + HIGH) / 2
    observation[3] = 0.5 + 0.9 * STOP.least
    assert certify(observation, contract=contract).feasible
    observation[3] = 0.5 + 1.1 * STOP.least
    assert f"observation {NAMES[3]} left" in certify(observation, contract=contract).reason


@pytest.mark.parametrize("order", ["step_major", "term_major"])
def test_of_a_history_the_newest_step_is_looked_at(order):
    contract = parse(changed(CONTRACT, lambda content: content.update(history=2, history_order=order)))
    inside, outside = (LOW + HIGH) / 2, HIGH + 1.0
    assert certify(np.concatenate([outside, inside])[contract.flat_order], contract=contract).feasible
    assert not certify(np.concatenate([inside, outside])[contract.flat_order], contract=contract).feasible


def test_what_is_no_number_is_outside():
    observation = (LOW + HIGH) / 2
    observation[5] = np.nan
    assert f"observation {NAMES[5]} left the training data" in certify(observation).reason


def test_beyond_is_the_distance_for_whole_batches():
    low, high = np.array([0.0, -1.0]), np.array([1.0, 1.0])
    found = beyond(np.array([[0.25, 3.0], [-2.0, 0.0]]), low, high)
    np.testing.assert_array_equal(found, [[-0.25, 2.0], [2.0, -1.0]])


# In the controller


def seen(driven, start: np.ndarray) -> np.ndarray:
    """Observations of sixty policy steps (60, Do)."""
    driven.activate(start)
    return np.array([tick.observation for tick in driven.run(600) if tick.observation is not None])


@pytest.mark.parametrize("reaction", ["warn", "stop"])
def test_a_run_beyond_the_data_is_counted_or_stopped_in_its_tick(drive, contract, start, reaction):
    """The data ends where the first seconds of the run did."""
    everything = seen(drive(Always(np.tile(FORWARD, (5, 1)))), start)
    known = everything[:8]

    def learnt(content):
        content["dataset"]["minimum"], content["dataset"]["maximum"] = known.min(0).tolist(), known.max(0).tolist()

    own = parse(changed(contract, learnt))
    terms = EnvelopeGuard(reaction=reaction)
    low, high = known.min(0), known.max(0)
    room = np.maximum(terms.margin * (high - low), terms.least)
    outside = ((everything < low - room) | (everything > high + room)).any(axis=1)
    assert 0 < outside.argmax() < len(everything)
    others = [one for one in drive().controller.chain.filters if one.name != "envelope"]
    driven = drive(chain=Chain([*others[:3], Envelope(terms, own), *others[3:]]))
    again = seen(driven, start)
    if reaction == "warn":
        np.testing.assert_array_equal(again, everything)
        assert driven.controller.chain.counters["envelope.outside"] == outside.sum()
        assert driven.controller.chain.counters["refusals"] == 0
    else:
        first = [tick.mode for tick in driven.ticks].index(Mode.FAULT)
        assert first == 10 * outside.argmax()
        assert "left the training data" in driven.controller.reason

"""Whatever goes wrong is seen in its declared time and ends in the declared safe stop, which stays until rearmed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from controller_drive import with_nan
from safe_stop import After, assert_safe_stop

from onestride.deploy.runtime import Prediction
from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.types import Certified, ControlState
from onestride.hardware.state import Array, Measurement

FAULTED_AT = 83  # the tick that a fault is put into: amidst a policy step, amidst a chunk
NEXT_REQUEST = 100  # chunks of 5 actions of 10 ticks each: requests at ticks 0, 50, 100


# Faults: each with how it comes about, what is said of it, and how many ticks may pass before it is seen


def spoilt(**changes: Callable[[Measurement], object]) -> Callable[[int, Measurement], Measurement]:
    def spoil(index: int, measurement: Measurement) -> Measurement:
        if index < FAULTED_AT:
            return measurement
        return replace(measurement, **{name: change(measurement) for name, change in changes.items()})

    return spoil


def stalled(stream: str) -> Callable[[Measurement], dict[str, float]]:
    return lambda measurement: measurement.received | {stream: FAULTED_AT * 0.005}


def moved_away(measurement: Measurement) -> dict:
    pose = measurement.objects["block_0"]
    return {"block_0": replace(pose, position=with_nan(pose.position, 2))}


MEASUREMENTS = {
    "NaN in a joint position": (
        spoilt(position=lambda m: with_nan(m.position, 2)),
        "measured position: not finite at joint 2",
        0,
    ),
    "infinite joint velocity": (spoilt(velocity=lambda m: m.velocity + np.inf), "measured velocity: not finite", 0),
    "a joint too few": (spoilt(position=lambda m: m.position[:6]), "measured position: expected 7 values, got", 0),
    "NaN in an object's pose": (spoilt(objects=moved_away), "observation is not finite: block_0_position.z", 10),
    "an object gone": (spoilt(objects=lambda _: {}), "unknown object pose: got 'block_0'", 10),
    "a stream never received": (spoilt(received=lambda _: {"joints": 0.415}), "nothing received", 0),
    "joints stalled": (spoilt(received=stalled("joints")), "stream joints is stale: expected age <= 0.1 s", 21),
    "an object stalled": (spoilt(received=stalled("block_0")), "stream block_0 is stale: expected age <= 0.2", 41),
    "a reading stalled": (spoilt(received=stalled("gripper_contact")), "stream gripper_contact is stale", 41),
    "a clock that jumps": (
        spoilt(received=lambda m: {name: at + 60.0 for name, at in m.received.items()}),
        "stream joints is from the future",
        0,
    ),
}


def failing(error: str) -> Callable[[int], Prediction]:
    return lambda at: Prediction(None, at, error)


def chunk_of(values: np.ndarray) -> Callable[[int], Prediction]:
    return lambda at: Prediction(values.astype(np.float32), at)


INFERENCES = {
    "inference fails": (failing("RuntimeError: no memory"), "inference failed: RuntimeError: no memory", 0),
    "NaN in an action": (chunk_of(np.full((5, 5), np.nan)), "policy action is not finite", 0),
    "infinite action": (chunk_of(np.full((5, 5), np.inf)), "policy action is not finite", 0),
    "a chunk too short": (chunk_of(np.zeros((2, 5))), r"expected a chunk of shape \(5, 5\), got \(2, 5\)", 0),
    "an action too short": (chunk_of(np.zeros((5, 4))), r"expected a chunk of shape \(5, 5\), got \(5, 4\)", 0),
    "inference never answers": (lambda _: None, "policy stalled: expected a chunk within 0.1 s", 21),
}


class Throwing:
    """A filter that breaks the rule never to raise, once the time has come."""

    name, at = "throwing", FAULTED_AT * 0.005 - 1e-9

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        if state.now >= self.at:
            raise ZeroDivisionError("a filter's bug")
        return Certified(nominal)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_bad_measurement_ends_in_a_safe_stop(drive, start, name):
    spoil, reason, late = MEASUREMENTS[name]
    driven = drive(spoil=spoil)
    driven.activate(start)
    driven.run(FAULTED_AT + late + 80)
    assert_safe_stop(driven, start, reason, FAULTED_AT, FAULTED_AT + late)


@pytest.mark.parametrize("name", INFERENCES)
def test_a_failing_policy_ends_in_a_safe_stop(drive, start, name):
    then, reason, late = INFERENCES[name]
    inference = After(2, then)
    driven = drive(inference)
    driven.activate(start)
    driven.run(NEXT_REQUEST + late + 80)
    inference.good_requests = 1000
    held = late > 0  # while a chunk is late, the last target is held
    assert_safe_stop(driven, start, reason, NEXT_REQUEST, NEXT_REQUEST + late, moving=not held)


def test_a_filter_that_throws_ends_in_a_safe_stop(drive, start, contract, robot):
    chain = build_chain(contract, robot)
    throwing = Throwing()
    driven = drive(chain=Chain([*chain.filters, throwing]))
    driven.activate(start)
    driven.run(FAULTED_AT + 80)
    throwing.at = float("inf")
    assert_safe_stop(driven, start, "ZeroDivisionError: a filter's bug", FAULTED_AT, FAULTED_AT)


def test_a_fault_from_outside_ends_in_a_safe_stop(drive, start):
    driven = drive()
    driven.activate(start)
    driven.run(FAULTED_AT)
    driven.controller.fault("a second writer on the command topic")
    driven.run(80)
    assert_safe_stop(driven, start, "a second writer on the command topic", FAULTED_AT, FAULTED_AT)


def test_the_first_reason_is_kept(drive, start):
    driven = drive()
    driven.activate(start)
    driven.run(10)
    driven.controller.fault("first")
    driven.controller.fault("second")
    assert driven.run(1)[0].reason == "first"

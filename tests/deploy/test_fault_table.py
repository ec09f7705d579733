"""The table of faults, row by row: how soon each is seen, and what the robot then does.

A fault amidst a motion ends in the declared safe stop: its first command goes out in the tick that sees the fault, well
within two control periods, and it ends as declared; see `safe_stop`. What is refused at load stands in
`test_fault_table_at_load`. Rows that need processes and topics are held by
tests/ros: killed node and plant, second writer (test_controller_node), empty `name`, repeated stamps, missing joints
(test_controller_refusals), two people at the controls (test_teleop).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from controller_drive import FORWARD, Always, Drive, with_nan
from guarded_chain import guarded_chain
from safe_stop import After, assert_safe_stop

from onestride.deploy.arrivals import Arrivals
from onestride.deploy.runtime import Prediction
from onestride.deploy.safety.chain import Chain
from onestride.deploy.safety.projection import Projection
from onestride.deploy.safety.types import Certified, ControlState, Motion, Rows
from onestride.hardware.description import load_robot
from onestride.hardware.safety.guards import FrozenGuard, OverspeedGuard, SignGuard, TrackingGuard
from onestride.hardware.state import Array, Measurement

AT = 83  # the tick of the fault: amidst a policy step, amidst a chunk
NEXT_REQUEST = 100
PERIOD = 0.005
ROBOT = load_robot("ur5e_2f85")
STALE = ROBOT.detection.joints_stale

#: Turns every step, so that commands go on changing whatever is measured.
RESTLESS = np.array([FORWARD, -FORWARD, FORWARD, -FORWARD, -FORWARD])
TURNING = np.tile([0.0, 0.0, 0.0, 1.0, 0.0], (5, 1))
WRIST = 5

Change = Callable[[int, Measurement], Measurement]


def ticks(seconds: float) -> int:
    """Control periods until a bound has passed, and one more for the tick that sees it."""
    return math.ceil(seconds / PERIOD - 1e-6) + 1


def from_fault(change: Callable[[Measurement], Measurement]) -> Change:
    """Spoils measurements from the fault on."""
    return lambda index, measurement: change(measurement) if index >= AT else measurement


@pytest.fixture
def guarded(drive, contract, robot):
    """Makes a drive with every guard in its chain; `behind` comes after them."""

    def make(inference: Always | None = None, *behind, **keywords) -> Drive:
        filters = guarded_chain(contract, robot).filters
        return drive(inference, chain=Chain([*filters, *behind]), **keywords)

    return make


def runs(driven: Drive, start: np.ndarray, seen_within: int = 0) -> Drive:
    """Run into the fault and through the stop."""
    driven.activate(start)
    driven.run(AT + seen_within + 90)
    return driven


# Safe stop, seen in the tick


IN_TICK = {
    "NaN": (lambda m: replace(m, position=with_nan(m.position, 2)), "measured position: not finite at joint 2"),
    "infinite": (lambda m: replace(m, velocity=m.velocity + np.inf), "measured velocity: not finite"),
    "wrong shape": (lambda m: replace(m, position=m.position[:6]), "measured position: expected 7 values, got shape"),
}


@pytest.mark.parametrize("name", IN_TICK)
def test_observation_not_finite_or_of_the_wrong_shape(guarded, start, name):
    change, reason = IN_TICK[name]
    assert_safe_stop(runs(guarded(spoil=from_fault(change)), start), start, reason, AT, AT)


ACTIONS = {
    "NaN": (np.full((5, 5), np.nan), "policy action is not finite"),
    "infinite": (np.full((5, 5), np.inf), "policy action is not finite"),
    "wrong shape": (np.zeros((5, 4)), "expected a chunk of shape"),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_action_not_finite_or_of_the_wrong_shape(guarded, start, name):
    chunk, reason = ACTIONS[name]
    inference = After(2, lambda at: Prediction(chunk.astype(np.float32), at))
    driven = runs(guarded(inference), start, NEXT_REQUEST - AT)
    inference.good_requests = 1000
    assert_safe_stop(driven, start, reason, NEXT_REQUEST, NEXT_REQUEST)


def test_inference_exception(guarded, start):
    inference = After(2, lambda at: Prediction(None, at, "RuntimeError: no memory"))
    driven = runs(guarded(inference), start, NEXT_REQUEST - AT)
    inference.good_requests = 1000
    assert_safe_stop(driven, start, "inference failed: RuntimeError: no memory", NEXT_REQUEST, NEXT_REQUEST)


class Impossible:
    """Asks for a sum of all commands that is at most and at least something else, once the time has come."""

    name, at = "impossible", AT * PERIOD - 1e-9

    def reset(self, motion: Motion) -> None:
        """Nothing to forget."""

    def observe(self, motion: Motion) -> None:
        """Nothing to see."""

    def rows(self, motion: Motion) -> tuple[Rows, ...]:
        if motion.now < self.at:
            return ()
        matrix, sums = np.ones((1, 2, len(ROBOT.joints))), float(motion.sent.sum())
        matrix[:, 1] *= -1.0
        return (Rows(("at_most", "at_least"), matrix, np.array([[sums - 1.0, -sums - 1.0]])),)

    def sent(self, motion: Motion, command: Array) -> None:
        """Nothing to learn."""

    def readings(self) -> dict[str, float]:
        return {}


def test_infeasible_qp(drive, contract, robot, start):
    *first, projection = guarded_chain(contract, robot).filters
    assert isinstance(projection, Projection)
    impossible = Impossible()
    both = Projection([*projection.sources, impossible], robot.joint_names)
    driven = runs(drive(chain=Chain([*first, both])), start)
    impossible.at = math.inf
    assert_safe_stop(driven, start, r"no command keeps .*impossible.*\(solver flag -\d", AT, AT)


class Meddler:
    """Behind the limits, it changes what was certified, once the time has come."""

    name, at = "meddler", AT * PERIOD - 1e-9

    def certify(self, state: ControlState, nominal: Array) -> Certified:
        return Certified(nominal + 0.5, active=("shift",)) if state.now >= self.at else Certified(nominal)


def test_failed_recheck(guarded, start):
    meddler = Meddler()
    driven = runs(guarded(None, meddler), start)
    meddler.at = math.inf
    assert_safe_stop(driven, start, "recheck failed: .*meddler.shift", AT, AT)


def test_speed_above_v_max(guarded, start):
    def races(measurement: Measurement) -> Measurement:
        velocity = measurement.velocity.copy()
        velocity[1] = -(1.01 + OverspeedGuard().margin) * ROBOT.velocity_limits[1]
        return replace(measurement, velocity=velocity)

    driven = runs(guarded(spoil=from_fault(races)), start)
    assert_safe_stop(driven, start, "shoulder_lift_joint moves at 3.487 rad/s, expected at most 3.456", AT, AT)


# Safe stop, seen within the bound


def received(measurement: Measurement, at: float) -> Measurement:
    return replace(measurement, received=measurement.received | {"joints": at})


def test_stalled_stream(guarded, start):
    driven = runs(guarded(spoil=from_fault(partial(received, at=AT * PERIOD))), start, ticks(STALE))
    assert_safe_stop(driven, start, "stream joints is stale", AT, AT + ticks(STALE))


def test_delayed_stream(guarded, start):
    """Samples go on coming without a gap, and are under way for longer and longer; no clock says for how long."""
    arrivals, sent, newest = Arrivals(), dict[int, Measurement](), [-1, 0.0]

    def late(index: int, measurement: Measurement) -> Measurement:
        sent[index] = measurement
        made = index - max(0, index - AT) // 2
        if made > newest[0]:
            newest[:] = made, arrivals.received(index * PERIOD, 1.7e9 + made * PERIOD)
        return received(sent[made], newest[1])

    seen = ticks(2 * STALE) + 1  # a period later every two periods
    assert_safe_stop(runs(guarded(spoil=late), start, seen), start, "stream joints is stale", AT + seen - 2, AT + seen)


def test_slowed_stream(guarded, start):
    """Five samples a second where there were two hundred."""

    def slow(index: int, measurement: Measurement) -> Measurement:
        return received(measurement, (AT + (index - AT) // 40 * 40) * PERIOD) if index >= AT else measurement

    driven = runs(guarded(spoil=slow), start, ticks(STALE))
    assert_safe_stop(driven, start, "stream joints is stale", AT, AT + ticks(STALE))


class Frozen:
    """Repeats the measurement of the fault, as if it were new."""

    def __init__(self) -> None:
        self.kept: Measurement | None = None

    def __call__(self, index: int, measurement: Measurement) -> Measurement:
        if index < AT:
            return measurement
        self.kept = self.kept or measurement
        return replace(measurement, position=self.kept.position, velocity=self.kept.velocity)


def test_frozen_measurement_while_commands_change(guarded, start):
    driven = runs(guarded(Always(RESTLESS), spoil=Frozen()), start, 60)
    terms = FrozenGuard()
    away = np.abs(driven.commands[AT:] - driven.commands[AT - 1])[:, :WRIST].max(axis=1)
    moved = AT + int(np.argmax(away > terms.moved))
    assert_safe_stop(driven, start, "is frozen: its command has moved", moved, moved + 1 + ticks(terms.window))


def test_a_frozen_measurement_of_a_robot_that_rests_is_no_fault(guarded, start):
    driven = guarded(Always(np.zeros((5, 5))), spoil=Frozen())
    driven.activate(start)
    driven.run(AT + 200)
    assert not driven.controller.reason


class Mirrored:
    """One joint turns the other way from the fault on, without a jump."""

    def __init__(self, joint: int) -> None:
        self.joint, self.around = joint, 0.0

    def __call__(self, index: int, measurement: Measurement) -> Measurement:
        if index <= AT:
            self.around = measurement.position[self.joint]
            return measurement
        position, velocity = measurement.position.copy(), measurement.velocity.copy()
        position[self.joint] = 2 * self.around - position[self.joint]
        velocity[self.joint] *= -1
        return replace(measurement, position=position, velocity=velocity)


def test_flipped_sensor_sign(guarded, start):
    """Seen by its motion, or by where it then is not, within two windows and what the drive lags."""
    driven = runs(guarded(Always(TURNING), spoil=Mirrored(WRIST)), start, 120)
    joint = ROBOT.joints[WRIST]
    within = ticks(2 * SignGuard().window + joint.damping / joint.stiffness)
    reason = "wrist_3_joint is (measured to move away from its command|.* rad from where its drive should have it)"
    assert_safe_stop(driven, start, reason, AT, AT + within)


def test_flipped_velocity_sign(guarded, start):
    def flips(measurement: Measurement) -> Measurement:
        return replace(measurement, velocity=-measurement.velocity)

    driven = runs(guarded(spoil=from_fault(flips)), start, 60)
    reason = "is measured to move against its velocity"
    assert_safe_stop(driven, start, reason, AT, AT + ticks(SignGuard().window))


def test_a_position_that_jumps(guarded, start):
    def jumps(measurement: Measurement) -> Measurement:
        position = measurement.position.copy()
        position[0] += 0.3
        return replace(measurement, position=position)

    driven = runs(guarded(spoil=from_fault(jumps)), start)
    assert_safe_stop(driven, start, r"shoulder_pan_joint jumped by 0.\d+ rad in 0.005 s", AT, AT)


def test_tracking_error(guarded, start, monkeypatch):
    """A drive is switched off: its joint stays where it is."""
    driven = guarded(Always(TURNING))
    sends, stays = driven.plant.command, []

    def without_the_wrist(target: Array) -> None:
        if len(driven.ticks) > AT:
            stays.append(float(driven.plant.read().position[WRIST]))
            target = np.array([*target[:WRIST], stays[0], *target[WRIST + 1 :]])
        sends(target)

    monkeypatch.setattr(driven.plant, "command", without_the_wrist)
    runs(driven, start, 100)
    terms, joint = TrackingGuard(), ROBOT.joints[WRIST]
    latest = AT + ticks(2 * joint.damping / joint.stiffness + terms.within)
    reason = r"wrist_3_joint is 0\.\d+ rad from where its drive should have it"
    monkeypatch.setattr(driven.plant, "command", sends)
    assert_safe_stop(driven, start, reason, AT + ticks(terms.within) - 1, latest)


def test_policy_stall(guarded, start):
    inference = After(2, lambda _: None)
    bound = ticks(ROBOT.detection.policy_stall)
    driven = runs(guarded(inference), start, NEXT_REQUEST - AT + bound)
    inference.good_requests = 1000
    assert_safe_stop(driven, start, "policy stalled", NEXT_REQUEST, NEXT_REQUEST + bound, moving=False)


@dataclass
class JumpingClock(Drive):
    """Its clock jumps at the fault, and the streams' clock with it."""

    jump: float = 0.0

    @property
    def now(self) -> float:
        return super().now + (self.jump if len(self.ticks) >= AT else 0.0)


@pytest.mark.parametrize(
    ("jump", "reason"), [(60.0, "the clock jumped: expected"), (-0.1, "the clock ran backwards by 0.095 s")]
)
def test_clock_jump(guarded, start, jump, reason):
    made = guarded()
    driven = runs(JumpingClock(made.controller, made.plant, jump=jump), start)
    assert_safe_stop(driven, start, reason, AT, AT)


def test_the_clock_of_a_stream_jumps(guarded, start):
    def ahead(measurement: Measurement) -> Measurement:
        return replace(measurement, received={name: at + 60.0 for name, at in measurement.received.items()})

    driven = runs(guarded(spoil=from_fault(ahead)), start)
    assert_safe_stop(driven, start, "is from the future", AT, AT)

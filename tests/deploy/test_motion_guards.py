"""Sound robots are left alone, whatever they are told; sick sensors and drives are found within the declared bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moving_arm import Run, first_refusal, follow, ramp, wander

from onestride.deploy.safety.clock import Clock
from onestride.deploy.safety.frozen import Frozen
from onestride.deploy.safety.samples import Lasting, Window, worst
from onestride.deploy.safety.sign import Sign
from onestride.deploy.safety.speed import Overspeed, Rate
from onestride.deploy.safety.tracking import Tracking, lagged
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import load_robot
from onestride.hardware.safety.guards import (
    ClockGuard,
    FrozenGuard,
    OverspeedGuard,
    RateGuard,
    SignGuard,
    TrackingGuard,
)
from onestride.hardware.state import Measurement

ROBOT = load_robot("ur5e_2f85")
JOINTS = len(ROBOT.joints)
GRIPPER = JOINTS - 1
FASTEST = ROBOT.velocity_limits
SAID = {
    "clock": ClockGuard(),
    "frozen": FrozenGuard(),
    "sign": SignGuard(),
    "rate": RateGuard(),
    "overspeed": OverspeedGuard(),
    "tracking": TrackingGuard(),
}
MADE = {
    "clock": lambda: Clock(ClockGuard()),
    "frozen": lambda: Frozen(FrozenGuard(), ROBOT),
    "sign": lambda: Sign(SignGuard(), ROBOT),
    "rate": lambda: Rate(RateGuard(), ROBOT),
    "overspeed": lambda: Overspeed(OverspeedGuard(), ROBOT),
    "tracking": lambda: Tracking(TrackingGuard(), ROBOT),
}
rates = st.sampled_from([100.0, 200.0, 500.0])
RATE = 200.0


@settings(max_examples=30)
@given(rates, st.integers(0, 10_000), st.floats(0, 0.02), st.sampled_from([0.0, 1e-4, 1e-3]), st.floats(0.7, 1.0))
def test_no_guard_stops_a_sound_robot(rate, seed, latency, quantum, slower):
    """Reversals at full speed, drives quicker than declared, latency, coarse encoders, jitter of the samples."""
    run = follow(ROBOT, wander(ROBOT, rate, 1.5, seed), rate, latency, slower).rounded(quantum)
    ages = np.random.default_rng(seed).exponential(0.003, len(run.time)).clip(0, 0.03)
    states = run.sampled_late(ages).states()
    for name, make in MADE.items():
        assert first_refusal(make(), states) == (None, ""), name


@pytest.mark.parametrize("name", MADE)
def test_a_robot_that_rests_is_left_alone(name):
    still = follow(ROBOT, ramp(ROBOT, RATE, 3.0, 0.0), RATE).states()
    assert first_refusal(MADE[name](), still) == (None, "")


@pytest.mark.parametrize("name", MADE)
def test_reset_forgets_everything(name):
    """As at an activation elsewhere, later, on another clock."""
    guard = MADE[name]()
    here = follow(ROBOT, wander(ROBOT, RATE, 1.0, 3), RATE)
    assert first_refusal(guard, here.states()) == (None, "")
    guard.reset()
    there = replace(here, time=here.time - 5.0, received=here.received - 5.0, position=here.position + 2.0)
    assert first_refusal(guard, replace(there, sent=here.sent + 2.0).states()) == (None, "")


@pytest.mark.parametrize("name", ["frozen", "sign", "rate", "tracking"])
def test_the_same_sample_again_is_no_news(name):
    """A silent stream is for `fresh_streams` to find: here it looks as if nothing moved."""
    run = follow(ROBOT, ramp(ROBOT, RATE, 1.0, 1.0), RATE)
    silent = [replace(state, measurement=run.states()[20].measurement) for state in run.states()[20:]]
    assert first_refusal(MADE[name](), run.states()[:20] + silent) == (None, "")


def spoiled(run: Run, at: int, joint: int, position: np.ndarray) -> Run:
    """From tick `at` on, one joint is measured elsewhere (T - at,)."""
    measured = run.position.copy()
    measured[at:, joint] = position
    return replace(run, position=measured)


# Frozen


@settings(max_examples=25)
@given(st.integers(0, 5), st.floats(0.1, 3.0), rates)
def test_a_frozen_joint_is_found_once_its_command_has_moved(joint, speed, rate):
    run, at = follow(ROBOT, ramp(ROBOT, rate, 1.2, speed), rate), round(0.3 * rate)
    found, reason = first_refusal(MADE["frozen"](), spoiled(run, at, joint, run.position[at, joint]).states())
    bound = SAID["frozen"].moved / speed + SAID["frozen"].window
    assert found is not None
    assert bound - 2 / rate <= run.time[found] - run.time[at] <= bound + 3 / rate
    assert reason.startswith(f"{ROBOT.joint_names[joint]} is frozen")


def test_all_joints_frozen_at_once_are_found_too():
    run, at = follow(ROBOT, ramp(ROBOT, RATE, 1.0, 1.0), RATE), 60
    position = run.position.copy()
    position[at:] = position[at]
    found, _ = first_refusal(MADE["frozen"](), replace(run, position=position).states())
    assert found is not None
    assert run.time[found] - run.time[at] <= 0.02 + SAID["frozen"].window + 3 / RATE


def test_a_gripper_that_holds_something_is_not_frozen():
    run = follow(ROBOT, ramp(ROBOT, RATE, 1.0, 1.0), RATE)
    held = spoiled(run, 40, GRIPPER, run.position[40, GRIPPER]).states()
    for name, make in MADE.items():
        assert first_refusal(make(), held) == (None, ""), name


# Sign


@settings(max_examples=25)
@given(st.integers(0, 5), st.floats(0.3, 3.0), rates, st.floats(0, 0.4))
def test_a_flipped_position_is_found_within_its_window(joint, speed, rate, begins):
    """From the start, or from amidst a motion, mirrored where it was: no jump gives it away."""
    run, at = follow(ROBOT, ramp(ROBOT, rate, 1.5, speed), rate), round(begins * rate)
    mirrored = 2 * run.position[at, joint] - run.position[at:, joint]
    found, reason = first_refusal(MADE["sign"](), spoiled(run, at, joint, mirrored).states())
    assert found is not None
    lag = ROBOT.joints[joint].damping / ROBOT.joints[joint].stiffness
    assert run.time[found] - run.time[at] <= 2 * SAID["sign"].window + lag
    assert reason.startswith(f"{ROBOT.joint_names[joint]} is measured to move away from its command")


@settings(max_examples=25)
@given(st.integers(0, 5), st.floats(0.3, 3.0), rates)
def test_a_flipped_velocity_is_found_within_its_window(joint, speed, rate):
    run, at = follow(ROBOT, ramp(ROBOT, rate, 1.5, speed), rate), round(0.5 * rate)
    velocity = run.velocity.copy()
    velocity[at:, joint] *= -1
    found, reason = first_refusal(MADE["sign"](), replace(run, velocity=velocity).states())
    assert found is not None
    assert run.time[found] - run.time[at] <= SAID["sign"].window + 2 / rate
    assert reason.startswith(f"{ROBOT.joint_names[joint]} is measured to move against its velocity")


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(0, 0.02), st.floats(0.7, 1.0))
def test_stalls_of_the_stream_are_no_flipped_sign(seed, latency, slower):
    """For up to 0.2 s, again and again, no sample comes while joints turn round as they are told."""
    rng = np.random.default_rng(seed)
    states = follow(ROBOT, wander(ROBOT, RATE, 2.0, seed), RATE, latency, slower).states()
    at = 1
    while at < len(states):
        if rng.random() < 0.03:
            last, stop = states[at - 1].measurement, min(at + int(rng.integers(4, 40)), len(states))
            states[at:stop] = [replace(state, measurement=last) for state in states[at:stop]]
            at = stop
        at += 1
    assert first_refusal(MADE["sign"](), states) == (None, "")


def test_a_flipped_position_is_found_after_a_stall():
    run, at = follow(ROBOT, ramp(ROBOT, RATE, 1.5, 1.0), RATE), 60
    states = spoiled(run, at, 1, 2 * run.position[at, 1] - run.position[at:, 1]).states()
    states[at : at + 20] = [replace(state, measurement=states[at].measurement) for state in states[at : at + 20]]
    found, _ = first_refusal(MADE["sign"](), states)
    assert found is not None
    assert run.time[found] - run.time[at + 20] <= 2 * SAID["sign"].window


def test_a_driver_that_reports_no_velocity_is_no_flipped_sign():
    run = follow(ROBOT, wander(ROBOT, RATE, 2.0, 5), RATE)
    assert first_refusal(MADE["sign"](), replace(run, velocity=np.zeros_like(run.velocity)).states()) == (None, "")


# Rate and overspeed


@given(st.integers(0, 5), st.floats(-3, 3), st.integers(10, 100))
def test_a_jump_is_refused_exactly_where_the_joint_cannot_have_gone(joint, jump, at):
    run = follow(ROBOT, ramp(ROBOT, RATE, 0.6, 0.0), RATE)
    found, reason = first_refusal(MADE["rate"](), spoiled(run, at, joint, run.position[at:, joint] + jump).states())
    possible = FASTEST[joint] * (1 / RATE + SAID["rate"].jitter)
    assert found == (at if abs(jump) > possible + 1e-9 else None) or abs(abs(jump) - possible) < 1e-9
    if found is not None:
        assert reason.startswith(f"{ROBOT.joint_names[joint]} jumped by {abs(jump):.3f} rad in 0.005 s")


def test_lost_samples_leave_time_for_the_way():
    run = follow(ROBOT, ramp(ROBOT, RATE, 1.0, 3.0), RATE)
    received = run.received.copy()
    received[60:90] = received[60]
    position = run.position.copy()
    position[60:90] = position[60]
    assert first_refusal(MADE["rate"](), replace(run, received=received, position=position).states()) == (None, "")


@given(st.integers(0, 6), st.floats(-10, 10))
def test_a_speed_is_refused_exactly_above_the_joints_largest(joint, speed):
    run = follow(ROBOT, ramp(ROBOT, RATE, 0.1, 0.0), RATE)
    velocity = run.velocity.copy()
    velocity[7, joint] = speed
    found, reason = first_refusal(MADE["overspeed"](), replace(run, velocity=velocity).states())
    bound = FASTEST[joint] * (1 + SAID["overspeed"].margin)
    assert found == (7 if abs(speed) > bound else None)
    assert (f"{ROBOT.joint_names[joint]} moves at {abs(speed):.3f} rad/s" in reason) == (found is not None)


def test_the_speed_at_activation_counts():
    measured = Measurement(np.zeros(JOINTS), np.full(JOINTS, 9.0), received={"joints": 1.0})
    state = ControlState(1.0, 0.005, measured, np.zeros(JOINTS))
    assert not MADE["overspeed"]().certify(state, state.last_sent).feasible


# Tracking


@settings(max_examples=25)
@given(st.integers(0, 5), st.floats(0.3, 3.0), rates)
def test_a_joint_that_does_not_follow_is_found(joint, speed, rate):
    """It is stuck, while its encoder goes on trembling."""
    run, at = follow(ROBOT, ramp(ROBOT, rate, 2.0, speed), rate), round(0.3 * rate)
    trembling = run.position[at, joint] + 1e-4 * np.random.default_rng(1).standard_normal(len(run.time) - at)
    found, reason = first_refusal(MADE["tracking"](), spoiled(run, at, joint, trembling).states())
    assert found is not None
    terms = SAID["tracking"]
    away = np.abs(run.position[at:, joint] - run.position[at, joint])
    begun = float(run.time[at + int(np.argmax(away > terms.error - 1e-3))])
    assert terms.within - 2 / rate <= run.time[found] - begun <= terms.within + 5 / rate + 0.05
    assert reason.startswith(f"{ROBOT.joint_names[joint]} is ")


def test_an_error_that_passes_in_time_is_forgiven():
    run = follow(ROBOT, ramp(ROBOT, RATE, 1.5, 0.0), RATE)
    position = run.position.copy()
    position[50:85, 2] += 1.0  # 0.175 s
    position[100:135, 2] -= 1.0
    assert first_refusal(MADE["tracking"](), replace(run, position=position).states()) == (None, "")
    position[135:150, 2] -= 1.0
    found, _ = first_refusal(MADE["tracking"](), replace(run, position=position).states())
    assert found in range(140, 143)


def test_a_declared_lag_replaces_the_gains():
    quick = follow(ROBOT, ramp(ROBOT, RATE, 1.5, 2.0), RATE, slower=0.05)
    assert "is 0." in first_refusal(MADE["tracking"](), quick.states())[1]
    guard = Tracking(TrackingGuard(lag=0.005), ROBOT)
    assert first_refusal(guard, quick.states()) == (None, "")


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(1e-4, 1.0), st.floats(0.01, 0.5))
def test_a_lag_in_two_steps_is_a_lag_in_one(expected, sent, elapsed, lag):
    lags = np.array([lag])
    once = lagged(np.array([expected]), np.array([sent]), elapsed, lags)
    half = lagged(np.array([expected]), np.array([sent]), elapsed / 2, lags)
    np.testing.assert_allclose(lagged(half, np.array([sent]), elapsed / 2, lags), once, atol=1e-12)


# Clock


@given(st.floats(-100, 100).filter(lambda jump: abs(jump) > 1e-6), st.integers(1, 50))
def test_a_clock_that_jumps_is_refused_in_the_tick(jump, at):
    run = follow(ROBOT, ramp(ROBOT, RATE, 0.3, 0.0), RATE)
    time = run.time.copy()
    time[at:] += jump
    found, reason = first_refusal(MADE["clock"](), replace(run, time=time).states())
    elapsed = time[at] - time[at - 1]
    assert found == (at if elapsed < 0 or elapsed > SAID["clock"].jump else None)
    assert found is None or ("ran backwards" in reason) == (elapsed < 0)


# What they are made of


@given(st.lists(st.tuples(st.floats(0.001, 0.1), st.booleans()), min_size=1, max_size=40))
def test_what_lasts_is_counted_from_the_first_sample_at_which_it_held(samples):
    time, since, lasting = 0.0, None, Lasting(1)
    for step, holds in samples:
        time += step
        since = (time if since is None else since) if holds else None
        (found,) = lasting.add(np.array([holds]), time)
        assert found == (0.0 if since is None else time - since)


@pytest.mark.parametrize("name", ["frozen", "tracking", "sign", "rate"])
def test_a_stream_that_was_silent_and_a_robot_that_waited_are_forgiven(name):
    """As where a simulation was kept waiting: commands went on, it did not, and neither did its samples."""
    run = follow(ROBOT, ramp(ROBOT, RATE, 0.5, 1.0), RATE).states()
    late = follow(ROBOT, ramp(ROBOT, RATE, 1.5, 1.0), RATE).states()[100:]
    ahead = 0.35  # of commands that went out meanwhile [rad]
    waited = [replace(state, now=state.now + ahead, last_sent=state.last_sent + ahead) for state in late]
    caught_up = []
    for state in waited:
        lead = np.exp(-(state.now - waited[0].now) / 0.05) * ahead
        position = state.measurement.position + ahead - lead
        measured = replace(state.measurement, position=position, received={"joints": state.now})
        caught_up.append(replace(state, measurement=measured))
    assert first_refusal(MADE[name](), [*run, *caught_up]) == (None, "")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_a_window_answers_with_what_was_then(steps):
    times, window = np.cumsum(steps), Window(0.7)
    for count, time in enumerate(times, start=1):
        answer = window.push(float(time), np.array([time]))
        old = [then for then in times[:count] if then <= time - 0.7]
        assert answer[0] == (max(old) if old else times[0])


def test_the_worst_joint_is_the_one_of_the_largest_excess():
    assert worst(np.array([-1.0, 0.0, -np.inf])) is None
    assert worst(np.array([-1.0, 0.5, 2.0])) == 2
    assert worst(np.array([-1.0, np.nan, 2.0])) == 1

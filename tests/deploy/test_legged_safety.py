"""The claims for legs: targets that the drives have the effort for, a base that does not lean, a stop that damps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from go1_walks import BASE
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from legged_samples import POSE, ROBOT, legged_contract, legged_measurement

from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.frozen_imu import FrozenImu
from onestride.deploy.safety.guards import FreshStreams
from onestride.deploy.safety.impedance import ImpedanceLimits
from onestride.deploy.safety.projection import Projection
from onestride.deploy.safety.stop import Damping, DecelerateAndHold, safe_stop
from onestride.deploy.safety.tilt import Tilt, tilt_of
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.guards import FrozenImuGuard
from onestride.hardware.state import Inertial, Measurement

HOME = np.array(POSE)
LOWER, UPPER = ROBOT.position_limits
EFFORT = np.array([joint.effort for joint in ROBOT.joints])
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])


def state(measurement: Measurement | None = None) -> ControlState:
    return ControlState(10.0, 0.005, measurement or legged_measurement(), HOME)


def leaning(angle: float, towards: float, turned: float = 0.0) -> Inertial:
    """A base that was turned about up, and then leans by an angle about a horizontal axis of its own."""
    about = np.cos(towards), np.sin(towards)
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    turn = rotation.from_euler("z", turned) * rotation.from_rotvec(angle * np.array([*about, 0.0]))
    return Inertial(turn.as_quat()[[3, 0, 1, 2]], np.zeros(3), np.zeros(3))


# The row of impedance


@given(
    arrays(float, 12, elements=st.floats(0, 1)),
    arrays(float, 12, elements=st.floats(-15, 15)),
    arrays(float, 12, elements=st.floats(-8, 8)),
)
def test_whatever_is_asked_for_the_target_is_inside_the_limits_and_the_drives_have_the_effort(share, speed, nominal):
    position = LOWER + share * (UPPER - LOWER)
    projection = Projection([ImpedanceLimits(ROBOT)], ROBOT.joint_names)
    certified = projection.certify(state(legged_measurement(position=position, velocity=speed)), nominal)
    assert certified.feasible
    assert np.all((certified.action >= LOWER - 1e-9) & (certified.action <= UPPER + 1e-9))
    assert np.all(np.abs(35.0 * (certified.action - position) - 0.5 * speed) <= EFFORT + 1e-6)


@given(arrays(float, 12, elements=st.floats(-0.2, 0.2)), arrays(float, 12, elements=st.floats(-1, 1)))
def test_what_the_drives_can_do_is_left_as_it_is(offset, speed):
    projection = Projection([ImpedanceLimits(ROBOT)], ROBOT.joint_names)
    nominal = HOME + offset
    certified = projection.certify(state(legged_measurement(velocity=speed)), nominal)
    assert certified.action is nominal
    assert not certified.active


def test_the_nearest_target_is_at_the_drives_effort():
    """35 Nm/rad over 23.7 Nm reach 0.677 rad; at 2 rad/s the damping takes 1 Nm of them and gives it back behind."""
    speed = np.full(12, 2.0)
    projection = Projection([ImpedanceLimits(ROBOT)], ROBOT.joint_names)
    certified = projection.certify(state(legged_measurement(velocity=speed)), HOME + np.eye(12)[1] * 2.0)
    assert certified.action[1] == pytest.approx(0.9 + (23.7 + 1.0) / 35.0)
    np.testing.assert_array_equal(np.delete(certified.action, 1), np.delete(HOME, 1))
    assert certified.active == ("impedance.effort",)


def test_a_leg_far_outside_its_limits_is_driven_no_more():
    projection = Projection([ImpedanceLimits(ROBOT)], ROBOT.joint_names)
    certified = projection.certify(state(legged_measurement(position=HOME + np.eye(12)[2] * 3.0)), HOME)
    assert not certified.feasible
    assert "FR_calf_joint" in certified.reason


# Tilt


@given(st.floats(0.0, np.pi), st.floats(-3, 3), st.floats(-3, 3))
def test_the_tilt_is_the_angle_between_the_bases_z_and_up_whichever_way_it_faces(angle, towards, turned):
    assert tilt_of(leaning(angle, towards, turned)) == pytest.approx(angle, abs=1e-6)


@given(st.floats(0.0, np.pi), st.floats(-3, 3), st.floats(-3, 3))
def test_it_trips_beyond_the_declared_angle_and_only_there(angle, towards, turned):
    limit = BASE.tilt
    certified = Tilt(ROBOT).certify(state(legged_measurement(imu=leaning(angle, towards, turned))), HOME)
    if abs(angle - limit) > 1e-6:
        assert certified.feasible is (angle < limit)
    if certified.feasible:
        assert certified.margin == pytest.approx(limit - angle, abs=1e-6)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"orientation": np.zeros(4)},
        {"orientation": np.full(4, np.nan)},
        {"orientation": 2.0 * UPRIGHT},
        {"orientation": UPRIGHT[:3]},
        {"angular_velocity": np.array([0.0, np.inf, 0.0])},
        {"acceleration": np.array([0.0, np.nan, 0.0])},
    ],
)
def test_a_sensor_that_says_nothing_sound_trips(spoilt):
    imu = replace(Inertial(UPRIGHT, np.zeros(3), np.zeros(3)), **spoilt)
    assert not Tilt(ROBOT).certify(state(legged_measurement(imu=imu)), HOME).feasible


def test_no_sensor_trips_and_a_robot_without_base_has_no_tilt():
    assert not Tilt(ROBOT).certify(state(legged_measurement(imu=None)), HOME).feasible
    with pytest.raises(OneStrideError, match="expects a robot with a floating base, got panda"):
        Tilt(load_robot("panda"))


# A frozen inertial sensor


def refused_at(states: list[ControlState]) -> int | None:
    guard = FrozenImu(FrozenImuGuard(), ROBOT)
    return next((at for at, one in enumerate(states) if not guard.certify(one, HOME).feasible), None)


def stream(
    readings: list[Inertial], commands: list[float], received: list[float] | None = None, rate: float = 200.0
) -> list[ControlState]:
    """Ticks with these readings, while the first joint's command is this far from home [rad]."""
    times = [index / rate for index in range(len(readings))]
    states = []
    for now, imu, command, came in zip(times, readings, commands, received or times, strict=True):
        measured = legged_measurement(imu=imu, received={"joints": now, "imu": came})
        states.append(ControlState(now, 1.0 / rate, measured, HOME + command * np.eye(12)[0]))
    return states


RESTING = Inertial(UPRIGHT, np.zeros(3), np.array([0.0, 0.0, 9.81]))


def trembling(at: int) -> Inertial:
    """In the last digit of every number, every other sample."""
    return Inertial(*(np.nextafter(part, at % 2) for part in (UPRIGHT, np.zeros(3), RESTING.acceleration)))


PARTS = ("orientation", "angular_velocity", "acceleration")


@given(st.integers(0, 60), st.sampled_from([50.0, 200.0, 500.0]), st.floats(0.051, 0.5))
def test_a_frozen_sensor_is_found_within_the_window_once_commands_have_moved(at, rate, moved):
    """It freezes at its first reading; the command makes one step at `at`."""
    commands = [moved if index >= at else 0.0 for index in range(200)]
    found = refused_at(stream([RESTING] * 200, commands, rate=rate))
    if at == 0:
        assert found is None, "the command has not moved since"
    else:
        assert found is not None
        assert 0 <= found - at - round(0.1 * rate) <= 1


def test_a_sensor_without_noise_is_not_frozen_where_the_robot_is_commanded_to_rest():
    assert refused_at(stream([RESTING] * 200, [0.04 * (index % 2) for index in range(200)])) is None


def test_what_trembles_in_its_last_digit_is_not_frozen():
    assert refused_at(stream(list(map(trembling, range(200))), [0.3 * (at % 2) for at in range(200)])) is None


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("since", [0, 60])
def test_one_part_that_freezes_alone_is_found_and_named(part, since):
    """The others go on; the command moves steadily: the part has to stay for as long as that takes, and more."""
    readings = [replace(trembling(at), **{part: getattr(trembling(min(at, since)), part)}) for at in range(200)]
    states = stream(readings, [0.01 * at for at in range(200)])
    found = refused_at(states)
    assert found is not None
    assert found - since - 6 - round(0.1 * 200) in (0, 1, 2), "5 ticks for 0.05 rad, and the window"
    guard = FrozenImu(FrozenImuGuard(), ROBOT)
    *_, last = (guard.certify(one, HOME) for one in states[: found + 1])
    assert f"its {part.replace('_', ' ')} has not in 0.1 s" in last.reason


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_still_between_steps_of_its_own_is_not_frozen(part):
    """A sensor that renews one part every 40 ms only."""
    readings = [replace(trembling(at), **{part: getattr(RESTING, part) + 1e-6 * (at // 8)}) for at in range(200)]
    assert refused_at(stream(readings, [0.02 * at for at in range(200)])) is None


def test_a_silent_sensor_is_not_a_frozen_one():
    """That is for `fresh_streams` to say; the first sample after a silence adds none of it."""
    commands = [0.01 * at for at in range(200)]
    assert refused_at(stream([RESTING] * 200, commands, [0.0] * 200)) is None
    assert refused_at(stream([RESTING] * 200, commands, [0.0] * 199 + [1.0])) is None


def test_a_robot_without_base_has_no_inertial_sensor_to_watch():
    with pytest.raises(OneStrideError, match="frozen_imu expects a robot with a floating base, got panda"):
        FrozenImu(FrozenImuGuard(), load_robot("panda"))


@pytest.mark.parametrize("robot", ["go1", "go2", "spot"])
def test_every_robot_on_legs_declares_what_watches_its_inertial_sensor(robot):
    assert {"fresh_streams", "frozen_imu", "tilt"} <= {terms.filter for terms in load_robot(robot).safety}


# Streams


@pytest.mark.parametrize("stream", ["joints", "imu", "base_velocity"])
def test_a_stream_that_stalls_is_a_fault_on_legs_also_where_only_the_tilt_needs_it(stream):
    terms = [{"name": "v", "source": {"kind": "base_velocity", "origin": "odometry"}, "unit": "m/s"}]
    guard = FreshStreams.of(legged_contract(observations=terms), ROBOT)
    measurement = legged_measurement(vectors={"base_velocity": np.zeros(3)})
    assert guard.certify(state(measurement), HOME).feasible
    old = replace(measurement, received={**measurement.received, stream: 10.0 - ROBOT.detection.joints_stale - 0.01})
    answer = guard.certify(state(old), HOME)
    assert (answer.feasible, stream in answer.reason) == (False, True)


def test_an_old_velocity_command_is_no_fault():
    measurement = legged_measurement(vectors={"velocity_command": np.ones(3)})
    old = replace(measurement, received={**measurement.received, "velocity_command": 0.0})
    assert FreshStreams.of(legged_contract(), ROBOT).certify(state(old), HOME).feasible


def test_the_declared_chain_of_every_robot_on_legs_can_be_built():
    chain = build_chain(legged_contract(), ROBOT)
    names = [one.name for one in chain.filters]
    assert {"finite", "fresh_streams", "policy_alive", "tilt"} <= set(names)
    projection = chain.filters[-1]
    assert isinstance(projection, Projection)
    assert [source.name for source in projection.sources] == ["impedance"]
    assert chain.certify(state(), HOME).feasible


# The stop


def test_the_stop_is_the_declared_one():
    assert isinstance(safe_stop(ROBOT, 0.005), Damping)
    assert isinstance(safe_stop(load_robot("ur5e_2f85"), 0.005), DecelerateAndHold)


@pytest.mark.parametrize("period", [0.002, 0.005, 0.0123])
def test_damping_lasts_as_long_as_declared_and_says_so(period):
    stop = safe_stop(ROBOT, period)
    stop.begin(HOME, np.ones(12), np.ones(12))
    ticks = 0
    while not stop.at_rest:
        assert stop.damping
        np.testing.assert_array_equal(stop.next(), HOME)
        ticks += 1
    assert 0.0 <= ticks * period - ROBOT.safe_stop.completes_within < period * 1.001
    assert stop.damping
    np.testing.assert_array_equal(stop.next(), HOME)

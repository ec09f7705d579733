"""The watchdog's judgement: when it stops a robot, how, and when it leaves it alone again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onestride.deploy.heartbeat import Heartbeat, Pulse, heartbeat_size, parse_heartbeat
from onestride.deploy.safety.stop import DecelerateAndHold
from onestride.deploy.watchdog import LOOKS, Watch, Watchdog
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError

ROBOT = load_robot("ur5e_2f85")
JOINTS = len(ROBOT.joints)
PERIOD = 0.005
START = np.array([joint.default for joint in ROBOT.joints])


def beat(*, in_charge: bool = True, velocity: float = 0.0) -> Heartbeat:
    """A heartbeat at the default pose, with the arm's command moving at `velocity` [rad/s]."""
    moving = np.where(np.isfinite(ROBOT.velocity_limits), velocity, 0.0)
    return Heartbeat(in_charge, PERIOD, START, moving, np.zeros(JOINTS))


def looks_until_stop(watchdog: Watchdog, most: int = 3 * LOOKS) -> int:
    for count in range(1, most + 1):
        if watchdog.look():
            return count
    return most


@given(st.lists(arrays(float, JOINTS, elements=st.floats(-3, 3)), min_size=1, max_size=6))
def test_a_pulse_tells_the_command_and_its_differences(commands):
    message = np.zeros(heartbeat_size(JOINTS))
    pulse = Pulse(message, PERIOD)
    idle = parse_heartbeat(message, JOINTS)
    assert (idle.in_charge, idle.period) == (False, PERIOD)
    for command in commands:
        pulse.sent(command)
    heard = parse_heartbeat(message, JOINTS)
    path = np.array([commands[0]] * 2 + commands)  # nothing is known before the first, so it counts as resting
    assert heard.in_charge
    np.testing.assert_array_equal(heard.command, commands[-1])
    np.testing.assert_allclose(heard.velocity, np.diff(path, axis=0)[-1] / PERIOD, atol=1e-9)
    np.testing.assert_allclose(heard.acceleration, np.diff(path, n=2, axis=0)[-1] / PERIOD**2, atol=1e-6)
    pulse.rest()
    assert not parse_heartbeat(message, JOINTS).in_charge
    pulse.sent(commands[0] + 1.0)
    assert not parse_heartbeat(message, JOINTS).velocity.any(), "what was sent before the rest counts no more"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values[:-1], "finite numbers"),
        (lambda values: np.append(values[:-1], np.nan), "finite numbers"),
        (lambda values: np.concatenate([[1.0, 0.0], values[2:]]), "period > 0"),
    ],
)
def test_nonsense_is_no_heartbeat(change, words):
    values = np.zeros(heartbeat_size(JOINTS))
    Pulse(values, PERIOD).sent(START)
    with pytest.raises(OneStrideError, match=words):
        parse_heartbeat(change(values), JOINTS)


def test_it_stops_the_robot_within_the_declared_time():
    """From the last heartbeat, which may have come right after a look, and not much earlier."""
    watchdog = Watchdog(ROBOT)
    watchdog.hear(beat())
    silence = looks_until_stop(watchdog) * watchdog.look_period
    assert silence == pytest.approx(ROBOT.detection.heartbeat)
    assert watchdog.watch is Watch.STOPPING


@given(st.lists(st.integers(0, LOOKS - 2), max_size=20))
def test_it_is_silent_while_heartbeats_come(gaps):
    watchdog = Watchdog(ROBOT)
    for gap in gaps:
        watchdog.hear(beat())
        assert not any(watchdog.look() for _ in range(gap + 1))
    assert watchdog.stops == 0


@pytest.mark.parametrize("heartbeats", [[], [beat(in_charge=False)], [beat(), beat(in_charge=False)]])
def test_a_controller_that_never_was_in_charge_or_said_farewell_is_not_missed(heartbeats):
    watchdog = Watchdog(ROBOT)
    for one in heartbeats:
        watchdog.hear(one)
        watchdog.look()
    assert looks_until_stop(watchdog, 100) == 100
    assert watchdog.watch is Watch.WAITING


@pytest.mark.parametrize("periods", [20, 2])
def test_the_arm_is_stopped_as_declared_from_the_last_heartbeat(periods):
    """From standing, where its drives have long held the last command; from its motion where the silence was short."""
    bounds = ROBOT.detection.model_copy(update={"heartbeat": periods * PERIOD})
    watchdog = Watchdog(ROBOT.model_copy(update={"detection": bounds}))
    watchdog.hear(beat(velocity=1.0))
    looks_until_stop(watchdog)
    assert watchdog.command_period == PERIOD
    plan = DecelerateAndHold(ROBOT, PERIOD)
    plan.begin(START, beat(velocity=1.0 if periods == 2 else 0.0).velocity, np.zeros(JOINTS))
    ticks = int(ROBOT.safe_stop.completes_within / PERIOD)
    commands = np.array([watchdog.command() for _ in range(ticks)])
    np.testing.assert_array_equal(commands, [plan.next() for _ in range(ticks)])
    assert watchdog.at_rest
    assert (np.ptp(commands[:, 0]) > 0.01) == (periods == 2)
    np.testing.assert_array_equal(watchdog.command(), commands[-1])


def test_it_is_latched_until_the_controller_is_back_and_it_is_rearmed():
    watchdog = Watchdog(ROBOT.model_copy(update={"detection": ROBOT.detection.model_copy(update={"heartbeat": 0.01})}))
    watchdog.rearm()
    watchdog.hear(beat(velocity=1.0))
    looks_until_stop(watchdog)
    with pytest.raises(OneStrideError, match="still being brought to rest"):
        watchdog.rearm()
    while not watchdog.at_rest:
        watchdog.command()
    for heartbeats in ([], [beat()], [beat(in_charge=False), beat()]):
        for one in heartbeats:
            watchdog.hear(one)
        assert watchdog.watch is Watch.STOPPING
        with pytest.raises(OneStrideError, match="expected the controller to be back and idle"):
            watchdog.rearm()
    watchdog.hear(beat(in_charge=False))
    watchdog.rearm()
    assert (watchdog.watch, watchdog.stops) == (Watch.WAITING, 1)
    assert not watchdog.look()
    watchdog.hear(beat())
    assert watchdog.watch is Watch.WATCHING
    assert looks_until_stop(watchdog) == LOOKS


# Asked to end


def ended_after(watchdog: Watchdog, *, in_charge: bool, most: int = 5000) -> int:
    """Looks, each with a heartbeat, until it may end."""
    for count in range(most):
        if watchdog.may_end:
            return count
        watchdog.hear(beat(in_charge=in_charge))
        assert not watchdog.look()
    return most


def test_it_goes_at_once_where_nobody_is_in_charge():
    watchdog = Watchdog(ROBOT)
    assert not watchdog.leave()
    assert watchdog.may_end
    watchdog.hear(beat(in_charge=False))
    assert watchdog.may_end


def test_it_stays_until_the_controller_has_had_its_time_to_stop():
    watchdog = Watchdog(ROBOT)
    watchdog.hear(beat())
    assert watchdog.leave()
    assert not watchdog.leave(), "it is said once"
    assert watchdog.watch is Watch.LEAVING
    looks = ended_after(watchdog, in_charge=True)
    assert looks * watchdog.look_period == pytest.approx(1.0 + ROBOT.safe_stop.completes_within, abs=0.02)
    assert watchdog.watch is Watch.LEAVING


def test_the_controllers_farewell_lets_it_go():
    watchdog = Watchdog(ROBOT)
    watchdog.hear(beat())
    watchdog.leave()
    assert ended_after(watchdog, in_charge=False) == 1


def test_a_controller_that_dies_meanwhile_is_replaced_before_it_goes():
    watchdog = Watchdog(ROBOT)
    slow = Heartbeat(True, ROBOT.detection.heartbeat, START, np.full(JOINTS, 0.5), np.zeros(JOINTS))
    watchdog.hear(slow)  # so slow that its last command still counts as moving
    watchdog.leave()
    assert looks_until_stop(watchdog) == LOOKS
    assert watchdog.watch is Watch.STOPPING
    assert not watchdog.may_end
    while not watchdog.at_rest:
        watchdog.command()
    assert watchdog.may_end

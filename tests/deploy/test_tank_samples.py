"""The tank's bound where joint samples are old, repeated, or taken between the ticks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onestride.deploy.certify.batches import attack_tank
from onestride.deploy.safety.held import Held, Sent
from onestride.deploy.safety.ports import EffortPort, ImpedancePort, Members, Port
from onestride.deploy.safety.tank import MOST_UNSEEN, Budget, EnergyTank
from onestride.deploy.safety.types import Box, ControlState, Motion, Rows
from onestride.hardware.description import load_robot
from onestride.hardware.state import Measurement

PERIOD, STIFFNESS, DAMPING, SPEED = 0.002, 400.0, 40.0, 2.0
BOUND = 4.0
ROBOT = load_robot("ur5e_2f85")
JOINTS = len(ROBOT.joints)


def members(joints: int, **changes: float) -> Members:
    return Members(np.ones((1, joints)), np.full(joints, 1.0 / joints), **changes)


def port_of(kind: str, joints: int = JOINTS, **changes: float) -> Port:
    full, of = np.ones(joints), members(joints, **changes)
    if kind == "effort":
        return EffortPort(of, SPEED * full, 5.0 * full, 1.0 * full)
    return ImpedancePort(of, STIFFNESS * full, (DAMPING if kind == "impedance" else 0.0) * full, 7.5 * full)


def tank_of(port: Port) -> EnergyTank:
    return EnergyTank(port, Budget(("arm",), np.array([5.0]), np.array([1.0]), np.array([5.0])))


def patterns(ticks: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0).random(ticks)
    missing = {f"{share:.0%} repeated": chance >= share for share in (0.0, 0.02, 0.1, 0.3)}
    return missing | {"half rate": np.arange(ticks) % 2 == 0, "every 25th": np.arange(ticks) % 25 == 0}


@pytest.mark.parametrize("kind", ["effort", "impedance", "undamped"])
def test_no_more_is_delivered_than_declared_whatever_samples_are_missing(kind: str):
    """The surroundings take what they can; commands change their mind, half of them at every tick."""
    for name, fresh in patterns(500).items():
        tank = tank_of(port_of(kind))
        (spent,) = attack_tank(tank, ROBOT, PERIOD, 12, 500, np.random.default_rng(1), fresh)
        assert spent.most <= BOUND * (1 + 1e-9), name
        assert spent.over <= BOUND * 1e-9, name
        assert spent.most > (0.4 if fresh.all() else 0.03) * BOUND, name
        assert not tank.void.any(), name


@pytest.mark.parametrize("kind", ["effort", "impedance"])
def test_no_more_is_delivered_than_declared_if_samples_come_between_ticks(kind: str):
    """Half a period old; the joint follows every command, which turns at every tick: what is delivered never shows."""
    port = port_of(kind, 1)
    tank, half = tank_of(port), PERIOD / 2
    position, delivered, most = 0.0, 0.0, 0.0
    now = motion(0.0, sampled=-half)
    tank.reset(now)
    for tick in range(2000):
        tank.observe(now)
        allowed = box(tank, now)
        command = allowed.high if tick % 2 else allowed.low
        command = command if np.all(allowed.low <= allowed.high) else now.sent
        tank.sent(now, command)
        for _ in range(2):
            middle, position = position, position + way_of(kind, command[0, 0], position, half)
            moved = position - middle
            force = command[0, 0] if kind == "effort" else STIFFNESS * (command[0, 0] - middle - moved / 2)
            delivered += force * moved - (kind == "impedance") * DAMPING * moved**2 / half
            most = max(most, delivered)
        now = motion((tick + 1) * PERIOD, middle, command[0, 0], sampled=(tick + 0.5) * PERIOD)
    assert 0.1 * BOUND < most <= BOUND * (1 + 1e-9)
    assert not tank.void.any()


def way_of(kind: str, command: float, position: float, seconds: float) -> float:
    """With an effort as fast as may be; with a spring and a damper at the speed at which they give most."""
    if kind == "effort":
        return float(np.sign(command)) * SPEED * seconds * (1.0 - 1e-9)
    return (command - position) * STIFFNESS / (STIFFNESS + 2.0 * DAMPING / seconds)


steps = arrays(float, (6, 3), elements=st.floats(-1, 1))
commands = arrays(float, (6, 3), elements=st.floats(-5, 5))
durations = arrays(float, 6, elements=st.floats(1e-3, 3e-3))


@given(commands, steps, durations, arrays(float, (2, 3), elements=st.floats(-1, 1)), st.floats(0, 0.01))
def test_several_commands_never_deliver_more_than_is_metered(targets, way, seconds, hidden, error):
    """Each is held while its joint goes its own way at a constant speed, which takes least out of the damper."""
    held = Held(targets[:, None], seconds.reshape(-1, 1, 1))
    moved = way * SPEED * seconds[:, None]
    path = np.vstack([np.zeros(3), np.cumsum(moved, axis=0)])
    before, after = path[:1] + error * hidden[:1], path[-1:] + error * hidden[1:]
    metered = port_of("effort", 3, error=error).delivered(held, before, after)
    assert np.all(metered >= (targets * moved).sum(axis=0) - 1e-9)
    assert np.all(metered <= (np.abs(targets) * (SPEED * seconds[:, None])).sum(axis=0) + 4 * error * 5.0 + 1e-9)
    springs = STIFFNESS * (targets - 0.5 * (path[1:] + path[:-1])) * moved
    work = (springs - DAMPING * moved**2 / seconds[:, None]).sum(axis=0)
    metered = port_of("impedance", 3, error=error).delivered(held, before, after)
    assert np.all(metered >= work - 1e-9 * (1.0 + np.abs(springs).sum(axis=0)))


def motion(now: float, position: float = 0.0, sent: float = 0.0, sampled: float | None = None) -> Motion:
    joint, still = np.full((1, 1), position), np.zeros((1, 1))
    return Motion(PERIOD, joint, still, still + sent, still, still, now=now, sampled=sampled)


def box(tank: EnergyTank, now: Motion) -> Box:
    return next(one for one in tank.rows(now) if isinstance(one, Box))


def test_a_damper_is_credited_by_the_time_between_samples():
    """0.01 rad in 3 periods, by hand: 400 (0.02 - 0.005) 0.01 - 40 * 0.01^2 / 0.006 = 0.06 J - 0.6667 J."""
    tank = tank_of(port_of("impedance", 1))
    tank.reset(motion(0.0, sent=0.02, sampled=0.0))
    tank.energy[:] = 2.0
    for tick in (1, 2):
        tank.observe(motion(tick * PERIOD, sent=0.02, sampled=0.0))
        assert tank.energy[0, 0] == 2.0
    tank.observe(motion(3 * PERIOD, 0.01, 0.02, sampled=3 * PERIOD))
    assert tank.energy[0, 0] == pytest.approx(2.0 - 0.06 + 40 * 0.01**2 / 0.006)


def test_what_unseen_efforts_may_have_delivered_is_held_back():
    """10 Nm for two periods at 2 rad/s: 0.08 J less for the third command, 20 J/s over its own period."""
    tank = tank_of(port_of("effort", 1))
    tank.reset(motion(0.0, sampled=0.0))
    tank.sent(motion(0.0), np.full((1, 1), 10.0))
    for tick in (1, 2):
        tank.observe(motion(tick * PERIOD, sampled=0.0))
    reserve = 5.0 * SPEED * PERIOD
    left = (BOUND - 0.08 - reserve) / (SPEED * PERIOD)
    assert box(tank, motion(2 * PERIOD, sampled=0.0)).high[0, 0] == pytest.approx(left)
    tank.observe(motion(3 * PERIOD, sampled=3 * PERIOD))  # it stood still: all of it is there again
    assert box(tank, motion(3 * PERIOD, sampled=3 * PERIOD)).high[0, 0] == pytest.approx(left + 0.08 / SPEED / PERIOD)


@pytest.mark.parametrize("kind", ["impedance", "undamped"])
def test_the_last_command_stays_allowed_however_long_nothing_is_seen(kind: str):
    """Without damping to rely on it is the only one; with it, others are too."""
    tank = tank_of(port_of(kind, 1))
    tank.reset(motion(0.0, sampled=0.0))
    for tick, target in enumerate((0.02, 0.05, 0.09, 0.09, 0.09)):
        now = motion(tick * PERIOD, sent=target, sampled=0.0)
        target = float(np.clip(target, box(tank, now).low[0, 0], box(tank, now).high[0, 0]))
        tank.sent(now, np.full((1, 1), target))
        now = replace(now, now=now.now + PERIOD, sent=np.full((1, 1), target))
        tank.observe(now)
        allowed = box(tank, now)
        assert allowed.low[0, 0] <= target + 1e-9
        assert allowed.high[0, 0] >= target - 1e-9
    width = float(allowed.high[0, 0] - allowed.low[0, 0])
    assert width < 1e-3 if kind == "undamped" else width > 0.1


def test_a_claim_about_what_is_not_seen_for_too_long_is_void():
    tank = tank_of(port_of("impedance", 1))
    tank.reset(motion(0.0, sampled=0.0))
    for tick in range(MOST_UNSEEN + 5):
        now = motion(tick * PERIOD, sampled=0.0)
        tank.observe(now)
        tank.sent(now, np.full((1, 1), 1e-4 * (-1) ** tick))
    assert tank.void.all()
    void = tank.rows(now)[-1]
    assert isinstance(void, Rows)
    assert void.names[int(np.argmin(void.bound[0]))] == "tank.arm.unseen"


def test_commands_are_held_from_tick_to_tick_and_a_little_longer_if_late():
    sent = Sent(np.zeros((1, 1)), lateness=0.1)
    for now in (1.0, 2.0, 3.0):
        sent.add(np.full((1, 1), now), now)
    held = sent.between(1.5, 2.5)
    np.testing.assert_allclose(held.commands.ravel(), [1.0, 2.0])
    np.testing.assert_allclose(held.seconds.ravel(), [0.6, 0.6])
    np.testing.assert_allclose(sent.between(2.05, 3.05).seconds.ravel(), [0.05, 1.05, 0.15])
    sent.forget(2.05)
    assert len(sent) == 3
    sent.forget(2.2)
    assert len(sent) == 2


def test_the_chain_tells_the_tank_when_the_joints_were_sampled():
    nothing = np.zeros(JOINTS)
    heard = Measurement(nothing, nothing, received={"joints": 0.25, "cube": 0.5})
    assert ControlState(1.0, PERIOD, heard, nothing).motion.sampled == 0.25
    assert ControlState(1.0, PERIOD, replace(heard, received={}), nothing).motion.sampled is None

"""The tank's arithmetic against independent accounts of the same energy, and its memory and declarations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from onestride.deploy.safety.energy import (
    effort_delivered,
    effort_reach,
    impedance_delivered,
    impedance_reach,
    impedance_stored,
    shares,
)
from onestride.deploy.safety.ports import EffortPort, ImpedancePort, Members
from onestride.deploy.safety.tank import Budget, EnergyTank, make_tank
from onestride.deploy.safety.types import Box, Motion, Rows, Yield
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.energy import TankPort, TankRefill, TankRow

ROBOT = load_robot("ur5e_2f85")
joints = arrays(float, 3, elements=st.floats(-10, 10))
paths = arrays(float, (40, 3), elements=st.floats(-0.02, 0.02))
energies = arrays(float, 3, elements=st.floats(0, 20))
shares_of_one = arrays(float, 3, elements=st.floats(-1, 1))
errors = arrays(float, (2, 3), elements=st.floats(-1, 1))
STIFFNESS, DAMPING = np.array([50.0, 400.0, 2000.0]), np.array([0.0, 20.0, 100.0])


def motion(
    position, velocity: np.ndarray | float = 0.0, sent: np.ndarray | float = 0.0, period=0.01, effort=None
) -> Motion:
    position = np.atleast_2d(np.asarray(position, dtype=float))
    velocity, sent, still = (np.zeros_like(position) + value for value in (velocity, sent, 0.0))
    return Motion(period, position, velocity, sent, still, still, effort)


@given(joints, paths, errors, st.floats(0, 0.01))
def test_effort_times_displacement_is_the_work_along_any_path(effort, steps, hidden, error):
    """And with errors of the measured ends, never less than it."""
    work = (effort * steps).sum(axis=0)
    moved = steps.sum(axis=0)
    np.testing.assert_allclose(effort_delivered(effort, moved), work, atol=1e-12)
    measured = moved + error * (hidden[1] - hidden[0])
    assert np.all(effort_delivered(effort, measured, error) >= work - 1e-12)


@given(joints, joints, paths, errors, st.floats(0, 0.01))
def test_springs_and_dampers_never_deliver_more_than_is_metered(target, start, steps, hidden, error):
    """Their work is summed along the path at whatever speed it is gone; both ends are measured with errors."""
    path = start + np.vstack([np.zeros(3), np.cumsum(steps, axis=0)])
    middle, period = 0.5 * (path[1:] + path[:-1]), 0.01
    spring = (STIFFNESS * (target - middle) * steps).sum(axis=0)
    damper = (DAMPING * steps**2 / (period / len(steps))).sum(axis=0)
    before, after = path[0] + error * hidden[0], path[-1] + error * hidden[1]
    metered = impedance_delivered(target, before, after, STIFFNESS, DAMPING / period, error)
    scale = 1e-9 + 1e-12 * STIFFNESS * (np.abs(target - start).max() + 1.0) ** 2
    assert np.all(metered >= spring - damper - scale)
    if error == 0:
        exact = impedance_delivered(target, path[0], path[-1], STIFFNESS)
        assert np.all(np.abs(exact - spring) <= scale)


@given(energies, arrays(float, 3, elements=st.floats(0.001, 1)), shares_of_one)
def test_reach_is_the_most_that_the_energy_pays_for(energy, travel, way):
    effort = effort_reach(energy, travel)
    np.testing.assert_allclose(effort_delivered(effort, travel), energy, atol=1e-12)
    assert np.all(effort_delivered(-effort, way * travel) <= energy + 1e-12)
    stretch = impedance_reach(energy, STIFFNESS)
    np.testing.assert_allclose(impedance_stored(stretch, STIFFNESS), energy, atol=1e-12)
    assert np.all(impedance_delivered(stretch, 0.0 * way, way, STIFFNESS) <= energy + 1e-12)


@given(
    arrays(float, (4, 2), elements=st.floats(-5, 20)),
    arrays(float, (4, 5), elements=st.floats(0, 10)),
    arrays(float, 5, elements=st.floats(0.1, 1)),
)
def test_shares_add_up_to_no_more_than_the_budget(budget, reserved, weight):
    members = np.array([[1.0, 1, 0, 0, 0], [0, 0, 1, 1, 0]])
    weight = weight * members.any(axis=0) / np.maximum(weight @ members.T @ members, 1e-9)
    free, whole = shares(budget, reserved, weight, members)
    left = np.maximum(budget, 0.0)
    assert np.all(whole @ members.T <= left * (1 + 1e-12) + 1e-12)
    assert np.all((free >= 0) & (whole >= free))
    enough = left >= reserved @ members.T
    np.testing.assert_allclose((whole @ members.T)[enough], left[enough], atol=1e-9)
    assert np.all((whole >= reserved - 1e-9)[(enough @ members > 0)])
    assert np.all(free[(~enough) @ members > 0] == 0.0)
    assert np.all(whole[:, 4] == 0.0)


def effort_port(joint_count: int = 3, braking: float = 2.0) -> EffortPort:
    full = np.ones(joint_count)
    return EffortPort(Members(full[None], full / joint_count), 2.0 * full, braking * full, 4.0 * full)


def tank(port, initial: float = 5.0, **options) -> EnergyTank:
    budget = Budget(("arm",), np.array([initial]), np.array([0.5]), np.array([6.0]))
    return EnergyTank(port, budget, **options)


def boxes(tank: EnergyTank, motion: Motion) -> list[Box]:
    return [one for one in tank.rows(motion) if isinstance(one, Box)]


def started(tank: EnergyTank, first: Motion) -> EnergyTank:
    tank.reset(first)
    tank.observe(first)
    return tank


@given(
    st.floats(0.5, 6), joints, arrays(float, 3, elements=st.floats(-1, 1)), arrays(float, 3, elements=st.floats(-2, 2))
)
def test_no_command_in_the_box_delivers_more_than_is_left(energy, corner, way, velocity):
    """Not even one that drives all joints their farthest; the box of an empty tank closes."""
    filled = tank(effort_port(), initial=energy + 0.0)
    now = motion(np.zeros(3), velocity)
    box = boxes(started(filled, now), now)[0]
    command = np.clip(1e3 * corner, box.low, box.high)
    assert effort_delivered(command, 0.02 * way).sum() <= energy - 0.5 + 1e-12
    assert np.all((box.low <= 0) & (box.high >= 0))


def test_the_box_is_transparent_when_there_is_plenty():
    """All efforts up to 40 Nm of three joints at 2 rad/s need 2.4 J for 10 ms and 0.12 J for brakes: 5 J do."""
    now = motion(np.zeros(3))
    box = boxes(started(tank(effort_port()), now), now)[0]
    assert np.all(box.high >= 40.0)
    assert np.all(box.low <= -40.0)


def test_drive_is_refused_before_brakes_are():
    """Brakes of 2 Nm over 2 cm in 3 joints: 0.12 J are reserved. With 0.11 J no joint may drive, all may brake."""
    filled = started(tank(effort_port(), initial=0.5 + 0.12), motion(np.zeros(3)))
    box = boxes(filled, motion(np.zeros(3), velocity=np.array([1.0, -1.0, 0.0])))[0]
    np.testing.assert_allclose(box.low, [[-2.0, 0.0, 0.0]], atol=1e-9)
    np.testing.assert_allclose(box.high, [[0.0, 2.0, 0.0]], atol=1e-9)
    slow = boxes(filled, motion(np.zeros(3), velocity=np.array([0.1, 0.0, 0.0])))[0]
    np.testing.assert_allclose(slow.low, [[-0.4, 0.0, 0.0]], atol=1e-9)  # 4 Nm s/rad of it


def test_a_held_target_stays_allowed_however_the_robot_moves():
    """The spring's energy goes from the tank into the motion, and so does the room it needed."""
    full = np.ones(3)
    port = ImpedancePort(Members(full[None], full / 3), STIFFNESS, 0.0 * full, 10.0 * full)
    rng = np.random.default_rng(0)
    for _ in range(50):
        now = motion(rng.uniform(-0.05, 0.05, 3))
        filled = started(tank(port), now)
        low_high = boxes(filled, now)[0]
        target = low_high.low + rng.random((1, 3)) * (low_high.high - low_high.low)
        filled.sent(now, target)
        for _ in range(20):
            now = motion(now.position + rng.uniform(-0.02, 0.02, 3), sent=target)
            filled.observe(now)
            if filled.energy[0, 0] >= 6.0:  # what the surroundings gave is lost above the capacity
                break
            hard = boxes(filled, now)[0]
            assert np.all((hard.low <= target + 1e-9) & (target <= hard.high + 1e-9))


def test_a_target_may_only_move_as_fast_as_it_can_be_stopped():
    """With 1 J free in each of three joints the spring of 50 N/m reaches 0.2 m; 10 m/s^2 stop 2 m/s in that."""
    full = np.ones(3)
    port = ImpedancePort(Members(full[None], full / 3), 50.0 * full, 0.0 * full, 10.0 * full)
    filled = started(tank(port, initial=3.5), motion(np.zeros(3), period=1e-4))
    hard, soft = boxes(filled, motion(np.zeros(3), period=1e-4))
    np.testing.assert_allclose(hard.high, 0.2)
    assert (hard.yields, soft.yields) == (Yield.NEVER, Yield.ACCELERATION)
    np.testing.assert_allclose(soft.high / 1e-4, 2.0, rtol=1e-3)


def test_energy_is_drawn_and_given_back():
    """2 Nm over 0.1 rad draw 0.2 J, back again they return it; more than the capacity is lost."""
    filled = started(tank(effort_port()), motion(np.zeros(3)))
    command = np.array([[2.0, 0.0, 0.0]])
    filled.sent(motion(np.zeros(3)), command)
    filled.observe(motion([0.01, 5.0e-3, 0.0]))
    assert filled.readings() == {"tank.arm": pytest.approx(4.98)}
    filled.observe(motion([0.0, 0.0, 0.0]))
    assert filled.energy == pytest.approx(5.0)
    for step in range(1, 200):
        filled.observe(motion([-0.01 * step, 0.0, 0.0]))
    assert filled.energy == pytest.approx(6.0)


@pytest.mark.parametrize("velocity", [2.1, np.nan])
def test_speed_above_the_limit_voids_the_claim_until_reset(velocity):
    filled = started(tank(effort_port()), motion(np.zeros((2, 3))))
    assert not filled.void.any()
    fast = np.zeros((2, 3))
    fast[1, 0] = velocity
    filled.observe(motion(np.zeros((2, 3)), fast))
    filled.observe(motion(np.zeros((2, 3))))
    assert filled.void.tolist() == [False, True]
    void = filled.rows(motion(np.zeros((2, 3))))[-1]
    assert isinstance(void, Rows)
    assert void.names == ("tank.arm.too_fast", "tank.arm.effort_not_as_metered", "tank.arm.unseen")
    np.testing.assert_array_equal(void.bound, [[np.inf, np.inf, np.inf], [-1.0, np.inf, np.inf]])
    assert not void.matrix.any()
    filled.reset(motion(np.zeros((2, 3))))
    assert not filled.void.any()


def test_a_way_that_is_too_long_voids_the_claim_too():
    filled = started(tank(effort_port()), motion(np.zeros(3)))
    filled.observe(motion([0.0201, 0.0, 0.0]))
    assert filled.void.all()


def test_effort_other_than_metered_voids_the_claim():
    """Also where none is reported."""
    now = motion(np.zeros(3), effort=np.zeros((1, 3)))
    filled = started(tank(effort_port(), tolerance=0.5), now)
    filled.sent(now, np.full((1, 3), 2.0))
    filled.observe(replace(now, effort=np.array([[2.4, 1.6, 2.0]])))
    assert not filled.void.any()
    filled.observe(replace(now, effort=np.array([[2.0, 1.4, 2.0]])))
    assert filled.void.all()
    filled = started(tank(effort_port(), tolerance=0.5), now)
    filled.observe(motion(np.zeros(3)))
    assert filled.void.all()


def test_measured_efforts_are_metered_by_the_dearer_sample():
    now = motion(np.zeros(3), effort=np.array([[1.0, 1.0, 0.0]]))
    filled = started(tank(effort_port(), measured=True), now)
    filled.observe(motion([0.01, -0.01, 0.0], effort=np.array([[3.0, 3.0, 0.0]])))
    assert filled.energy == pytest.approx(5.0 - 0.03 + 0.01)


def test_refills_come_as_declared():
    row = TankRow(ports=(port(refill=TankRefill(amount=0.25, every=0.02, at_most=2), capacity=20.0),))
    filled = make_tank(row, ROBOT)
    assert filled.budget.bound == pytest.approx([10.0])
    still = motion(np.zeros(7))
    filled.reset(still)
    seen = []
    for _ in range(8):
        filled.observe(still)
        seen.append(filled.energy[0, 0])
    np.testing.assert_allclose(seen, [10.0, 10.25, 10.25, 10.5, 10.5, 10.5, 10.5, 10.5])


def port(**changes) -> TankPort:
    stated = {"name": "arm", "joints": ROBOT.joint_names[:3], "initial": 10.0, "minimum": 0.5, "capacity": 12.0}
    return TankPort.model_validate(stated | changes)


def test_a_tank_is_made_as_declared():
    """Two ports, in an order of their own; the gripper is in none and stays free."""
    wrist = port(name="wrist", joints=("wrist_2_joint", "wrist_1_joint"), weights=(3.0, 1.0), initial=2.0)
    made = make_tank(TankRow(ports=(wrist, port())), ROBOT)
    still = motion(np.zeros(7))
    made.reset(still)
    hard = boxes(made, still)[0]
    energy = 0.5 * np.array([4500.0, 4500, 4500, 2000, 2000]) * hard.high[0, :5] ** 2
    np.testing.assert_allclose(energy, [9.5 / 3, 9.5 / 3, 9.5 / 3, 1.5 / 4, 1.5 * 3 / 4])
    assert np.all(np.isinf(hard.high[0, 5:]))
    assert made.readings() == {"tank.wrist": 2.0, "tank.arm": 10.0}


def test_a_tank_of_efforts_is_made_as_declared():
    effort = port(braking=(10.0, 10.0, 5.0), braking_damping=(20.0, 20.0, 20.0))
    made = make_tank(TankRow(ports=(effort,), drive="effort", lateness=0.5), ROBOT)
    still = motion(np.zeros(7))
    made.reset(still)
    travel = 3.1416 * 0.01 * 1.5
    free = 9.5 - 25 * travel
    np.testing.assert_allclose(boxes(made, still)[0].high[0, :3], free * np.array([0.4, 0.4, 0.2]) / travel)
    gripper = port(joints=("right_driver_joint",), braking=(1.0,), braking_damping=(1.0,))
    with pytest.raises(OneStrideError, match="expected a speed limit of right_driver_joint"):
        make_tank(TankRow(ports=(gripper,), drive="effort"), ROBOT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimum": 10.0}, "expected minimum < initial <= capacity"),
        ({"capacity": 9.0}, "expected minimum < initial <= capacity"),
        ({"braking": (1.0, 1.0, 1.0)}, "expected braking and braking_damping"),
        ({"weights": (1.0,)}, "expected 3 weights, got 1"),
    ],
)
def test_contradictory_ports_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        port(**changes)


def test_joints_belong_to_one_port_and_to_the_robot():
    with pytest.raises(ValidationError, match="expected braking with drive effort, and only there"):
        TankRow(ports=(port(),), drive="effort")
    with pytest.raises(ValidationError, match="every joint once"):
        TankRow(ports=(port(), port(name="other")))
    with pytest.raises(OneStrideError, match="available: shoulder_pan_joint"):
        make_tank(TankRow(ports=(port(joints=("elbow",)),)), ROBOT)

"""What drives with impedance are told survives its way over a topic, and is what the law says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onestride.hardware.description import DampingStop, load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.impedance import ImpedanceCommand

GO1, UR5E = load_robot("go1"), load_robot("ur5e_2f85")
assert isinstance(GO1.safe_stop, DampingStop)
DAMPING = GO1.safe_stop.damping

commands = st.integers(1, 12).flatmap(
    lambda n: st.builds(
        ImpedanceCommand,
        *(arrays(float, n, elements=st.floats(-100, 100)) for _ in range(3)),
        *(arrays(float, n, elements=st.floats(0, 100)) for _ in range(2)),
    )
)


@given(commands)
def test_a_command_survives_its_way_as_a_row(command):
    row = command.row()
    assert row.shape == (5 * len(command.position),)
    again = ImpedanceCommand.from_row(row.tolist())
    for part in ("position", "velocity", "effort", "stiffness", "damping"):
        np.testing.assert_array_equal(getattr(again, part), getattr(command, part))


def test_the_row_is_position_velocity_effort_stiffness_damping():
    command = ImpedanceCommand.from_row([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert [command.position.tolist(), command.velocity.tolist(), command.effort.tolist()] == [[1, 2], [3, 4], [5, 6]]
    assert [command.stiffness.tolist(), command.damping.tolist()] == [[7, 8], [9, 10]]


def test_the_torque_is_that_of_a_spring_a_damper_and_what_is_fed_forward():
    command = ImpedanceCommand.from_row([1.0, 0.5, 2.0, 10.0, 3.0])
    torque = command.torque(np.array([0.8]), np.array([0.1]))
    assert torque == pytest.approx([10.0 * 0.2 + 3.0 * 0.4 + 2.0])


@given(arrays(float, 12, elements=st.floats(-3, 3)), arrays(float, 12, elements=st.floats(-20, 20)))
def test_damping_only_takes_energy_out(position, velocity):
    power = ImpedanceCommand.damped(GO1).torque(position, velocity) * velocity
    assert np.all(power <= 0.0)
    assert power.sum() == pytest.approx(-DAMPING * float(velocity @ velocity))


def test_towards_a_target_the_robots_own_gains_pull():
    target = np.linspace(0.1, 0.5, 12)
    command = ImpedanceCommand.towards(GO1, target)
    np.testing.assert_allclose(command.torque(target - 0.1, np.full(12, 2.0)), 35.0 * 0.1 - 0.5 * 2.0)


@pytest.mark.parametrize("row", [[], [1.0] * 6, [[1.0] * 5], [np.nan, 0, 0, 0, 0], [0, 0, 0, -1, 0], [0, 0, 0, 0, -1]])
def test_rows_that_are_no_command_are_refused(row):
    with pytest.raises(OneStrideError, match="expected"):
        ImpedanceCommand.from_row(row)


@pytest.mark.parametrize("target", [np.zeros(11), np.full(12, np.nan)])
def test_targets_that_are_none_are_refused(target):
    with pytest.raises(OneStrideError, match="expected 12 finite joint targets"):
        ImpedanceCommand.towards(GO1, target)


def test_a_robot_that_holds_as_its_safe_stop_is_not_damped():
    with pytest.raises(OneStrideError, match="ur5e_2f85: expected damping as its safe stop, got decelerate_and_hold"):
        ImpedanceCommand.damped(UR5E)

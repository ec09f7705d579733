"""Joint targets as numbers of command topics, against the plain form of the command they stand for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onestride.deploy.command_rows import command_rows
from onestride.hardware.description import CommandGroup, load_robot
from onestride.hardware.impedance import ImpedanceCommand

ARM, LEGS = load_robot("ur5e_2f85"), load_robot("go1")


@given(arrays(float, len(ARM.joints), elements=st.floats(-3, 3)), st.booleans())
def test_positions_go_out_as_they_are_topic_by_topic(command, damping):
    for row, group in zip(command_rows(ARM), ARM.commands, strict=True):
        assert (row.topic, row.size) == (group.topic, len(group.joints))
        message = np.full(row.size, np.nan)
        row.write(message, command, damping=damping)
        np.testing.assert_array_equal(message, command[ARM.indices(group.joints)])


@given(arrays(float, len(LEGS.joints), elements=st.floats(-3, 3)), st.permutations(LEGS.joint_names))
def test_impedance_is_what_the_command_says_in_the_topics_order(command, order):
    group = CommandGroup(topic="legs", joints=tuple(order))
    robot = LEGS.model_copy(update={"commands": (group,)})
    (row,) = command_rows(robot)
    message = np.full(row.size, np.nan)
    row.write(message, command)
    places = LEGS.indices(tuple(order))
    expected = ImpedanceCommand.towards(LEGS, command)
    heard = ImpedanceCommand.from_row(message)
    for part in ("position", "velocity", "effort", "stiffness", "damping"):
        np.testing.assert_array_equal(getattr(heard, part), getattr(expected, part)[places])
    row.write(message, command, damping=True)
    heard = ImpedanceCommand.from_row(message)
    assert not heard.stiffness.any()
    assert not heard.velocity.any()
    assert not heard.effort.any()
    np.testing.assert_array_equal(heard.damping, ImpedanceCommand.damped(LEGS).damping)

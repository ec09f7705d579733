"""A person at the controls of a plant, tick by tick in simulated time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from controller_drive import Drive

from onestride.deploy.controller import Actor, Tick
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.teleop.operator import Operator
from onestride.hardware.state import Array

DEADMAN, CLOSE, OPEN = 5, 0, 1
STEP = 10  # ticks
BRAKING = 8  # ticks: from the speeds asked for here, at 40 rad/s^2, with 4000 rad/s^3 on either side
NOTHING = np.zeros(8)
ASKED = np.array([0.0, 0.5, 0.0, 0.0, -0.4, 0.0, 0.0, 0.0])  # x by axis 1, z by axis 4


def pressed(*buttons: int) -> list[int]:
    return [int(index in buttons) for index in range(8)]


@dataclass
class Person(Drive):
    """A drive whose person says something before every tick."""

    operator: Operator = field(kw_only=True)

    def says(self, axes: Array, *buttons: int, ticks: int = STEP) -> list[Tick]:
        """The same joystick message before each of the next ticks; these ticks."""
        for _ in range(ticks):
            self.operator.hear_joy(axes, pressed(*buttons), self.now)
            self.run(1)
        return self.ticks[-ticks:]

    def leads(self, names: Sequence[str], positions: Array, *buttons: int, ticks: int = STEP) -> list[Tick]:
        """Likewise with a leader arm."""
        for _ in range(ticks):
            self.operator.hear_leader(names, positions, self.now)
            self.says(NOTHING, *buttons, ticks=1)
        return self.ticks[-ticks:]


def rests(ticks: Iterable[Tick]) -> bool:
    """Whether all commands are the same."""
    return len({tick.command.tobytes() for tick in ticks if tick.command is not None}) == 1


def brakes_to_rest(one: Drive, since: int) -> None:
    """From a tick on each joint only slows down, a gripper is held at once, and soon all stand for good."""
    steps = np.diff(one.commands, axis=0)[since - 2 :]
    assert np.abs(steps[0]).max() > 1e-4, "it did not move: the test shows nothing"
    assert np.abs(steps[1:, 6]).max() < 1e-12
    jerk = 4000 * one.controller.period**3  # what was gathered of acceleration must be let go first
    assert np.all(np.abs(steps[2:, :6]) <= np.abs(steps[1:-1, :6]) + jerk + 1e-12)
    assert not steps[BRAKING:].any()


def acting(ticks: Iterable[Tick]) -> list[Actor | None]:
    """Who began the policy steps."""
    return [tick.actor for tick in ticks if tick.action is not None]


def pinch(one: Drive, forward: ForwardKinematics) -> Array:
    """Where the gripper is (3,) [m]."""
    forward.place(one.plant.read().position)
    return forward.position("pinch")


def within_limits(one: Drive) -> None:
    """Each command keeps the position limits, and the speed limits from the one before it."""
    robot, commands = one.controller.robot, one.commands
    lower, upper = robot.position_limits
    assert ((commands >= lower) & (commands <= upper)).all()
    reach = robot.velocity_limits * one.controller.period
    assert (np.abs(np.diff(commands, axis=0)) <= reach + 1e-9).all()

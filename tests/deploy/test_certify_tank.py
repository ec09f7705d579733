"""The certificate's attack on a tank empties a sound one, and finds one that keeps wrong books."""

from __future__ import annotations

import numpy as np
import pytest
from limited_arm import limited_ur5e

from onestride.deploy.certify.batches import SAME_ENERGY, attack_tank
from onestride.deploy.safety.tank import EnergyTank, make_tank
from onestride.deploy.safety.types import Motion
from onestride.hardware.description import RobotDescription
from onestride.hardware.safety.energy import TankRow

PERIOD = 0.005
ARM = limited_ur5e().joint_names[:6]
TANK = {"row": "tank", "ports": [{"name": "arm", "joints": ARM, "initial": 20.0, "minimum": 1.0, "capacity": 20.0}]}


@pytest.fixture(scope="module")
def robot() -> RobotDescription:
    return limited_ur5e()


class Forgetful(EnergyTank):
    """Draws nothing for what was delivered."""

    def observe(self, motion: Motion) -> None:
        energy = self.energy
        super().observe(motion)
        self.energy = energy


def test_a_tank_is_emptied_but_not_overdrawn(robot):
    row = TankRow.model_validate(TANK)
    sound = make_tank(row, robot)
    (spent,) = attack_tank(sound, robot, PERIOD, 16, 400, np.random.default_rng(0))
    assert 0.9 * spent.bound < spent.most <= spent.bound
    broken = Forgetful(sound.port, sound.budget)
    (spent,) = attack_tank(broken, robot, PERIOD, 16, 400, np.random.default_rng(0))
    assert spent.most > 1.5 * spent.bound


def test_a_tank_of_efforts_is_emptied_but_not_overdrawn(robot):
    port = TANK["ports"][0] | {"braking": [1.0] * 6, "braking_damping": [2.0] * 6}
    tank = make_tank(TankRow.model_validate({"row": "tank", "drive": "effort", "ports": [port]}), robot)
    (spent,) = attack_tank(tank, robot, PERIOD, 16, 2000, np.random.default_rng(0))
    assert 0.5 * spent.bound < spent.most <= spent.bound


class Generous(EnergyTank):
    """Grants all its refills at once."""

    def reset(self, motion: Motion) -> None:
        super().reset(motion)
        self.energy = self.energy + (self.budget.bound - self.budget.allowed(0.0))

    def _grant(self, period: float) -> float:
        del period
        return 0.0


def test_refills_count_from_when_they_are_granted(robot):
    port = TANK["ports"][0] | {"capacity": 40.0, "refill": {"amount": 5.0, "every": 0.5, "at_most": 4}}
    sound = make_tank(TankRow.model_validate({"row": "tank", "ports": [port]}), robot)
    (spent,) = attack_tank(sound, robot, PERIOD, 16, 400, np.random.default_rng(0))
    assert spent.over <= SAME_ENERGY
    assert spent.most > 19.0  # refills were used
    (spent,) = attack_tank(Generous(sound.port, sound.budget), robot, PERIOD, 16, 400, np.random.default_rng(0))
    assert spent.most <= spent.bound
    assert spent.over > 1.0

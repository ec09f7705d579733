"""The robot with a tank that docs/passivity.md shows loads and moves, and delivers no more than it declares."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml
from panda_scene import joint_contract, panda_scene

from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import RobotDescription, parse_robot
from onestride.hardware.plant import Plant

PAGE = Path(__file__).resolve().parents[2] / "docs" / "passivity.md"
RATE = 500.0


@pytest.fixture(scope="module")
def robot() -> RobotDescription:
    """A copy of the shipped file with the page's gains and chain in it."""
    text = PAGE.read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    gains = re.search(r"stiffness\s+([\d.]+) Nm/rad and damping ([\d.]+) Nm s/rad", text)
    assert block, "the page shows a chain"
    assert gains, "the page states gains"
    content = yaml.safe_load((resources.files("onestride.hardware") / "robots" / "panda.yaml").read_text("utf-8"))
    for joint in content["joints"]:
        joint.update(stiffness=float(gains[1]), damping=float(gains[2]))
    return parse_robot(yaml.safe_dump(content | yaml.safe_load(block[1])), str(PAGE))


@pytest.fixture(scope="module")
def plant(robot, tmp_path_factory) -> Plant:
    pytest.importorskip("robosuite", reason="needs robosuite's model of the arm")
    return Plant(panda_scene(tmp_path_factory.mktemp("tank") / "scene", robot), robot)


def budget(robot: RobotDescription) -> float:
    """What may be delivered before the first refill [J]."""
    (row,) = [row for terms in robot.safety for row in getattr(terms, "rows", ()) if row.row == "tank"]
    (port,) = row.ports
    assert port.refill.every >= 10.0
    return port.initial - port.minimum


def torn_at(plant: Plant, robot: RobotDescription, seconds: float, seed: int) -> tuple[float, float, set[str]]:
    """A policy of far targets that turn: the most that was delivered [J], how far joints moved, and what acted."""
    chain, rng = build_chain(joint_contract(robot, RATE), robot), np.random.default_rng(seed)
    plant.reset()
    data, steps = plant.data, round(1.0 / RATE / plant.model.opt.timestep)
    sent = plant.read().position
    velocity, acceleration = np.zeros_like(sent), np.zeros_like(sent)
    delivered = peak = 0.0
    places, acted, nominal = [], set(), sent
    for tick in range(round(seconds * RATE)):
        now = tick / RATE
        measured = plant.read()
        measured = replace(measured, received=dict.fromkeys(measured.received, now))
        state = ControlState(now, 1.0 / RATE, measured, sent, 0.0, 1.0, velocity, acceleration)
        if tick == 0:
            chain.begin(state)
        if tick % 150 == 0:
            nominal = rng.uniform(*robot.position_limits)
        chain.observe(state)
        certified = chain.certify(state, nominal)
        assert certified.feasible, certified.reason
        chain.sent(state, certified.action)
        before, velocity = velocity, (certified.action - sent) * RATE
        acceleration, sent = (velocity - before) * RATE, certified.action
        plant.command(sent)
        for _ in range(steps):
            start = data.qpos[plant._qpos].copy()
            plant.step(1)
            delivered += float(data.actuator_force[plant._ctrl] @ (data.qpos[plant._qpos] - start))
            peak = max(peak, delivered)
        places.append(measured.position)
        acted.update(certified.active)
    return peak, float(np.ptp(places, axis=0).max()), acted


def test_it_delivers_no_more_than_it_declares_and_gets_about(robot, plant):
    peak, moved, acted = torn_at(plant, robot, 6.0, seed=1)
    assert 0.0 < peak <= budget(robot)
    assert moved > 0.5
    assert any("tank" in name for name in acted), "the tank had something to do"

"""Arms in MuJoCo whose policy tries to leave the joint limits at full speed: they stop there, and stay in one piece."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from controller_drive import Always, Drive
from panda_scene import joint_contract, panda_scene

from onestride.deploy.contract import Contract
from onestride.deploy.controller import Controller, Mode
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.build import build_chain
from onestride.deploy.safety.types import ControlState
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.scene import Scene
from onestride.hardware.state import Array

HALF_A_DEGREE = np.deg2rad(0.5)


@pytest.fixture(scope="module")
def panda(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    pytest.importorskip("robosuite", reason="needs robosuite's model of the arm")
    return panda_scene(tmp_path_factory.mktemp("panda") / "scene")


@pytest.fixture(scope="module")
def kinova3(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    pytest.importorskip("robosuite", reason="needs robosuite's model of the arm")
    return robot_scene("kinova3", folder=tmp_path_factory.mktemp("kinova3") / "scene")


@pytest.fixture(params=["ur5e_2f85", "panda", "kinova3"])
def arm(request: pytest.FixtureRequest) -> Plant:
    scene = request.getfixturevalue("cube_scene" if request.param == "ur5e_2f85" else request.param)
    plant = Plant(scene, load_robot(request.param))
    plant.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT  # joints alone: the table is not in question
    return plant


def begin_at(plant: Plant, position: Array) -> None:
    plant.reset()
    plant.data.qpos[plant._qpos] = position
    plant.command(position)
    mujoco.mj_forward(plant.model, plant.data)


def without_overspeed(robot: RobotDescription) -> RobotDescription:
    """Rows are in question: that the whole arm throws a weak wrist faster than it may go is for that guard to see."""
    return robot.model_copy(update={"safety": tuple(one for one in robot.safety if one.filter != "overspeed")})


def run_away(plant: Plant, rate: float, start: Array, nominals: list[Array], ticks: int) -> tuple[Array, Array]:
    """Certified commands and measured positions (T, n), for nominal commands of `ticks` ticks each."""
    robot, period = plant.robot, 1.0 / rate
    chain = build_chain(joint_contract(robot, rate), without_overspeed(robot))
    begin_at(plant, start)
    sent, velocity, acceleration = start, np.zeros_like(start), np.zeros_like(start)
    commands, positions, steps = [], [], 0
    for tick in range(len(nominals) * ticks):
        now = tick * period
        measurement = plant.read()
        measurement = replace(measurement, received=dict.fromkeys(measurement.received, now))
        state = ControlState(now, period, measurement, sent, 0.0, 1.0, velocity, acceleration)
        answer = chain.certify(state, nominals[tick // ticks])
        assert answer.feasible, answer.reason
        before, velocity = velocity, (answer.action - sent) / period
        acceleration, sent = (velocity - before) / period, answer.action
        plant.command(sent)
        due = round((tick + 1) * period / plant.model.opt.timestep)
        plant.step(due - steps)
        steps = due
        commands.append(sent)
        positions.append(measurement.position)
    return np.array(commands), np.array(positions)


@pytest.mark.parametrize("rate", [100.0, 500.0])
def test_no_joint_leaves_its_limits_by_half_a_degree(arm: Plant, rate):
    robot = arm.robot
    lower, upper = robot.position_limits
    middle, reach = (lower + upper) / 2, np.minimum(1.2, 0.45 * (upper - lower))
    for side, limit in ((1.0, upper), (-1.0, lower)):
        start = limit - side * reach
        start[~np.isfinite(robot.velocity_limits)] = middle[~np.isfinite(robot.velocity_limits)]
        commands, positions = run_away(arm, rate, start, [middle + side * 20.0], round(1.6 * rate))
        arms = np.isfinite(robot.velocity_limits)
        assert np.all((commands >= lower) & (commands <= upper))
        beyond = np.maximum(positions - upper, lower - positions)[:, arms]
        assert beyond.max() <= HALF_A_DEGREE
        speed = np.abs(np.diff(commands, axis=0)).max(axis=0)[arms] * rate
        assert np.all(speed > 0.4 * robot.velocity_limits[arms]), "it was slow: the test shows nothing"
        np.testing.assert_allclose(commands[-1][arms], limit[arms], atol=0.02)


def test_nor_when_it_changes_its_mind_all_the_time(arm: Plant):
    robot, rng = arm.robot, np.random.default_rng(0)
    lower, upper = robot.position_limits
    arms = np.isfinite(robot.velocity_limits)
    nominals = [np.where(rng.random(len(arms)) < 0.5, lower - 20.0, upper + 20.0) for _ in range(40)]
    start = np.array([joint.default for joint in robot.joints])
    commands, positions = run_away(arm, 200.0, start, nominals, 30)
    assert np.all((commands >= lower) & (commands <= upper))
    assert np.maximum(positions - upper, lower - positions)[:, arms].max() <= HALF_A_DEGREE
    acceleration = np.diff(commands, n=2, axis=0)[:, arms] * 200.0**2
    assert np.all(np.abs(acceleration) <= robot.acceleration_limits[arms] + 1e-6)
    jerk = np.abs(np.diff(commands, n=3, axis=0)[:, arms]) * 200.0**3
    assert np.all(jerk <= robot.jerk_limits[arms] * (1 + 1e-6))


def test_a_policy_runs_on_a_panda_and_its_safe_stop_keeps_jerk(panda: Scene):
    robot = load_robot("panda")
    contract = joint_contract(robot, 500.0)
    plant, forward = Plant(panda, robot), ForwardKinematics.load(panda.model_path, robot)
    chunk = np.tile(np.array([0.08, -0.05, 0.06, 0.05, -0.08, 0.08, 0.1]), (5, 1))
    drive = PandaDrive(controller_of(contract, robot, forward, chunk), plant)
    drive.activate(plant.state)
    drive.run(220)
    drive.controller.fault("enough")
    drive.run(200)
    assert {tick.mode for tick in drive.ticks[:220]} == {Mode.ACTIVE}
    assert drive.controller.at_rest
    jerk = np.abs(np.diff(drive.commands, n=3, axis=0)) * 500.0**3
    assert np.all(jerk <= robot.jerk_limits * (1 + 1e-6))
    assert np.abs(np.diff(drive.commands[:220], axis=0)).max() * 500.0 > 1.0, "it was slow: the test shows nothing"


def controller_of(contract: Contract, robot: RobotDescription, forward: ForwardKinematics, chunk: Array) -> Controller:
    return Controller(contract, robot, forward, Always(chunk), soft_start=0.0)


class PandaDrive(Drive):
    """Two milliseconds of physics in a tick."""

    def run(self, count: int):
        for _ in range(count):
            tick = self.controller.tick(self.now, self.measured(self.plant.read()))
            self.ticks.append(tick)
            if tick.command is not None:
                self.plant.command(tick.command)
            self.plant.step(4)
        return self.ticks[-count:]

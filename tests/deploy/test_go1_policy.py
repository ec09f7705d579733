"""A published joystick policy, through its contract, observer, control law and safety chain, on a simulated Go1.

Figures over seeds, with noise and latency, are in `test_go1_walks.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onestride.deploy.contract import Contract
from onestride.deploy.controller import Controller
from onestride.deploy.foreign import load_policy, read_contract
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.observe import gravity
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.simulation import simulate_episode
from onestride.hardware.description import load_robot
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant
from onestride.hardware.scene import Scene

SECONDS = 2.0
ROBOT = load_robot("go1")


@pytest.fixture(scope="module")
def joystick(shared_data: Path) -> Path:
    return shared_data / "policies" / "go1_joystick"


@pytest.fixture(scope="module")
def runtime(joystick: Path) -> PolicyRuntime:
    return PolicyRuntime(joystick / "go1_policy.onnx", contract="go1_joystick")


@pytest.fixture(scope="module")
def scene(joystick: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    model = joystick / "go1_mjx_feetonly.xml"
    return robot_scene(ROBOT, model, folder=tmp_path_factory.mktemp("go1") / "scene")


def with_odometry(contract: Contract) -> Contract:
    content = contract.model_dump(mode="json")
    content["observations"][0]["source"]["origin"] = "odometry"
    return Contract.model_validate(content)


def test_the_contract_is_the_files(joystick):
    contract, digest, _ = load_policy(joystick / "go1_policy.onnx", "go1_joystick")
    assert contract == read_contract("go1_joystick")
    assert contract.graph is not None
    assert digest == contract.graph.sha256
    assert (contract.observation_size, contract.action_size) == (48, 12)
    assert contract.differences(ROBOT) == []


@pytest.mark.parametrize("origin", ["estimator", "odometry"])
@pytest.mark.parametrize(("asked", "least"), [((0.0, 0.0, 0.0), 0.0), ((1.0, 0.0, 0.0), 0.6)])
def test_it_stays_upright_and_goes_where_it_is_asked(runtime, scene, origin, asked, least):
    contract = runtime.contract if origin == "estimator" else with_odometry(runtime.contract)
    plant = Plant(scene, ROBOT, odometry=True)
    forward = ForwardKinematics.load(scene.model_path, ROBOT)
    controller = Controller(contract, ROBOT, forward, InlineInference(runtime))
    upright, speed = [], []

    def watch(tick, measurement):
        del tick
        assert measurement.imu is not None
        upright.append(-gravity(measurement.imu)[2])
        speed.append(measurement.vectors["base_velocity"][0])

    progress = simulate_episode(controller, plant, None, 0, watch, velocity=lambda _: asked, duration=SECONDS)
    assert controller.reason == ""
    assert progress.time == pytest.approx(SECONDS)
    assert min(upright) > 0.9  # cosine of the lean
    late = np.mean(speed[len(speed) // 2 :])
    assert least <= late + 1e-2 < asked[0] + 0.3

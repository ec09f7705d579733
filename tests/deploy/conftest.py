"""Fixtures of this room: a robot, a contract and a policy file that need no training, and a plant that moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from controller_drive import Always, Drive
from hypothesis import HealthCheck, settings
from policy_samples import ROBOT, cube_contract, sample_graph, signed
from teleop_drive import Person

from onestride.deploy.contract import Contract
from onestride.deploy.controller import Controller
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.chain import Chain
from onestride.deploy.teleop.mapping import load_mapping
from onestride.deploy.teleop.operator import Device, Operator
from onestride.deploy.teleop.supervised import NoPolicy, SupervisedController
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.plant import Plant
from onestride.hardware.scene import Scene

# A loaded machine is slow now and then; that is no finding.
settings.register_profile("deploy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("deploy")


@pytest.fixture(scope="session")
def robot() -> RobotDescription:
    return load_robot(ROBOT)


@pytest.fixture(scope="session")
def contract() -> Contract:
    return cube_contract()


@pytest.fixture(scope="session")
def sample_policy(contract: Contract, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed policy file that computes `sample_chunk`."""
    pytest.importorskip("onnx", reason="needs the extra `train`")
    path = tmp_path_factory.mktemp("sample") / "policy.onnx"
    path.write_bytes(signed(sample_graph(contract), contract))
    return path


@pytest.fixture(scope="session")
def forward(cube_scene: Scene, robot: RobotDescription) -> ForwardKinematics:
    return ForwardKinematics.load(cube_scene.model_path, robot)


@pytest.fixture(scope="session")
def plant(cube_scene: Scene, robot: RobotDescription) -> Plant:
    """One plant for all tests: each resets it."""
    return Plant(cube_scene, robot)


@pytest.fixture(scope="session")
def start(cube_scene: Scene) -> np.ndarray:
    """The full state of one episode's start."""
    from onestride.training.environments.ogbench_cube import make_cube

    environment = make_cube(cube_scene.description.environment)
    environment.reset(seed=21)
    state = environment.state()
    environment.close()
    return state


@pytest.fixture
def drive(contract, robot, forward, plant):
    """Makes a drive; the inference answers as told."""

    def make(
        inference: Always | None = None, *, chain: Chain | None = None, soft_start: float = 0.05, **keywords
    ) -> Drive:
        controller = Controller(contract, robot, forward, inference or Always(), chain=chain, soft_start=soft_start)
        return Drive(controller, plant, **keywords)

    return make


@pytest.fixture
def person(contract, robot, forward, plant, start):
    """Makes a drive with a person; its axes ask for the contract's numbers as they are, unless `said` differs."""

    def make(device: Device = "joy", policy: Always | None = None, soft_start: float = 0.0, **said) -> Person:
        mapping = load_mapping(None, contract).model_copy(update={"dead_zone": 0.0, "reference": "measured", **said})
        operator = Operator(contract, mapping, forward, device, supervises=policy is not None)
        options = {"soft_start": soft_start}
        controller = SupervisedController(contract, robot, forward, policy or NoPolicy(), operator, **options)
        one = Person(controller, plant, operator=operator)
        one.activate(start)
        return one

    return make

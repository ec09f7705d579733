"""Our own walker on a Go2: what it sees in the controller is what it saw in training, and it walks as it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("robosuite_models", reason="needs the Go2's model")
pytest.importorskip("onnxruntime", reason="needs the extra `cpu`")

from go2_walks import ROBOT, walk, walker

from onestride.deploy.controller import Controller
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.runtime import InlineInference, PolicyRuntime
from onestride.deploy.simulation import simulate_episode
from onestride.hardware.models import robot_scene
from onestride.hardware.plant import Plant

POLICY = Path(__file__).parents[1] / "assets" / "go2_walk.onnx"


@pytest.fixture(scope="module")
def controller() -> Controller:
    return walker(POLICY)


def test_the_contract_says_what_a_robot_needs_to_know(controller):
    contract = controller.contract
    assert (contract.environment, contract.robot.id) == ("onestride/go2-walk-v0", "go2")
    assert [stream.name for stream in contract.streams if stream.required] == ["joints", "imu"]
    assert contract.execution.interpolation == "hold"
    assert not contract.needs_estimator, "it walks without knowing its velocity"


def test_the_controller_sees_and_sends_what_the_task_does():
    """The same policy in the task and in the controller, from the same start: the same observations and targets."""
    pytest.importorskip("gymnasium", reason="needs the extra `sim`")
    from onestride.training.environments.go2_walk import Go2Walk
    from onestride.training.environments.own_tasks import WALK
    from onestride.training.environments.walk_settings import WalkSettings
    from onestride.training.evaluation import noise_seed
    from onestride.training.learner import Learner

    quiet = WalkSettings(noise=0.0, push=0.0, latency=0.0, variation=0.0, friction=(0.8, 0.8))
    environment, steps = Go2Walk(WALK, quiet), 60
    learner, seen, done = Learner(POLICY, environment), list[Any]([environment.reset(0)]), list[Any]()
    learner.begin(0)
    for _ in range(steps):
        done.append(learner.act(seen[-1]))
        seen.append(environment.step(done[-1]).observation)

    policy = PolicyRuntime(POLICY)
    scene = robot_scene(ROBOT)
    forward = ForwardKinematics.load(scene.model_path, ROBOT)
    controller = Controller(policy.contract, ROBOT, forward, InlineInference(policy))
    ticks = []
    command = environment.command
    simulate_episode(
        controller,
        Plant(scene, ROBOT),
        None,
        noise_seed(0),
        lambda tick, _: ticks.append(tick),
        velocity=lambda _: command,
        duration=steps / environment.policy_rate,
    )
    begun = [tick for tick in ticks if tick.action is not None]
    assert len(begun) == steps
    newest = policy.contract.newest_step
    np.testing.assert_allclose([tick.observation[newest] for tick in begun], seen[:-1], atol=1e-6)
    np.testing.assert_allclose([tick.action for tick in begun], done, atol=1e-5)
    assert not any(tick.certified.active for tick in ticks), "no filter had anything to change"


def test_it_walks_as_asked(controller):
    found = walk(controller, 0, 5.0)
    assert not found.reason
    assert found.time == pytest.approx(5.0, abs=0.01)
    assert found.error < 0.15
    assert found.tilt < 0.4


@pytest.mark.slow
def test_ten_walks_of_twenty_seconds(controller):
    """On robots that are late, noisy and never the same: at most one falls, and velocities are as asked to 0.15 m/s."""
    walks = []
    for seed in range(3_000_000, 3_000_010):
        walks.append(walk(controller, seed, 20.0))
        controller.rearm()
    upright = [found for found in walks if not found.reason and found.time >= 19.99]
    assert len(upright) >= 9, [found.reason for found in walks]
    assert np.mean([found.error for found in walks]) <= 0.15

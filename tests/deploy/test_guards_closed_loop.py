"""No guard stops a sound simulated robot: whatever the policy wants, at every control rate."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from guarded_chain import guarded_chain

pytest.importorskip("ogbench", reason="needs the extra `sim`")

from onestride.deploy.controller import Controller
from onestride.deploy.runtime import Prediction
from onestride.deploy.simulation import simulate_episode
from onestride.hardware.plant import STATE
from onestride.training.environments.ogbench_cube import make_cube


class Acts:
    """A policy that gives one action at a time."""

    def __init__(self, act) -> None:
        self._act, self._prediction = act, None

    def request(self, observation, at: int) -> None:
        del observation
        self._prediction = Prediction(np.asarray(self._act(), np.float32)[None], at)

    def poll(self, timeout: float = 0.0) -> Prediction | None:
        del timeout
        prediction, self._prediction = self._prediction, None
        return prediction

    def reset(self, seed: int | None = None) -> None:
        del seed
        self._prediction = None


@pytest.fixture
def oracle(cube_scene, plant):
    """OGBench's expert, looking at the plant."""
    environment = make_cube(cube_scene.description.environment)
    environment.reset(21)
    inner, expert = environment.inner, environment.oracle("markov", 21)

    def act():
        mujoco.mj_setState(inner.model, inner.data, plant.state, STATE)
        mujoco.mj_forward(inner.model, inner.data)
        mujoco.mj_rnePostConstraint(inner.model, inner.data)
        environment._info = inner.get_step_info()
        return np.clip(expert.act(), -1, 1)

    yield act
    environment.close()


def policies(seed: int, oracle):
    """An expert, somebody who knows nothing, one who tears at the robot, and one who pushes into the table."""
    rng = np.random.default_rng(seed)
    return {
        "expert": oracle,
        "random": lambda: rng.uniform(-1, 1, 5),
        "tearing": lambda: rng.choice([-1.0, 1.0], 5),
        "pushing": lambda: np.array([0.3, 0.1, -1.0, 0.2, 1.0]),
    }


def run(contract, robot, forward, plant, start, rate: float, act, seed: int = 0):
    """An episode: the controller, its progress, and how fast and far it went."""
    execution = contract.execution.model_copy(update={"control_rate": rate, "horizon": 1, "n_action_steps": 1})
    own = contract.model_copy(update={"execution": execution})
    controller = Controller(own, robot, forward, Acts(act), chain=guarded_chain(own, robot))
    moved = []
    progress = simulate_episode(controller, plant, start, seed, lambda _, measured: moved.append(measured.position))
    return controller, progress, np.array(moved)


@pytest.fixture
def short(plant, monkeypatch):
    """The plant with episodes of three seconds."""
    monkeypatch.setattr(plant, "scene", plant.scene.model_copy(update={"horizon": 60}))
    return plant


@pytest.mark.parametrize("rate", [100.0, 200.0, 500.0])
def test_an_expert_is_left_alone_and_solves_the_task(contract, robot, forward, plant, start, oracle, rate):
    controller, progress, _ = run(contract, robot, forward, plant, start, rate, oracle)
    assert controller.reason == ""
    assert progress.success


@pytest.mark.parametrize("rate", [100.0, 200.0, 500.0])
@pytest.mark.parametrize("kind", ["random", "tearing", "pushing"])
def test_rough_policies_are_left_alone(contract, robot, forward, short, start, oracle, rate, kind):
    controller, progress, moved = run(contract, robot, forward, short, start, rate, policies(1, oracle)[kind])
    assert controller.reason == ""
    assert progress.time == pytest.approx(3.0, abs=0.01)
    assert np.ptp(moved[:, :6], axis=0).max() > 0.3, "it should have moved far enough to be looked at"


@pytest.mark.slow
@pytest.mark.parametrize("rate", [100.0, 200.0, 500.0])
@pytest.mark.parametrize("seed", range(10))
def test_rough_policies_are_left_alone_for_long(contract, robot, forward, plant, start, oracle, rate, seed):
    for kind in ("random", "tearing", "pushing"):
        controller, _, _ = run(contract, robot, forward, plant, start, rate, policies(seed, oracle)[kind], seed)
        assert controller.reason == "", kind

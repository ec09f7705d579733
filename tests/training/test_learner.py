"""A policy that acts in the expert's place: its own actions are executed, the expert's are the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("robosuite_models", reason="needs the Go2's model")

from onestride.datasets.store import Store
from onestride.deploy.runtime import PolicyRuntime
from onestride.hardware.errors import OneStrideError
from onestride.training.collection import Collection, collect, rollout
from onestride.training.environments.go2_walk import Go2Walk
from onestride.training.environments.oracles import demonstrable
from onestride.training.environments.own_tasks import WALK
from onestride.training.environments.registry import make
from onestride.training.evaluation import noise_seed
from onestride.training.learner import Learner

POLICY = Path(__file__).parents[1] / "assets" / "go2_walk.onnx"
STEPS = 30


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(Go2Walk, "horizon", STEPS)


@pytest.fixture(scope="module")
def environment():
    return demonstrable(WALK)


def test_executed_is_the_policys_answer_to_what_was_recorded(environment):
    """The file is asked again, with a history of its own."""
    episode = rollout(environment, "trot", 0.0, 4, Learner(POLICY, environment))
    policy = PolicyRuntime(POLICY)
    policy.reset(noise_seed(4))
    seen = episode.data["observation"].astype(np.float64)
    past = np.concatenate([np.repeat(seen[:1], policy.contract.history - 1, axis=0), seen])
    for step, executed in enumerate(episode.data["action_executed"]):
        answer = policy.infer(past[step : step + policy.contract.history].ravel())[0]
        np.testing.assert_allclose(executed, np.clip(answer, -1, 1), atol=1e-4)


def test_labels_are_the_experts(environment):
    episode = rollout(environment, "trot", 0.0, 4, Learner(POLICY, environment))
    environment.reset(4)
    expert = environment.oracle("trot", 4)
    for label, executed in zip(episode.data["action"], episode.data["action_executed"], strict=True):
        np.testing.assert_allclose(label, expert.act(), atol=1e-6)
        environment.step(executed.astype(np.float64))
    assert np.abs(episode.data["action"] - episode.data["action_executed"]).max() > 0.02


def test_a_store_says_who_acted(tmp_path):
    asked = Collection(WALK, "trot", noise=0.0, keep_failures=True, policy=str(POLICY))
    found = collect(asked, tmp_path / "learner.zarr", 2)
    store = Store.open(tmp_path / "learner.zarr")
    assert (found.episodes, store.num_steps) == (2, 2 * STEPS)
    recorded = store.provenance.extra["collection"]
    assert isinstance(recorded, dict)
    assert recorded["policy"] == str(POLICY)
    with pytest.raises(OneStrideError, match="holds another collection"):
        collect(Collection(WALK, "trot", noise=0.0, keep_failures=True), tmp_path / "learner.zarr", 3)


def test_stores_from_before_there_were_learners_go_on():
    assert "policy" not in Collection(WALK, "trot").recorded


def test_only_environments_with_an_expert_can_be_collected_in():
    with pytest.raises(OneStrideError, match="expected an environment with a scripted expert"):
        demonstrable("gymnasium/InvertedPendulum-v5")


def test_a_policy_for_something_else_is_refused():
    with pytest.raises(OneStrideError, match="expected a policy of 8 observation and 2 action elements"):
        Learner(POLICY, make("onestride/wall-push-v0"))

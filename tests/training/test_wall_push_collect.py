"""Demonstrations of the contact task: collected like any other, though it is stated in no robot's terms."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="needs the extra `sim`")

from onestride.datasets.store import Store
from onestride.deploy.cli import main
from onestride.hardware.errors import OneStrideError
from onestride.training.collection import Collection, collect, rollout
from onestride.training.contracts import draft
from onestride.training.environments.oracles import demonstrable

PLAIN, AWARE = "onestride/wall-push-v0", "onestride/wall-push-aware-filtered-v0"


@pytest.mark.parametrize("name", [PLAIN, AWARE])
def test_executed_actions_lead_through_the_recorded_observations(name):
    environment = demonstrable(name)
    episode = rollout(environment, "push", noise=0.1, seed=5)
    observation = environment.reset(5)
    for recorded, action in zip(episode.data["observation"], episode.data["action_executed"], strict=True):
        np.testing.assert_allclose(recorded, observation, atol=1e-5)
        observation = environment.step(action.astype(np.float64)).observation
    assert episode.attributes["success"]
    assert not np.array_equal(episode.data["action"], episode.data["action_executed"])


def test_the_command_fills_a_store_and_goes_on_where_it_was_cut(tmp_path, capsys):
    path = tmp_path / "push.zarr"
    for episodes in (2, 3):
        wanted = ["--env", PLAIN, "--oracle", "push", "--noise", "0.1", "--episodes", str(episodes), "--json"]
        assert main(["collect", str(path), *wanted]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["episodes"] == episodes
    assert said["reused"] == 2
    store = Store.open(path)
    assert all(one.attributes["success"] for one in store.episodes)
    assert (store.schema.robot, store.schema.control_rate) == (None, 50.0)
    asked = {"algorithm": "none", "nfe": (1,), "horizon": 5, "n_action_steps": 5, "config": {}, "seed": 0, "step": 0}
    contract = draft(store, ["observation"], environment=PLAIN, **asked)
    assert len(contract.observation_names) == 8
    assert contract.robot is None


def test_another_expert_is_refused(tmp_path):
    with pytest.raises(OneStrideError, match=r"oracle of onestride/wall-push-v0.*'markov'.*available: push"):
        collect(Collection(PLAIN), tmp_path / "push.zarr", 1)

"""Collection stores the oracle's clean actions, executes noisy ones, and goes on where it was cut."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onestride.hardware.errors import OneStrideError

pytest.importorskip("ogbench", reason="needs the extra `sim`")

from onestride.datasets.layout import LOCK
from onestride.datasets.lock import AppendLock
from onestride.datasets.store import Store
from onestride.training import collection as collection_module
from onestride.training.collection import Collection, collect, rollout
from onestride.training.environments.ogbench import CUBES
from onestride.training.environments.ogbench_cube import make_cube
from onestride.training.environments.registry import interface

CUBE = "ogbench/cube-single-singletask-task2-v0"


@pytest.fixture(scope="module")
def environment():
    made = make_cube(CUBE)
    yield made
    made.close()


@pytest.fixture(scope="module")
def episode(environment):
    return rollout(environment, "markov", noise=0.3, seed=5)


def test_executed_actions_lead_through_the_recorded_states(environment, episode):
    """Replaying the executed actions in a fresh episode of the seed gives the recorded observations."""
    observation = environment.reset(5)
    for recorded, action in zip(episode.data["observation"], episode.data["action_executed"], strict=True):
        np.testing.assert_allclose(recorded, observation, atol=1e-5)
        observation, *_, solved, _ = environment.step(action.astype(np.float64))
    assert solved
    np.testing.assert_allclose(episode.final["observation"], observation, atol=1e-5)


def test_labels_are_the_oracles_clean_answers(environment, episode):
    """OGBench's oracle is asked afresh in every recorded state, without noise."""
    environment.reset(5)
    oracle = environment.oracle("markov", 5)
    for label, executed in zip(episode.data["action"], episode.data["action_executed"], strict=True):
        np.testing.assert_allclose(label, oracle.act(), atol=1e-6)
        environment.step(executed.astype(np.float64))
    noise = episode.data["action_executed"] - episode.data["action"]
    assert np.abs(noise).max() > 0.1
    assert np.abs(episode.data["action_executed"]).max() <= 1.0


def test_without_noise_the_label_is_executed(environment):
    clean = rollout(environment, "markov", noise=0.0, seed=6)
    np.testing.assert_array_equal(clean.data["action"], clean.data["action_executed"])
    assert clean.attributes["success"]


def test_one_seed_gives_one_episode(environment, episode):
    again = rollout(environment, "markov", noise=0.3, seed=5)
    for name, values in episode.data.items():
        np.testing.assert_array_equal(values, again.data[name], err_msg=name)


def test_cut_and_continued_is_the_same_dataset(tmp_path):
    whole = collect(Collection(CUBE, noise=0.1), tmp_path / "whole.zarr", 4)
    collect(Collection(CUBE, noise=0.1), tmp_path / "cut.zarr", 2)
    continued = collect(Collection(CUBE, noise=0.1), tmp_path / "cut.zarr", 4)
    assert continued.reused == 2
    assert (continued.episodes, continued.steps) == (whole.episodes, whole.steps)
    first, second = Store.open(tmp_path / "whole.zarr"), Store.open(tmp_path / "cut.zarr")
    for feature in first.schema.features:
        np.testing.assert_array_equal(first.read(feature.name), second.read(feature.name))
    reused = collect(Collection(CUBE, noise=0.1), tmp_path / "cut.zarr", 3)
    assert reused.episodes == 4, "what is there is never deleted"


def test_another_collection_in_the_same_store_is_refused(tmp_path):
    collect(Collection(CUBE, noise=0.1), tmp_path / "a.zarr", 1)
    with pytest.raises(OneStrideError, match="holds another collection"):
        collect(Collection(CUBE, noise=0.5), tmp_path / "a.zarr", 1)


def test_what_cannot_be_collected_leaves_no_store_and_one_without_episodes_is_replaced(tmp_path):
    path = tmp_path / "a.zarr"
    for wrong in (Collection(CUBE, oracle="delphi"), Collection(CUBE, policy=str(tmp_path / "nobody.onnx"))):
        with pytest.raises(OneStrideError):
            collect(wrong, path, 1)
        assert not path.exists()

    def nothing_is_kept(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(collection_module, "rollout", nothing_is_kept)
        collect(Collection(CUBE, noise=0.5), path, 1)
    assert Store.open(path).num_episodes == 0
    with AppendLock(path / LOCK), pytest.raises(OneStrideError, match="expected to be the only writer"):
        collect(Collection(CUBE, noise=0.1), path, 1)
    assert collect(Collection(CUBE, noise=0.1), path, 1).episodes == 1


def test_interrupted_collection_keeps_what_was_rolled(tmp_path):
    def interrupt(episodes, _steps):
        if episodes == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(Collection(CUBE), tmp_path / "a.zarr", 5, interrupt)
    assert Store.open(tmp_path / "a.zarr").num_episodes == 2


def test_unknown_names_list_what_exists(tmp_path):
    with pytest.raises(OneStrideError, match=r"unknown environment: got 'ogbench/soup', available: .*cube-\{single"):
        collect(Collection("ogbench/soup"), tmp_path / "a.zarr", 1)
    with pytest.raises(OneStrideError, match=r"unknown oracle .* got 'delphi', available: markov"):
        collect(Collection(CUBE, oracle="delphi"), tmp_path / "b.zarr", 1)
    with pytest.raises(OneStrideError, match="expected episodes >= 1"):
        collect(Collection(CUBE), tmp_path / "c.zarr", 0)


def test_the_schema_names_every_element_as_the_interface_does(environment, tmp_path):
    collect(Collection(CUBE), tmp_path / "a.zarr", 1)
    schema = Store.open(tmp_path / "a.zarr").schema
    assert schema.feature("observation").names == environment.interface.observation_names
    assert schema.feature("observation").units == environment.interface.observation_units
    assert schema.feature("action").names == environment.interface.action_names
    assert schema.label_source == "oracle"


@pytest.mark.parametrize("name", [f"ogbench/cube-{kind}-singletask-task1-v0" for kind in CUBES])
def test_every_cube_task_has_the_interface_it_states(name):
    made = make_cube(name)
    known = interface(name)
    assert known is not None
    assert made.reset(0).shape == (len(known.observation_names),)
    assert made.env.action_space.shape == (len(known.action_names),)
    made.close()


def test_the_oracle_solves_a_task_with_two_cubes():
    double = make_cube("ogbench/cube-double-singletask-task2-v0")
    assert rollout(double, "markov", noise=0.0, seed=1).attributes["success"]
    double.close()


def test_the_command_names_the_store_after_the_environment(tmp_path, monkeypatch, capsys):
    from onestride.deploy.cli import main

    monkeypatch.chdir(tmp_path)
    words = ["collect", "--env", CUBE, "--oracle", "markov", "--episodes", "1", "--noise", "0.1"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "cube-single-singletask-task2-v0.zarr"
    assert Store.open("cube-single-singletask-task2-v0.zarr").num_episodes == 1

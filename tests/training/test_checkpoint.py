"""Snapshots and run directories: exact, atomic, and honest about damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.hardware.errors import OneStrideError
from onestride.training import snapshots
from onestride.training.agents.catalogue import config_to_json
from onestride.training.checkpoint import RunConfig, RunDirectory, load_run
from onestride.training.snapshots import Snapshot

from .toy_store import ACTION, OBSERVATION, SMALL, make_agent, random_batch

GROUPS = {"model", "ema", "optimiser", "random"}
CONFIG = RunConfig(
    agent="mvp",
    settings=config_to_json(SMALL),
    dataset_id="abc",
    data="/somewhere",
    observations=("position", "goal"),
    observation_dim=OBSERVATION,
    action_dim=ACTION,
    steps=100,
    seed=0,
)


def snapshot_of(step: int) -> Snapshot:
    agent = make_agent()
    for seed in range(step):
        agent.update(random_batch(seed=seed))
    state = agent.state_dict()
    return Snapshot(step, state.tensors, {"agent": dict(state.values), "windows": {"state": 2**127 + 1}})


def make_run(path: Path, *steps: int) -> RunDirectory:
    directory = RunDirectory(path)
    path.mkdir()
    directory.claim(CONFIG)
    directory.write_contract("{}")
    for step in steps:
        snapshots.save(directory.checkpoints, snapshot_of(step))
    return directory


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    before = snapshot_of(2)
    after = snapshots.load(snapshots.save(tmp_path, before))
    assert (after.step, after.values) == (before.step, before.values)
    assert set(after.tensors) == GROUPS
    for group, tensors in before.tensors.items():
        assert set(after.tensors[group]) == set(tensors)
        for name, tensor in tensors.items():
            loaded = after.tensors[group][name]
            assert loaded.dtype == tensor.dtype
            assert torch.equal(loaded, tensor), name


def test_nothing_on_disk_is_pickled(tmp_path: Path) -> None:
    folder = snapshots.save(tmp_path, snapshot_of(1))
    assert {path.name for path in folder.iterdir()} == {"state.json", *(f"{group}.safetensors" for group in GROUPS)}
    json.loads((folder / "state.json").read_text())


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        snapshots.save(tmp_path, Snapshot(step, {}, {}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_15", "step_20"]


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("file", ["state.json", "model.safetensors", "ema.safetensors", "optimiser.safetensors"])
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, file: str, damage: Callable[[Path], None]) -> None:
    directory = make_run(tmp_path / "run", 1, 2)
    damage(directory.checkpoints / "step_2" / file)
    run = load_run(directory.path)
    assert run.step == 1
    assert len(run.damaged) == 1 and str(Path("step_2") / file) in run.damaged[0]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_the_state_is_seen(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Unless the flip leaves the same JSON value: in white space, or in a digit past a float's precision."""
    home = snapshots.save(tmp_path_factory.mktemp("flip"), Snapshot(7, {}, {"windows": {"state": 2**100}}))
    path = home / "state.json"
    content = bytearray(path.read_bytes())
    intact = json.loads(content)
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        loaded = snapshots.load(home)
    except OneStrideError:
        return
    assert json.loads(content) == intact and loaded.step == 7


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", 1)
    truncate(directory.checkpoints / "step_1" / "model.safetensors")
    with pytest.raises(OneStrideError, match=r"expected an intact checkpoint, got .*truncated or altered"):
        load_run(directory.path)


def test_a_save_after_falling_back_replaces_the_damaged(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", 1, 3)
    truncate(directory.checkpoints / "step_3" / "state.json")
    snapshots.save(directory.checkpoints, snapshot_of(2))
    assert sorted(path.name for path in directory.checkpoints.iterdir()) == ["step_1", "step_2"]
    snapshots.save(directory.checkpoints, snapshot_of(3))
    snapshot, damaged = snapshots.newest(directory.checkpoints)
    assert snapshot is not None and snapshot.step == 3 and damaged == ()


def test_an_unfinished_save_is_invisible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever interrupts the writing, the earlier snapshot stands; the next save clears the remains."""
    directory = make_run(tmp_path / "run", 1)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt(path)

    monkeypatch.setattr(snapshots, "sync_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        snapshots.save(directory.checkpoints, snapshot_of(2))
    monkeypatch.undo()
    assert load_run(directory.path).step == 1
    snapshots.save(directory.checkpoints, snapshot_of(2))
    assert sorted(path.name for path in directory.checkpoints.iterdir()) == ["step_1", "step_2"]


def test_a_loaded_run_acts_like_the_agent_that_was_saved(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", 3)
    agent = make_agent()
    for seed in range(3):
        agent.update(random_batch(seed=seed))
    run = load_run(directory.path)
    g = torch.Generator().manual_seed(0)
    observation, noise = torch.randn(4, OBSERVATION, generator=g), torch.randn(4, SMALL.horizon, ACTION, generator=g)
    assert torch.equal(run.agent.act(observation, noise), agent.act(observation, noise))
    assert (run.config, run.contract, run.step, run.damaged) == (CONFIG, "{}", 3, ())


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OneStrideError, match=r"expected a run directory, got .*nowhere"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(OneStrideError, match=r"config\.json: expected fields agent"):
        load_run(tmp_path)


def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", 1)
    path = directory.path / "config.json"
    values = json.loads(path.read_text())
    values["settings"]["hidden"] = [8]
    path.write_text(json.dumps(values))
    with pytest.raises(OneStrideError, match="expected a checkpoint that fits the run's config"):
        load_run(directory.path)

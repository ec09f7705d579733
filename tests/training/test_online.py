"""Offline to online: what a run leaves behind, and that an interrupted or killed one goes on to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from line_samples import line_store
from online_samples import Notes, assert_same_run, small_options

from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError
from onestride.training.agents.rlpd import RLPDConfig
from onestride.training.agents.sac import SACConfig
from onestride.training.checkpoint import load_run
from onestride.training.evaluations import read_evaluations
from onestride.training.metrics import read_metrics
from onestride.training.replay import Replay
from onestride.training.trainer import TrainOptions, train
from onestride.training.transitions import TransitionFile

SCRIPT = """
import sys
from pathlib import Path
from onestride.training.agents.mvp import MVPConfig
from onestride.training.trainer import TrainOptions, train
if __name__ == "__main__":
    sys.path.insert(0, sys.argv[3])
    config = MVPConfig(horizon=3, n_action_steps=2, history=2, hidden=(16,), critic_hidden=(16,), batch_size=8,
                       candidates=2, normalise="none")
    train(TrainOptions(config, Path(sys.argv[1]), Path(sys.argv[2]), steps=10, env="python/line_environment:Line",
                       online_steps=20_000, device="cpu", log_every=5, checkpoint_every=15, evaluators=0, episodes=2))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return line_store(tmp_path_factory.mktemp("line") / "line.zarr")


@pytest.fixture
def options(store: Store, tmp_path: Path) -> TrainOptions:
    return small_options(store.path, tmp_path / "run")


def test_offline_then_online(options: TrainOptions) -> None:
    result = train(options)
    assert (result.steps, result.environment_steps, result.resumed_from) == (60, 40, 0)
    rows = read_evaluations(options.run / "evaluations.csv")
    assert [(row["step"], row["episodes"], row["seed"]) for row in rows] == [(30, 3, 1e6), (60, 3, 1e6)]
    assert result.success == rows[-1]["success"]
    logged = read_metrics(options.run / "metrics.csv")
    assert [row["step"] for row in logged] == list(range(5, 65, 5))
    assert "environment/return" not in logged[0] and any("environment/return" in row for row in logged[4:])
    records = TransitionFile(options.run / "online.transitions", 3, 2).open(40)
    assert records["begins"][0] and np.isfinite(records["observation"]).all()
    follows = ~records["ends"][:-1]
    assert np.array_equal(records["successor"][:-1][follows], records["observation"][1:][follows])
    assert np.array_equal(records["begins"][1:], records["ends"][:-1])


@pytest.fixture(scope="module")
def straight(store: Store, tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    """A run of two environments that nothing interrupted."""
    options = small_options(store.path, tmp_path_factory.mktemp("straight") / "run")
    options = replace(options, environments=2, updates_per_step=2, log_every=1)
    train(options)
    return options


@pytest.mark.parametrize("stop", [15, 22, 36, 46])
def test_interrupted_and_resumed_equals_straight(straight: TrainOptions, tmp_path: Path, stop: int) -> None:
    """Offline, and in the middle of an episode and of a chunk, while two environments run."""
    cut = replace(straight, run=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train(cut, Notes(interrupt_at=stop))
    assert load_run(cut.run).step == stop
    notes = Notes()
    assert train(cut, notes).resumed_from == stop
    assert f"{cut.run}: resumed at step {stop}" in notes.notes
    assert_same_run(straight.run, cut.run)


def test_a_killed_process_is_resumed_bit_for_bit(options: TrainOptions, store: Store, tmp_path: Path) -> None:
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, str(script), str(store.path), str(killed), tests]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": tests}
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 60
        while not (killed / "checkpoints" / "step_45").exists() and time.monotonic() < deadline:
            assert process.poll() is None, "training ended by itself"
            time.sleep(0.005)
        process.kill()
    reached = load_run(killed).step
    assert reached >= 45
    asked = replace(options, steps=10, online_steps=20_000, evaluate_every=10_000, checkpoint_every=1000, episodes=2)
    after = reached + 10
    for run in (killed, straight):
        with pytest.raises(KeyboardInterrupt):
            train(replace(asked, run=run), Notes(interrupt_at=after))
    assert_same_run(killed, straight)


def test_online_alone(options: TrainOptions) -> None:
    """Random start-up, then learning; the contract and the policy need no dataset."""
    alone = replace(options, data=None, startup_steps=12, online_steps=30)
    result = train(alone)
    assert (result.steps, result.environment_steps, result.dataset_id) == (30, 30, "")
    rows = read_metrics(alone.run / "metrics.csv")
    assert [row["step"] for row in rows if "actor/loss" in row] == [15, 20, 25, 30]
    run = load_run(alone.run)
    assert '"environment":"python/line_environment:Line"' in run.contract.replace(" ", "").replace("\n", "")


def test_rlpd_draws_half_of_each_batch_from_the_data(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[tuple[int, float]] = []
    sample = Replay.sample

    def noted(replay: Replay, count: int) -> dict[str, torch.Tensor]:
        batch = sample(replay, count)
        shares.append((int(replay.starts.max()), float((replay.starts < offline).float().mean())))
        return batch

    offline = Store.open(options.data or Path()).num_steps
    monkeypatch.setattr(Replay, "sample", noted)
    config = RLPDConfig(hidden=(16,), critics=2, batch_size=16, online_share=0.25)
    train(replace(options, config=config, steps=0, online_steps=40, evaluate_every=100))
    assert {share for newest, share in shares if newest >= offline} == {0.75}


def test_a_resumed_run_without_data_keeps_its_contract(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its replay is empty until it lives on; killed before that, it still knows what it had seen."""
    config = SACConfig(hidden=(16,), batch_size=8)
    alone = replace(options, config=config, data=None, startup_steps=10, checkpoint_every=10, episodes=2)
    with pytest.raises(KeyboardInterrupt):
        train(alone, Notes(interrupt_at=30))
    before = (alone.run / "contract.json").read_text()
    monkeypatch.setattr("onestride.training.trainer.MetricsLog", _killed)
    with pytest.raises(KeyboardInterrupt):
        train(alone)
    assert (alone.run / "contract.json").read_text() == before


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_another_config_is_refused(options: TrainOptions) -> None:
    train(replace(options, steps=5, online_steps=10))
    with pytest.raises(
        OneStrideError, match="online_steps: 10 there, 12 asked for; updates_per_step: 1 there, 2 asked"
    ):
        train(replace(options, steps=5, online_steps=12, updates_per_step=2))


def test_a_damaged_record_is_refused(options: TrainOptions) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(options, Notes(interrupt_at=45))
    path = options.run / "online.transitions"
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    with pytest.raises(OneStrideError, match="expected transition 0 as it was written, got an altered one"):
        train(options)


@pytest.mark.slow
def test_a_simulated_arm_goes_on_to_the_bit(tmp_path: Path) -> None:
    """OGBench's cube, in the middle of an episode, whose simulation is brought back by living it again."""
    options = replace(
        small_options(tmp_path, tmp_path / "straight"),
        data=None,
        env="ogbench/cube-single-singletask-task2-v0",
        startup_steps=10,
        online_steps=60,
        log_every=1,
        evaluate_every=1000,
        episodes=1,
    )
    train(options)
    cut = replace(options, run=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train(cut, Notes(interrupt_at=37))
    notes = Notes()
    assert train(cut, notes).resumed_from == 37
    assert not any("is not where it was" in line for line in notes.notes)
    assert_same_run(options.run, cut.run)

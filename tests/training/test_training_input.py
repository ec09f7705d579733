"""Bad input to the loop: one clear sentence, before the work, or at the step where it goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_samples import line_store
from online_samples import SMALL, Notes, small_options

from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError
from onestride.training import snapshots
from onestride.training.agents.mvp import MVPAgent
from onestride.training.checkpoint import load_run
from onestride.training.trainer import TrainOptions, train


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return line_store(tmp_path_factory.mktemp("line") / "line.zarr")


@pytest.fixture
def options(store: Store, tmp_path: Path) -> TrainOptions:
    return small_options(store.path, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"env": None, "online_steps": 5}, "online_steps: expected an environment to act in with --env"),
        ({"data": None, "online_steps": 0}, "expected a dataset with --data, or --env with --online-steps"),
        ({"environments": 3}, "online_steps: expected a multiple of the 3 environments, got 40"),
        ({"stop_at_success": 1.5}, r"stop_at_success: expected in \(0, 1\], got 1.5"),
        ({"worker_timeout": 0.0}, "worker_timeout: expected > 0 s"),
    ],
)
def test_bad_options_are_refused(options: TrainOptions, change: dict[str, Any], words: str) -> None:
    with pytest.raises(OneStrideError, match=words):
        replace(options, **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"env": "ogbench/chess-v0"}, "unknown environment: got 'ogbench/chess-v0', available: "),
        ({"env": "python/line_environment:Circle"}, "unknown environment of line_environment: got 'Circle'"),
        ({"env": "gymnasium/HalfCheetah-v5"}, "expected data of 17 observation and 6 action elements, got 3 and 2"),
        ({"config": replace(SMALL, horizon=40, n_action_steps=2)}, "horizon: expected at most 12, .* got 40"),
        (
            {"config": replace(SMALL, candidates=1)},
            "online_steps: expected 0 for mvp, which imitates data alone, got 40",
        ),
        ({"data": None, "config": replace(SMALL, normalise="standardise")}, "normalise: expected none where there is"),
    ],
)
def test_bad_requests_are_refused(options: TrainOptions, change: dict[str, Any], words: str) -> None:
    with pytest.raises(OneStrideError, match=words):
        train(replace(options, **change))
    assert not options.run.exists()


def test_data_without_rewards_is_refused(options: TrainOptions, tmp_path: Path) -> None:
    bare = line_store(tmp_path / "bare.zarr", 2, reward=False)
    with pytest.raises(OneStrideError, match="expected rewards, because this agent learns from them, got none"):
        train(replace(options, data=bare.path))


def test_actions_outside_the_box_are_refused(options: TrainOptions, tmp_path: Path) -> None:
    wide = line_store(tmp_path / "wide.zarr", 2, scale=2.0)
    with pytest.raises(OneStrideError, match=r"expected actions in \[-1, 1\], the box of .*Line, got .* in element 0"):
        train(replace(options, data=wide.path))


def test_short_episodes_are_told(options: TrainOptions) -> None:
    notes = Notes()
    train(replace(options, steps=1, online_steps=0, config=replace(SMALL, horizon=10)), notes)
    assert any("horizon 10 is longer than the shortest episode" in line for line in notes.notes)


def test_a_loss_that_is_not_finite_stops_the_run(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the 13th update on; what was saved at the 10th step stays, and the message names the windows."""
    update, seen = MVPAgent.update, []

    def poisoned(self: MVPAgent, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(batch["observations"])
        return {name: value * (float("nan") if len(seen) == 13 else 1) for name, value in update(self, batch).items()}

    monkeypatch.setattr(MVPAgent, "update", poisoned)
    with pytest.raises(OneStrideError, match=r"step 13: expected finite losses, got .*loss nan.*windows that start at"):
        train(replace(options, checkpoint_every=10))
    assert load_run(options.run).step == 10
    snapshot = snapshots.load(options.run / "failures" / "step_13")
    assert len(snapshot.values["starts"]) == SMALL.batch_size
    rows = Store.open(options.data or "").read("observation")[snapshot.values["starts"]]
    assert np.array_equal(rows, seen[12][:, -1].numpy())


def test_an_unknown_flag_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    from onestride.deploy.cli import main

    assert main(["train", "mvp", "--run", "r", "--enviroments", "2"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "--enviroments, nearest: --environments;" in said

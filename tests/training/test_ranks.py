"""Several processes that train one agent: against one process on whole batches, exact resume, and a lost rank."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from line_environment import NAME
from line_samples import line_store
from rank_samples import data, end_early, hang, make_model, obey, refuse, run_out, step, take_share

from onestride.datasets.store import Store
from onestride.hardware.errors import OneStrideError
from onestride.training import snapshots
from onestride.training.agents.catalogue import find
from onestride.training.agents.mvp import MVPConfig
from onestride.training.checkpoint import RunDirectory
from onestride.training.experience import load_experience
from onestride.training.metrics import read_metrics
from onestride.training.ranks import GO_ON, followers, shared_mean, together
from onestride.training.replay import Replay
from onestride.training.reporter import Reporter
from onestride.training.trainer import TrainOptions, train

SMALL = MVPConfig(horizon=3, n_action_steps=2, hidden=(16,), critic_hidden=(16,), batch_size=16, candidates=2)


class StopAt(Reporter):
    """Interrupts when a step is reported."""

    def __init__(self, step: int) -> None:
        self._step = step

    def progress(self, step: int, steps: int, metrics: Mapping[str, float], steps_per_s: float) -> None:
        del steps, metrics, steps_per_s
        if step == self._step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return line_store(tmp_path_factory.mktemp("line") / "line.zarr", 8)


@pytest.fixture
def options(store: Store, tmp_path: Path) -> TrainOptions:
    return TrainOptions(
        SMALL, store.path, tmp_path / "run", steps=20, device="cpu", log_every=1, checkpoint_every=5, processes=2
    )


def tensors(run: Path) -> dict[str, torch.Tensor]:
    snapshot, _ = snapshots.newest(RunDirectory(run).checkpoints)
    assert snapshot is not None
    groups = snapshot.tensors.items()
    return {f"{group}/{name}": tensor for group, tensors in groups for name, tensor in tensors.items()}


def test_shares_of_a_batch_make_the_step_of_the_whole() -> None:
    """Three processes with four rows each = one with all twelve; so is the mean of what they see."""
    whole, shared = make_model(), make_model()
    x, y = data()
    step(whole, x, y)
    with (
        followers(take_share, 3, 60.0, 3) as meeting,
        together(0, 3, meeting, torch.device("cpu"), 60.0),
    ):
        step(shared, x[0::3], y[0::3])
        torch.testing.assert_close(shared_mean(x[0::3].mean(0)), x.mean(0))
    assert torch.equal(shared_mean(x), x)
    for mine, expected in zip(shared.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, expected)
    alone = make_model()
    step(alone, x[0::3], y[0::3])
    assert not torch.allclose(alone.weight, whole.weight)


def test_ranks_share_the_draws_of_one(store: Store) -> None:
    experience = load_experience(store, None, None, ("rewards",))
    sizes: dict[str, Any] = {"observation_dim": 3, "action_dim": 2, "horizon": 2, "seed": 4}
    one, *parts = (Replay(experience, **sizes, rank=rank, ranks=ranks) for rank, ranks in ((0, 1), (0, 2), (1, 2)))
    for _ in range(3):
        one.sample(10)
        for part in parts:
            part.sample(5)
        assert torch.equal(one.starts, torch.cat([part.starts for part in parts]))


def test_interrupted_and_resumed_equals_straight(options: TrainOptions, tmp_path: Path) -> None:
    """Every save compares the weights of the ranks; each rank's noise goes on where it was."""
    straight = replace(options, run=tmp_path / "straight")
    train(straight)
    with pytest.raises(KeyboardInterrupt):
        train(options, StopAt(7))
    assert train(options).resumed_from == 7
    mine, theirs = tensors(options.run), tensors(straight.run)
    assert mine.keys() == theirs.keys() and "random_1/generator" in mine
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert not torch.equal(mine["random/generator"], mine["random_1/generator"])


def test_imitation_and_evaluation_with_two_processes(options: TrainOptions) -> None:
    both = replace(options, config=replace(SMALL, candidates=1), env=NAME, episodes=1, evaluators=0, evaluate_every=10)
    result = train(both)
    assert result.steps == 20 and result.success is not None
    assert len(read_metrics(both.run / "metrics.csv")) == 20


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (end_early, "(?!.*rank 1)"),
        pytest.param(run_out, ".*; rank 1: RuntimeError: no memory left", marks=pytest.mark.slow),
    ],
)
def test_a_lost_rank_is_told(ending: Any, reason: str) -> None:
    x, y = data()
    with (
        pytest.raises(OneStrideError, match="a process that trained along was lost, run it again to resume" + reason),
        followers(ending, 2, 60.0, 2) as meeting,
        together(0, 2, meeting, torch.device("cpu"), 20.0),
    ):
        step(make_model(), x, y)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"processes": 3}, "batch_size: expected a multiple of the 3 processes, got 16"),
        ({"env": NAME, "online_steps": 4}, "processes: expected 1 with online_steps, got 2"),
        ({"processes": 0}, "processes: expected >= 1, got 0"),
    ],
)
def test_what_cannot_be_shared_is_refused(options: TrainOptions, change: dict[str, Any], words: str) -> None:
    with pytest.raises(OneStrideError, match=words):
        replace(options, **change)


def test_another_number_of_processes_is_another_run(options: TrainOptions) -> None:
    train(replace(options, processes=1))
    with pytest.raises(OneStrideError, match="processes: 1 there, 2 asked for"):
        train(options)


@pytest.mark.parametrize(
    ("name", "settings", "followed"),
    [
        ("dsact", {}, "critic/spread"),
        pytest.param(
            "sac_lag", {"multiplier": 1.0, "multiplier_lr": 0.01}, "multiplier/multiplier", marks=pytest.mark.slow
        ),
        pytest.param(
            "lac", {"multiplier": 1.0, "multiplier_lr": 0.01}, "multiplier/multiplier", marks=pytest.mark.slow
        ),
    ],
)
def test_what_follows_a_batch_without_an_optimiser_is_shared(
    options: TrainOptions, name: str, settings: dict[str, Any], followed: str
) -> None:
    """A spread or a multiplier that a rank took from its own share would stop the run at the first checkpoint."""
    config: Any = find(name).config
    begun = replace(options, config=config(hidden=(16,), batch_size=16, **settings), steps=5, checkpoint_every=5)
    train(begun)
    before = tensors(options.run)[followed]
    assert not torch.equal(before, torch.full_like(before, settings.get("multiplier", 0.0)))


def test_a_rank_that_hangs_ends_the_others_in_time() -> None:
    """It is waited for as long as was allowed, and killed."""
    x, y = data()
    with (
        pytest.raises(OneStrideError, match="a process that trained along was lost, run it again to resume"),
        followers(hang, 2, 60.0, 2) as meeting,
        together(0, 2, meeting, torch.device("cpu"), 2.0),
    ):
        step(make_model(), x, y)
    assert not [process for process in active_children() if process.name == "rank 1"]


LEADER = """
import time, torch
from multiprocessing import active_children
from rank_samples import obey
from onestride.training.ranks import followers, together
if __name__ == "__main__":
    with followers(obey, 2, 60.0, 2, 60.0) as meeting, together(0, 2, meeting, torch.device("cpu"), 60.0):
        print(active_children()[0].pid, flush=True)
        time.sleep(3600)
"""


def runs(pid: str) -> bool:
    """Whether a process is there and no zombie, which its new parent may leave."""
    with suppress(OSError):
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    return False


def test_the_others_end_when_rank_0_is_killed(tmp_path: Path) -> None:
    """Although they wait for an order: nobody is left behind."""
    script = tmp_path / "leader.py"
    script.write_text(LEADER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment) as leader:
        assert leader.stdout is not None
        follower = leader.stdout.readline().strip()
        assert runs(follower)
        leader.kill()
    end = time.monotonic() + 30
    while runs(follower):
        assert time.monotonic() < end, "the follower outlived its leader"
        time.sleep(0.05)


def test_orders_are_waited_for_beyond_the_time_limit() -> None:
    """Rank 0 may be evaluating: the others train on afterwards."""
    x, y = data()
    whole, shared, limit = make_model(), make_model(), 3.0
    step(whole, x, y)
    with (
        followers(obey, 2, 60.0, 2, limit) as meeting,
        together(0, 2, meeting, torch.device("cpu"), limit) as ranks,
    ):
        time.sleep(limit + 1)
        ranks.order(GO_ON)
        step(shared, x[0::2], y[0::2])
    torch.testing.assert_close(shared.weight, whole.weight)


def test_a_rank_says_why_it_ended_before_the_others_were_met() -> None:
    told = r"rank 1 ended before it began to train \(exit code 1\); rank 1: expected data, got none$"
    with pytest.raises(OneStrideError, match=told), followers(refuse, 2, 60.0):
        pytest.fail("expected not to wait for a rank that ended")


def test_a_rank_that_is_not_prepared_in_time_is_told() -> None:
    with (
        pytest.raises(OneStrideError, match=r"rank 1 was not ready to train in 0.01 s"),
        followers(hang, 2, 0.01, 2),
    ):
        pytest.fail("expected not to wait for a rank that is late")

"""Runs of the loop on the environment on a line: small settings, a reporter that interrupts, and what is compared."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import torch
from line_environment import NAME

from onestride.training import snapshots
from onestride.training.agents.mvp import MVPConfig
from onestride.training.checkpoint import RunDirectory
from onestride.training.evaluations import read_evaluations
from onestride.training.reporter import Reporter
from onestride.training.trainer import TrainOptions

SMALL = MVPConfig(
    horizon=3, n_action_steps=2, history=2, hidden=(16,), critic_hidden=(16,), batch_size=8, candidates=2,
    normalise="none",
)  # fmt: skip


def small_options(data: Path, run: Path) -> TrainOptions:
    return TrainOptions(
        SMALL, data, run, steps=20, env=NAME, online_steps=40, device="cpu", log_every=5,
        checkpoint_every=20, evaluate_every=30, episodes=3, evaluators=0,
    )  # fmt: skip


class Notes(Reporter):
    """Keeps what was said; interrupts when a step is reported."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.notes: list[str] = []
        self._at = interrupt_at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, step: int, steps: int, metrics: Mapping[str, float], steps_per_s: float) -> None:
        del steps, metrics, steps_per_s
        if step == self._at:
            os.kill(os.getpid(), signal.SIGINT)


def tensors(run: Path) -> dict[str, torch.Tensor]:
    snapshot, _ = snapshots.newest(RunDirectory(run).checkpoints)
    assert snapshot is not None
    groups = snapshot.tensors.items()
    return {f"{group}/{name}": tensor for group, tensors in groups for name, tensor in tensors.items()}


def assert_same_run(first: Path, second: Path) -> None:
    """The same state to the bit, the same life, the same evaluations."""
    mine, theirs = tensors(first), tensors(second)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    lives = [run / "online.transitions" for run in (first, second)]
    assert not any(life.exists() for life in lives) or lives[0].read_bytes() == lives[1].read_bytes()
    tables = [read_evaluations(run / "evaluations.csv") for run in (first, second)]
    assert [{**row, "seconds": 0} for row in tables[0]] == [{**row, "seconds": 0} for row in tables[1]]

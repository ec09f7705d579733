"""What an update may not do on a GPU, seen on a CPU: wait for a value, or make a tensor somewhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from onestride.policies import products
from onestride.policies.normaliser import Affine
from onestride.training.agents import catalogue
from onestride.training.experience import Experience
from onestride.training.guard import FiniteGuard
from onestride.training.metrics import MetricsLog
from onestride.training.replay import Replay

OBSERVATION, ACTION, STEPS = 3, 2, 60

aten = torch.ops.aten
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default}
"""Operations whose result the host needs before it can go on; so are those that index by a mask."""
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
FACTORIES = {
    getattr(torch, name) for name in ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "zeros", "tensor")
} | {torch.randn, torch.randint, torch.randperm, torch.from_numpy}


class NoWaiting(TorchDispatchMode):
    """Refuses operations that a GPU's host has to wait for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = func in INDEXED and any(one is not None and one.dtype == torch.bool for one in args[1])
        if masked or func in WAITS:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


class DeviceNamed(TorchFunctionMode):
    """Refuses tensors that are made without a word on where."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FACTORIES and "device" not in (kwargs or {}):
            raise AssertionError(f"{func} makes a tensor on the host")
        return func(*args, **(kwargs or {}))


def make_replay(horizon: int) -> Replay:
    random, ones = np.random.default_rng(0), np.ones(STEPS, np.float32)
    seen = random.standard_normal((STEPS, OBSERVATION)).astype(np.float32)
    acted = random.uniform(-1, 1, (STEPS, ACTION)).astype(np.float32)
    outcomes: Any = {"rewards": -ones, "masks": ones, "terminals": 0 * ones, "costs": ones}
    experience = Experience(
        seen, np.roll(seen, -1, 0), acted, **outcomes, lengths=np.full(3, STEPS // 3), answered=np.ones(3, bool)
    )
    return Replay(experience, observation_dim=OBSERVATION, action_dim=ACTION, horizon=horizon)


@pytest.mark.parametrize("name", [*catalogue.AGENTS, "mvp, ranked"])
def test_an_update_neither_waits_nor_leaves_the_device(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Windows drawn, one update, its metrics added up and looked at for what is not finite: as the loop does it."""
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: False)  # a GPU's products are torch's own
    entry: Any = catalogue.find(name.split(",")[0])
    config = entry.config(hidden=(16,), batch_size=8, **({"candidates": 4} if "ranked" in name else {}))
    agent = entry.agent(config, Affine.identity(OBSERVATION), Affine.identity(ACTION), steps=10, seed=0)
    replay, guard = make_replay(config.horizon), FiniteGuard()
    log = MetricsLog(tmp_path / "metrics.csv", tmp_path / "tb", 0)

    def update(number: int) -> None:
        metrics = agent.update(replay.sample(config.batch_size))
        guard.add(number, tuple(metrics), log.add(metrics), replay.starts)

    update(0)  # prepares optimisers
    with NoWaiting(), DeviceNamed():
        for number in (1, 2, 3):
            update(number)
    log.close()
    assert guard.failure() is None


def test_waiting_is_noticed() -> None:
    x = torch.ones(3)
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        float(x.sum())
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        x[x > 0]
    with pytest.raises(AssertionError, match="on the host"), DeviceNamed():
        torch.arange(3)

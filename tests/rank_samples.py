"""What a rank does in a test of averaged gradients; in a module of its own, so that a spawned process finds it."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from onestride.hardware.errors import OneStrideError
from onestride.training.ranks import shared_mean, together


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 3, generator=generator), torch.randn(12, 2, generator=generator)


def step(model: torch.nn.Linear, x: torch.Tensor, y: torch.Tensor, count: int = 3) -> None:
    """Two optimisers over one model, the second without a gradient in its first step."""
    first = torch.optim.Adam([model.weight], lr=0.1)
    second = torch.optim.SGD([model.bias], lr=0.1)
    second.step()
    for _ in range(count):
        model.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        first.step()
        second.step()


def make_model() -> torch.nn.Linear:
    torch.manual_seed(3)
    return torch.nn.Linear(3, 2)


def take_share(rank: int, meeting: Path, count: int) -> None:
    """Train on every `count`-th row with the others, then add these rows to a mean."""
    x, y = data()
    with together(rank, count, meeting, torch.device("cpu"), 60.0):
        step(make_model(), x[rank::count], y[rank::count])
        shared_mean(x[rank::count].mean(0))


def end_early(rank: int, meeting: Path, count: int) -> None:
    """Meet the others, and leave."""
    with together(rank, count, meeting, torch.device("cpu"), 60.0):
        pass


def run_out(rank: int, meeting: Path, count: int) -> None:
    """Meet the others, and fail at something of this rank's own."""
    with together(rank, count, meeting, torch.device("cpu"), 60.0):
        raise RuntimeError("no memory left")


def hang(rank: int, meeting: Path, count: int) -> None:
    """Meet the others, and do nothing."""
    with together(rank, count, meeting, torch.device("cpu"), 60.0):
        time.sleep(3600)


def obey(rank: int, meeting: Path, count: int, timeout: float) -> None:
    """Wait for an order, then train on this rank's rows."""
    x, y = data()
    step(make_model(), x, y)  # the first one loads a part of torch, which takes its time
    with together(rank, count, meeting, torch.device("cpu"), timeout) as ranks:
        ranks.order()
        step(make_model(), x[rank::count], y[rank::count])


def refuse(rank: int, meeting: Path) -> None:
    """Find something that a user can mend, before the others are met."""
    del rank, meeting
    raise OneStrideError("expected data, got none")

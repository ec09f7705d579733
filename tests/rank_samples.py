"""What a rank does in a test of averaged gradients; in a module of its own, so that a spawned process finds it."""

from __future__ import annotations

from pathlib import Path

import torch

from onestride.training.ranks import together


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
    """Train on every `count`-th row with the others."""
    x, y = data()
    with together(rank, count, meeting, torch.device("cpu"), 60.0):
        step(make_model(), x[rank::count], y[rank::count])


def end_early(rank: int, meeting: Path, count: int) -> None:
    """Meet the others, and leave."""
    with together(rank, count, meeting, torch.device("cpu"), 60.0):
        pass

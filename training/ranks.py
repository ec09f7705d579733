"""Several processes that train one agent: each takes its share of every batch, and gradients are averaged.

Agents know nothing of it. The average is taken in one place, a hook that torch calls before every step of every
optimiser; so all ranks take the same steps and hold the same weights. Only their noise differs.

Rank 0 leads: it keeps the run directory, evaluates, and tells the others after every step whether to go on.

Reference: data parallelism as in arXiv:2006.15704, with one bucket for each step of an optimiser.
"""

from __future__ import annotations

import datetime
import hashlib
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.optim.optimizer import register_optimizer_step_pre_hook

from onestride.hardware.errors import OneStrideError

RANDOM = "random"
"""Tensor group in which every agent keeps the state of its noise, the only part that ranks do not share."""

GO_ON, SAVE, END = 0, 1, 2
"""Orders, which may be added."""

Tensors = Mapping[str, Mapping[str, torch.Tensor]]


class Ranks:
    """This process among those that train together; alone, it does nothing.

    Args:
        rank: This process's number.
        count: How many there are.
        device: Where gradients lie.
    """

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | str = "cpu") -> None:
        self.rank, self.count, self._device = rank, count, device

    def tell(self, message: Any) -> Any:
        """What rank 0 has to say, on every rank; what the others pass is not looked at."""
        if self.count == 1:
            return message
        box = [message]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def order(self, order: int = GO_ON) -> int:
        """Rank 0's order after a step, on every rank."""
        if self.count == 1:
            return order
        said = torch.tensor(order, device=self._device)
        dist.broadcast(said, src=0)
        return int(said)

    def gather_noise(self, tensors: Tensors) -> dict[str, Mapping[str, torch.Tensor]]:
        """On rank 0 the state of the other ranks' noise, as groups of a checkpoint.

        Raises:
            OneStrideError: On rank 0, the ranks do not hold the same weights.
        """
        if self.count == 1:
            return {}
        mine = (_digest(tensors), {name: tensor.cpu() for name, tensor in tensors.get(RANDOM, {}).items()})
        every: list[Any] | None = [None] * self.count if self.rank == 0 else None
        dist.gather_object(mine, every)
        others = list(enumerate(every or []))[1:]
        if strays := [rank for rank, (digest, _) in others if digest != mine[0]]:
            raise OneStrideError(f"expected the same weights in all processes, got others in rank {strays[0]}")
        return {noise_group(rank): noise for rank, (_, noise) in others}


def noise_group(rank: int) -> str:
    """The group of a checkpoint that holds the state of a rank's noise."""
    return f"{RANDOM}_{rank}" if rank else RANDOM


@contextmanager
def together(rank: int, count: int, meeting: Path, device: torch.device, timeout: float) -> Iterator[Ranks]:
    """Meet the other ranks, and average gradients with them for as long as this lasts.

    Args:
        rank: This process's number.
        count: How many there are.
        meeting: A file that does not exist yet, the same for all.
        device: Where gradients lie.
        timeout: Longest wait for each other [s].

    Raises:
        OneStrideError: Another rank ended, or did not come in time.
    """
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=meeting.as_uri(),
            rank=rank,
            world_size=count,
            timeout=datetime.timedelta(seconds=timeout),
        )
        hook = register_optimizer_step_pre_hook(average_gradients)
        try:
            yield Ranks(rank, count, device)
        finally:
            hook.remove()
            dist.destroy_process_group()
    except RuntimeError as error:  # torch tells of a lost rank by this alone, in the backend's words
        told = str(error).strip().splitlines()[0]
        raise OneStrideError(f"a process that trained along was lost, run it again to resume: {told}") from error


def average_gradients(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    """Replace an optimiser's gradients by their mean over the ranks; called by torch before each of its steps."""
    groups = optimiser.param_groups
    gradients = [one.grad for group in groups for one in group["params"] if one.grad is not None]
    if not gradients:
        return
    bucket = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(bucket)
    bucket /= dist.get_world_size()
    means = torch.split(bucket, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


@contextmanager
def followers(follow: Callable[..., None], count: int, *arguments: Any) -> Iterator[Path]:
    """Processes for the ranks from 1 on, which call `follow(rank, meeting, *arguments)`; gives the meeting file.

    They are ended with this context, and with this process.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="onestride-ranks-") as folder:
        meeting = Path(folder) / "meeting"
        crew = [
            context.Process(target=follow, args=(rank, meeting, *arguments), name=f"rank {rank}", daemon=True)
            for rank in range(1, count)
        ]
        for process in crew:
            process.start()
        try:
            yield meeting
        finally:
            for process in crew:
                process.join(5)
                process.kill()


def _digest(tensors: Tensors) -> str:
    """Of everything that ranks share."""
    digest = hashlib.sha256()
    for group in sorted(set(tensors) - {RANDOM}):
        for name, tensor in sorted(tensors[group].items()):
            digest.update(f"{group}/{name}".encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

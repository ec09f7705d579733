"""Several processes that train one agent: each takes its share of every batch, and gradients are averaged.

Agents know nothing of that. The average is taken in one place, a hook that torch calls before every step of every
optimiser; so all ranks take the same steps and hold the same weights. Only their noise differs. What an agent follows
of its batch without an optimiser, such as a multiplier, it averages itself, by :func:`shared_mean`.

Rank 0 leads: it keeps the run directory, evaluates, and tells the others after every step whether to go on. They wait
for that as long as it takes, because an evaluation may be on its way; for everything else there is a time limit, and a
rank that ends is noticed at once, as its connections close.

Reference: data parallelism as in arXiv:2006.15704, with one bucket for each step of an optimiser.
"""

from __future__ import annotations

import datetime
import hashlib
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.optim.optimizer import register_optimizer_step_pre_hook

from onestride.hardware.errors import OneStrideError
from onestride.training.parallel import die_with_the_caller

RANDOM = "random"
"""Tensor group in which every agent keeps the state of its noise, which ranks do not share."""
OWN = (RANDOM, "metrics")
"""Groups that differ between ranks: noise, and what was last measured on a rank's own share."""

GO_ON, SAVE, END = 0, 1, 2
"""Orders, which may be added."""

POLL = 0.05
"""Between looks at processes that are not ready yet [s]."""
PATIENCE = datetime.timedelta(days=30)
"""Longest wait for an order."""
_LOST = "a process that trained along was lost"

Tensors = Mapping[str, Mapping[str, torch.Tensor]]


class Ranks:
    """This process among those that train together; alone, it does nothing.

    Args:
        rank: This process's number.
        count: How many there are.
        orders: The group that waits for orders; None = everyone's.
    """

    def __init__(self, rank: int = 0, count: int = 1, orders: Any = None) -> None:
        self.rank, self.count, self._orders = rank, count, orders

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
        said = torch.tensor(order)  # on the host: a GPU's work goes on meanwhile
        dist.broadcast(said, src=0, group=self._orders)
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
    _ready(meeting, rank).touch()
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            init_method=meeting.as_uri(),
            rank=rank,
            world_size=count,
            timeout=datetime.timedelta(seconds=timeout),
        )
        orders = dist.new_group(backend="gloo", timeout=PATIENCE)
        hook = register_optimizer_step_pre_hook(average_gradients)
        try:
            yield Ranks(rank, count, orders)
        finally:
            hook.remove()
            dist.destroy_process_group()
    except RuntimeError as error:  # torch tells of a lost rank by this alone, in the backend's words
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        told = str(error).strip().splitlines()[0]
        raise OneStrideError(f"{_LOST}, run it again to resume: {told}") from error


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


def shared_mean(values: torch.Tensor) -> torch.Tensor:
    """The mean of each element over the ranks, the same to the bit in all of them; alone, the values themselves."""
    if not dist.is_initialized():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


@contextmanager
def followers(follow: Callable[..., None], count: int, timeout: float, *arguments: Any) -> Iterator[Path]:
    """Processes for the ranks from 1 on, which call `follow(rank, meeting, *arguments)`; gives the meeting file.

    They are ended with this context, and with this process.

    Args:
        follow: What a rank does: prepare, then meet the others by :func:`together`.
        count: Ranks, this process included.
        timeout: Longest wait until all are prepared [s].
        arguments: Of `follow`.

    Raises:
        OneStrideError: A rank ended or was not prepared in time, or was lost later; with its reason, if it gave one.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="onestride-ranks-") as folder:
        meeting = Path(folder) / "meeting"
        crew = [
            context.Process(target=_follow, args=(follow, rank, meeting, *arguments), name=f"rank {rank}", daemon=True)
            for rank in range(1, count)
        ]
        for process in crew:
            process.start()
        wait = 5.0
        try:
            _wait_until_ready(crew, meeting, timeout)
            yield meeting
        except OneStrideError as error:
            wait = 0.0
            for process in crew:
                process.join(1)  # long enough to say why it ended
            reasons = [path.read_text(encoding="utf-8") for path in sorted(meeting.parent.glob("*.reason"))]
            raise OneStrideError("; ".join([str(error), *reasons])) from error
        finally:
            for process in crew:
                process.join(wait)
                process.kill()
                process.join()


def _follow(follow: Callable[..., None], rank: int, meeting: Path, *arguments: Any) -> None:
    """In a rank's process: what a user can mend is told by rank 0, once."""
    threading.Thread(target=die_with_the_caller, daemon=True).start()
    try:
        follow(rank, meeting, *arguments)
    except OneStrideError as error:
        if not str(error).startswith(_LOST):
            _give_reason(meeting, rank, str(error))
        sys.exit(1)
    except Exception as error:
        _give_reason(meeting, rank, f"{type(error).__name__}: {error}")
        raise


def _give_reason(meeting: Path, rank: int, reason: str) -> None:
    meeting.with_name(f"rank_{rank}.reason").write_text(f"rank {rank}: {reason}", encoding="utf-8")


def _wait_until_ready(crew: Sequence[BaseProcess], meeting: Path, timeout: float) -> None:
    """Until every rank is about to meet; one that never comes would be waited for in vain there."""
    end = time.monotonic() + timeout
    for rank, process in enumerate(crew, start=1):
        while not _ready(meeting, rank).exists():
            if not process.is_alive() and not _ready(meeting, rank).exists():
                raise OneStrideError(f"{process.name} ended before it began to train (exit code {process.exitcode})")
            if time.monotonic() > end:
                raise OneStrideError(f"{process.name} was not ready to train in {timeout:g} s")
            time.sleep(POLL)


def _ready(meeting: Path, rank: int) -> Path:
    return meeting.with_name(f"rank_{rank}.ready")


def _digest(tensors: Tensors) -> str:
    """Of everything that ranks share."""
    digest = hashlib.sha256()
    for group in sorted(set(tensors) - set(OWN)):
        for name, tensor in sorted(tensors[group].items()):
            digest.update(f"{group}/{name}".encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

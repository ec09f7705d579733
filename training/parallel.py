"""The same work for many seeds in several processes, with results in the order of the seeds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from onestride.hardware.errors import OneStrideError

Result = TypeVar("Result")
Work = Callable[[int], Result]

AHEAD = 2
"""Seeds in hand per process: what waits for a slower one before it, and is lost when the caller stops."""

_work: Work[Any] | None = None
"""Of a worker process."""


def in_order(prepare: Callable[[], Work[Result]], seeds: Iterable[int], jobs: int) -> Iterator[Result]:
    """Results of the seeds, in their order, whatever the number of processes.

    Args:
        prepare: makes the work, once in each process; picklable, such as a partial of a class.
        seeds: what to do.
        jobs: processes; 1 = this one.

    Raises:
        OneStrideError: fewer than one process, or one was killed.
    """
    if jobs < 1:
        raise OneStrideError(f"expected jobs >= 1, got {jobs}")
    return map(prepare(), seeds) if jobs == 1 else _spread(prepare, seeds, jobs)


def _spread(prepare: Callable[[], Work[Result]], seeds: Iterable[int], jobs: int) -> Iterator[Result]:
    # Spawned, not forked: the caller may hold threads (torch, zarr) that a fork would leave locked.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(prepare,))
    waiting: deque[Future[Result]] = deque()
    try:
        for seed in seeds:
            waiting.append(pool.submit(_do, seed))
            if len(waiting) >= AHEAD * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise OneStrideError("a process was killed (out of memory?): what is done is kept, run it again") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(prepare: Callable[[], Work[Any]]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the caller decides
    threading.Thread(target=die_with_the_caller, daemon=True).start()
    _work = prepare()


def die_with_the_caller() -> None:
    """In a thread of a child: end it with its parent, which where it is killed cannot end its children itself."""
    caller = multiprocessing.parent_process()
    if caller is not None:
        caller.join()
        os._exit(1)


def _do(seed: int) -> Any:
    if _work is None:
        raise RuntimeError("the worker was not prepared")
    return _work(seed)

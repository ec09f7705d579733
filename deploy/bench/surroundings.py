"""What surrounds a run of the bench: the processors it may use, busy neighbours, and the power that is drawn."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onestride.deploy.bench.device import RELEASE, ROOT, affinity
from onestride.deploy.bench.jetson import power_of
from onestride.deploy.bench.report import Power
from onestride.hardware.errors import OneStrideError

#: What a busy neighbour does until it is stopped: products that need the vector units and the caches, as another
#: network on the same processor would.
BUSY = """
import numpy
a = numpy.ones((512, 512), numpy.float32)
while True:
    a @ a
"""
INTERVAL = "200"  # of tegrastats [ms]


@contextmanager
def on_processors(wanted: Sequence[int]) -> Iterator[None]:
    """Run on these processors only, and on those of before afterwards; empty = where the system likes.

    Raises:
        OneStrideError: the system has no such processors, or cannot bind to any.
    """
    if not wanted:
        yield
        return
    before = affinity()
    if not set(wanted) <= set(before):
        raise OneStrideError(f"affinity: expected processors out of {before or 'none'}, got {tuple(wanted)}")
    os.sched_setaffinity(0, wanted)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep `count` single-threaded processes busy, on the processors of this one."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-c", BUSY]
    processes = [subprocess.Popen(command, env=os.environ | single) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def power_meter(root: Path = ROOT) -> Iterator[Callable[[], Power]]:
    """Have tegrastats write a log meanwhile; ask for the power once, at the end.

    The tool writes into a file of its own, so that no thread of this process reads along.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "tegrastats.log"
        meter = _started(log) if (root / RELEASE).exists() else "this is no Jetson"
        try:
            yield lambda: _read(meter, log)
        finally:
            _stop(meter)


def _started(log: Path) -> subprocess.Popen[bytes] | str:
    command = ["tegrastats", "--interval", INTERVAL, "--logfile", str(log)]
    try:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as error:
        return f"tegrastats: {error.strerror or error}"


def _read(meter: subprocess.Popen[bytes] | str, log: Path) -> Power:
    if isinstance(meter, str):
        raise OneStrideError(meter)
    _stop(meter)
    return power_of(log.read_text(encoding="utf-8", errors="replace") if log.exists() else "")


def _stop(meter: subprocess.Popen[bytes] | str) -> None:
    if not isinstance(meter, str) and meter.poll() is None:
        meter.terminate()
        meter.wait()

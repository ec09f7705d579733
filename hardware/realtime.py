"""Threads that go before others, memory that stays in place, processors of one's own: where the system permits it.

Nothing here fails for want of permission. What the system granted, and what it refused, is said in words.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from onestride.hardware.errors import OneStrideError

#: Priorities of SCHED_FIFO on Linux; 0 stands for the usual scheduling.
PRIORITIES = range(1, 100)

#: A policy's inference goes this far below the control thread, yet before everything that is not realtime: it must
#: never delay a tick, and a busy machine must not delay it.
INFERENCE_BELOW = 10

#: Likewise the thread that answers services and says how it goes. It shares the interpreter with the control thread:
#: put aside in the middle of that by something that is not realtime, it would keep a tick waiting.
ATTENDANT_BELOW = 11

#: The system's words for: all pages of now and of later stay in memory once they have been touched. Without the last,
#: every untouched page of every thread's stack would be brought in.
_CURRENT, _FUTURE, _ON_FAULT = 1, 2, 4

#: Number of the capability without which locked memory is limited.
_CAP_IPC_LOCK = 14


@dataclass(frozen=True)
class Realtime:
    """What a process asks of the system for its threads.

    Attributes:
        priority: of the thread that keeps deadlines, under SCHED_FIFO; 0 leaves all threads as they are.
        cpus: processors that this thread keeps to; empty for all.
        granted: what came of it, by thread, and for the memory.

    Raises:
        OneStrideError: no such priority, or none of the processors is this process's.
    """

    priority: int = 0
    cpus: tuple[int, ...] = ()
    granted: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.priority and self.priority not in PRIORITIES:
            raise OneStrideError(f"realtime priority: expected 0 to {PRIORITIES[-1]}, got {self.priority}")
        if self.cpus and sys.platform == "linux" and not (set(self.cpus) <= (own := os.sched_getaffinity(0))):
            raise OneStrideError(f"cpu affinity: expected processors out of {sorted(own)}, got {list(self.cpus)}")

    @property
    def refused(self) -> list[str]:
        """What was asked for and not permitted, in words."""
        return [f"{what}: {said}" for what, said in self.granted.items() if "not permitted" in said]

    def keep_deadlines(self, name: str = "control") -> None:
        """Have the calling thread, `name`, go before all others, on its own processors."""
        said = [_first_in_first_out(self.priority)] if self.priority else []
        if self.cpus:
            said.append(_keep_to(self.cpus))
        if said:
            self.granted[name] = ", ".join(said)

    def follow(self, name: str = "inference") -> None:
        """Have the calling thread, `name`, go before all but those that keep deadlines."""
        self._below(INFERENCE_BELOW, name)

    def attend(self, name: str = "executor") -> None:
        """Have the calling thread, `name`, go after all these, but before what is not realtime."""
        self._below(ATTENDANT_BELOW, name)

    def stand_back(self) -> None:
        """Have the calling thread go as it did before, as any other."""
        if self.priority and sys.platform == "linux":
            with contextlib.suppress(OSError):  # without permission nothing was changed
                os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))

    def _below(self, distance: int, name: str) -> None:
        if self.priority:
            self.granted[name] = _first_in_first_out(max(PRIORITIES[0], self.priority - distance))

    def lock_memory(self) -> None:
        """Have the system leave this process's memory in place."""
        if self.priority:
            self.granted["memory"] = _lock_memory()


def _first_in_first_out(priority: int) -> str:
    try:  # what this thread starts must not inherit it
        if sys.platform != "linux":
            raise OSError("this system has no SCHED_FIFO")
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        return (
            f"SCHED_FIFO {priority} not permitted ({error.strerror or error}): raise rtprio in /etc/security/limits.d"
        )
    return f"SCHED_FIFO {priority}"


def _keep_to(cpus: tuple[int, ...]) -> str:
    said = ", ".join(map(str, cpus))
    try:
        if sys.platform != "linux":
            raise OSError("this system does not offer it")
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        return f"processors {said} not permitted ({error.strerror or error})"
    return f"processors {said}"


def _lock_memory() -> str:
    if not _may_lock_all():  # a limit would not refuse the lock alone, but later allocations too
        return "not permitted: raise memlock to unlimited in /etc/security/limits.d"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_CURRENT | _FUTURE | _ON_FAULT) != 0:
        return f"not permitted ({os.strerror(ctypes.get_errno())})"
    return "locked"


def _may_lock_all(status: Path = Path("/proc/self/status")) -> bool:
    if sys.platform != "linux":
        return False
    import resource

    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    lines = status.read_text(encoding="ascii").splitlines()
    capabilities = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return bool(capabilities >> _CAP_IPC_LOCK & 1)

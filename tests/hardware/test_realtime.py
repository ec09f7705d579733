"""What the system grants a thread is what the thread says, and what it does not grant ends nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from onestride.hardware import realtime
from onestride.hardware.errors import OneStrideError
from onestride.hardware.realtime import ATTENDANT_BELOW, INFERENCE_BELOW, Realtime

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SCHED_FIFO is Linux's")


def in_a_thread(do):
    """What `do` gives in a thread that ends with it, so that no scheduling outlives a test."""
    found = []
    thread = threading.Thread(target=lambda: found.append(do()))
    thread.start()
    thread.join()
    return found[0]


def scheduling():
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(0).sched_priority


@pytest.fixture
def permitted():
    asked = Realtime(priority=1)
    in_a_thread(asked.keep_deadlines)
    if asked.refused:
        pytest.skip(f"this system: {asked.refused[0]}")


@pytest.mark.usefixtures("permitted")
@pytest.mark.parametrize(("priority", "below"), [(40, 40 - INFERENCE_BELOW), (5, 1)])
def test_the_thread_that_follows_is_below_and_still_before_everybody_else(priority, below):
    asked = Realtime(priority=priority)
    assert in_a_thread(lambda: [asked.keep_deadlines(), scheduling()][1]) == (os.SCHED_FIFO, priority)
    assert in_a_thread(lambda: [asked.follow(), scheduling()][1]) == (os.SCHED_FIFO, below)
    assert asked.granted == {"control": f"SCHED_FIFO {priority}", "inference": f"SCHED_FIFO {below}"}
    assert scheduling()[0] == os.SCHED_OTHER, "only the thread that asks"


@pytest.mark.usefixtures("permitted")
def test_the_thread_that_attends_is_last_and_stands_back_again():
    asked = Realtime(priority=40)
    during, after = in_a_thread(lambda: [asked.attend(), scheduling(), asked.stand_back(), scheduling()][1::2])
    assert during == (os.SCHED_FIFO, 40 - ATTENDANT_BELOW)
    assert ATTENDANT_BELOW > INFERENCE_BELOW
    assert after == (os.SCHED_OTHER, 0)


@pytest.mark.usefixtures("permitted")
def test_threads_that_such_a_thread_starts_are_usual_ones():
    def start_another():
        Realtime(priority=10).keep_deadlines()
        return in_a_thread(scheduling)

    assert in_a_thread(start_another) == (os.SCHED_OTHER, 0)


def test_without_a_wish_nothing_is_touched():
    def all_of_it(asked):
        asked.keep_deadlines()
        asked.follow()
        asked.lock_memory()
        return scheduling(), os.sched_getaffinity(0)

    asked = Realtime()
    assert in_a_thread(lambda: all_of_it(asked)) == (scheduling(), os.sched_getaffinity(0))
    assert asked.granted == {}


def test_a_thread_keeps_to_its_processors():
    own = os.sched_getaffinity(0)
    one = max(own)
    asked = Realtime(cpus=(one,))
    assert in_a_thread(lambda: [asked.keep_deadlines("physics"), os.sched_getaffinity(0)][1]) == {one}
    assert os.sched_getaffinity(0) == own
    assert asked.granted == {"physics": f"processors {one}"}


def test_what_cannot_be_is_refused_with_what_can():
    with pytest.raises(OneStrideError, match="realtime priority: expected 0 to 99, got 100"):
        Realtime(priority=100)
    with pytest.raises(OneStrideError, match=r"cpu affinity: expected processors out of \[.*\], got \[4711\]"):
        Realtime(cpus=(4711,))


def test_what_is_not_permitted_is_said_and_ends_nothing(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    monkeypatch.setattr(realtime, "_may_lock_all", lambda: False)
    asked = Realtime(priority=40, cpus=(min(os.sched_getaffinity(0)),))
    asked.keep_deadlines()
    asked.follow()
    asked.lock_memory()
    assert len(asked.refused) == 3
    assert asked.granted["inference"].startswith("SCHED_FIFO 30 not permitted (Operation not permitted): raise rtprio")
    assert asked.granted["memory"] == "not permitted: raise memlock to unlimited in /etc/security/limits.d"


LOCK = """
from onestride.hardware.realtime import Realtime
asked = Realtime(priority=1)
asked.lock_memory()
held = bytearray(b"1" * 20_000_000)
lines = open("/proc/self/status").read().splitlines()
print(asked.granted["memory"], *(line.split()[1] for line in lines if line.startswith(("VmLck", "VmRSS"))))
"""


def test_locked_memory_is_what_was_touched_and_no_more():
    """In a process of its own, for what is locked stays so."""
    done = subprocess.run([sys.executable, "-c", LOCK], capture_output=True, text=True, check=True)
    said, *sizes = done.stdout.rsplit(maxsplit=2)
    if said != "locked":
        pytest.skip(f"this system: {said}")
    locked, resident = map(int, sizes)
    assert locked > 20_000
    assert resident < 120_000, "untouched pages were brought in"


@pytest.mark.parametrize(("effective", "may"), [("0000000000004000", True), ("0000000000003fff", False)])
def test_memory_is_locked_where_no_limit_holds(monkeypatch, tmp_path, effective, may):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (65536, 65536))
    (tmp_path / "status").write_text(f"Name:\tpython\nCapEff:\t{effective}\n", encoding="ascii")
    assert realtime._may_lock_all(tmp_path / "status") is may

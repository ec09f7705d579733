"""What this machine gives a control loop: clocks, permission to be on time, and ROS 2. It only looks."""

from __future__ import annotations

import ctypes
import os
import resource
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from onestride.deploy.doctor.answers import Answer, Level

#: Sleeps of one millisecond that are timed.
SLEEPS = 100

#: A sleep that ends later than this makes the ticks of a 500 Hz loop late [s].
LATE = 1e-3

_TIME_ERROR = 5  # what adjtimex(2) answers while nothing disciplines the clock
_TIMEX_BYTES = 256  # more than any platform's struct timex


def system_answers(root: Path = Path("/")) -> list[Answer]:
    """Every question about the machine; `root` is where its `/sys` and `/dev` are."""
    return [*clocks(root), *realtime(root), *ros(os.environ)]


def clocks(root: Path = Path("/")) -> Iterator[Answer]:
    """How fine the clock is, how late a sleep ends, and whether the system's time is disciplined."""
    resolution = time.get_clock_info("monotonic").resolution
    level = Level.PASS if resolution <= 1e-6 else Level.WARN
    yield Answer("monotonic clock", level, f"resolution {resolution * 1e9:.0f} ns")
    yield judge_sleeps(measure_sleeps(SLEEPS))
    yield _system_time(root)


def measure_sleeps(count: int, duration: float = 1e-3) -> np.ndarray:
    """How much later than asked sleeps of `duration` end (count,) [s]."""
    late = np.empty(count)
    for index in range(count):
        begun = time.monotonic()
        time.sleep(duration)
        late[index] = time.monotonic() - begun - duration
    return late


def judge_sleeps(late: np.ndarray) -> Answer:
    """What overshoots (N,) [s] mean for a control loop."""
    p50, p99 = np.percentile(late, [50, 99]) * 1e3
    detail = f"late by p50 {p50:.2f}, p99 {p99:.2f}, max {late.max() * 1e3:.2f} ms over {len(late)} sleeps of 1 ms"
    if late.max() <= LATE:
        return Answer("sleep", Level.PASS, detail)
    return Answer("sleep", Level.WARN, f"{detail}; expected at most {LATE * 1e3:g} ms: control ticks will be late")


def _system_time(root: Path) -> Answer:
    ptp = sorted(path.name for path in (root / "dev").glob("ptp*"))
    hardware = f"; hardware clocks: {', '.join(ptp)}" if ptp else ""
    state = _synchronised()
    if state is None:
        return Answer("system time", Level.WARN, f"whether it is disciplined cannot be asked here{hardware}")
    if state:
        return Answer("system time", Level.PASS, f"disciplined by NTP or PTP{hardware}")
    advice = "expected NTP or PTP, got a free-running clock: stamps of other machines will drift from this one's"
    return Answer("system time", Level.WARN, f"{advice}{hardware}")


def _synchronised() -> bool | None:
    """Whether the kernel's clock is disciplined; None where that cannot be asked."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: only reads
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def realtime(root: Path = Path("/")) -> Iterator[Answer]:
    """Permission to run before others, to stay in memory, and processors for oneself."""
    priority = resource.getrlimit(resource.RLIMIT_RTPRIO)[0] if hasattr(resource, "RLIMIT_RTPRIO") else 0
    if _fifo_allowed():
        yield Answer("SCHED_FIFO", Level.PASS, f"allowed, rtprio limit {_limit(priority)}")
    else:
        expected = "expected permission, got none: raise rtprio in /etc/security/limits.d, or the loop shares its core"
        yield Answer("SCHED_FIFO", Level.WARN, f"{expected} (rtprio limit {_limit(priority)})")
    memory = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    enough = memory == resource.RLIM_INFINITY
    yield Answer("memlock", Level.PASS if enough else Level.WARN, f"limit {_limit(memory, 'bytes')}")
    yield from _processors(root / "sys")


def _processors(system: Path) -> Iterator[Answer]:
    kernel = _read(system / "kernel" / "realtime") == "1"
    yield Answer("kernel", Level.PASS, "PREEMPT_RT" if kernel else "not PREEMPT_RT")
    isolated = _read(system / "devices" / "system" / "cpu" / "isolated")
    yield Answer("isolated processors", Level.PASS, isolated or "none")
    governors = {_read(path) for path in (system / "devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")}
    if not governors:
        yield Answer("governor", Level.PASS, "none: this machine does not let its frequency be governed")
        return
    level = Level.PASS if governors == {"performance"} else Level.WARN
    said = ", ".join(sorted(governors))
    yield Answer("governor", level, said if level is Level.PASS else f"expected performance, got {said}")


def _fifo_allowed() -> bool:
    """Whether a thread may have the lowest real-time priority; tried by one that ends at once."""
    allowed: list[bool] = []

    def attempt() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
            allowed.append(True)
        except (OSError, AttributeError):
            allowed.append(False)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return allowed[0]


def _limit(value: int, unit: str = "") -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value} {unit}".strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def ros(environment: Mapping[str, str]) -> Iterator[Answer]:
    """Which ROS 2 is here, and how far it reaches."""
    if find_spec("rclpy") is None:
        yield Answer("ROS 2", Level.WARN, "expected rclpy, got none: pip install 'onestride[ros]', or source a ROS 2")
        return
    yield Answer("ROS 2", Level.PASS, f"{environment.get('ROS_DISTRO') or 'rclpy'} {_rclpy_version()}".strip())
    chosen = environment.get("RMW_IMPLEMENTATION") or "the distribution's default"
    yield Answer("DDS", Level.PASS, chosen)
    yield Answer("domain", Level.PASS, environment.get("ROS_DOMAIN_ID") or "0, the default")
    yield _reach(environment)


def _reach(environment: Mapping[str, str]) -> Answer:
    reach = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET"
    if environment.get("ROS_LOCALHOST_ONLY") == "1":
        reach = "LOCALHOST"
    known = {"LOCALHOST", "SUBNET", "OFF", "SYSTEM_DEFAULT"}
    if reach.upper() not in known:
        return Answer("discovery", Level.FAIL, f"expected one of {', '.join(sorted(known))}, got {reach}")
    detail = {"LOCALHOST": "this machine only", "OFF": "static peers only"}.get(reach.upper(), "the whole subnet")
    return Answer("discovery", Level.PASS, f"{reach.upper()}: {detail}")


def _rclpy_version() -> str:
    for name in ("rclpy", "ros-jazzy-rclpy"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""

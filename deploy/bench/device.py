"""What machine this is and how it stands: clocks, temperatures, throttling; on a Jetson what its tools say."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np

from onestride.deploy.bench.jetson import parse_clocks, parse_power_mode, parse_release
from onestride.deploy.bench.report import Condition, Jetson, Machine, Skipped
from onestride.deploy.runtime import import_onnxruntime
from onestride.hardware.errors import OneStrideError

T = TypeVar("T")

ROOT = Path("/")
RELEASE = "etc/nv_tegra_release"
CPU, THERMAL = "sys/devices/system/cpu", "sys/class/thermal"
TIMEOUT = 10.0  # for a tool to answer [s]


class Skips:
    """Readings that may not be had, and why each was not."""

    def __init__(self) -> None:
        self.found: list[Skipped] = []

    def read(self, what: str, look: Callable[[], T]) -> T | None:
        """What `look` gives; None and an entry where it raises an `OneStrideError` or finds the text wrong."""
        try:
            return look()
        except (OneStrideError, ValueError) as error:
            self.add(what, str(error))
            return None

    def add(self, what: str, why: str) -> None:
        """Something that was not measured."""
        self.found.append(Skipped(what=what, why=why))


def machine(skips: Skips, name: str | None = None, root: Path = ROOT) -> Machine:
    """The machine and the software on it.

    Args:
        skips: takes what cannot be had.
        name: of the device, in place of what it says itself.
        root: of the file system.
    """
    processor, model = _processor(root), _text(root / "proc/device-tree/model")
    return Machine(
        device=name or model or processor or platform.machine(),
        machine=platform.machine(),
        processor=processor,
        cores=os.cpu_count(),
        affinity=affinity(),
        pinned=skips.read("clocks", lambda: _pinned(root)),
        system=platform.platform(),
        python=platform.python_version(),
        numpy=np.__version__,
        onnxruntime=import_onnxruntime().__version__,
        onestride=version("onestride"),
        jetson=_jetson(skips, root),
    )


def _jetson(skips: Skips, root: Path) -> Jetson | None:
    release = _text(root / RELEASE)
    if release is None:
        skips.add("JetPack, nvpmodel, jetson_clocks, tegrastats", f"no /{RELEASE}: this is no Jetson")
        return None
    show = ["jetson_clocks", "--show"]
    return Jetson(
        l4t=skips.read("Jetson Linux", lambda: parse_release(release)),
        jetpack=skips.read("JetPack", lambda: ask(["dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack"]).strip()),
        power_mode=skips.read("nvpmodel", lambda: parse_power_mode(ask(["nvpmodel", "-q"]))),
        clocks=skips.read("jetson_clocks", lambda: parse_clocks(ask(show, "; it answers root only"))),
    )


def ask(command: list[str], hint: str = "") -> str:
    """What a tool of the device prints.

    Raises:
        OneStrideError: it is missing, fails, or does not answer.
    """
    if shutil.which(command[0]) is None:
        raise OneStrideError(f"no {command[0]} on PATH")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OneStrideError(f"{command[0]} does not answer: {error}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise OneStrideError(f"{' '.join(command)} failed with {done.returncode}: {said}{hint}")
    return done.stdout


def condition(root: Path = ROOT) -> Condition:
    """How the machine stands now."""
    cpus = _folders(root / CPU, "cpu[0-9]*")
    clocks = [_number(cpu / "cpufreq/scaling_cur_freq") for cpu in cpus]
    cooling = {
        f"{_text(one / 'type')} {one.name.removeprefix('cooling_device')}": _number(one / "cur_state")
        for one in _folders(root / THERMAL, "cooling_device*")
    }
    return Condition(
        governor=_text(root / CPU / "cpu0/cpufreq/scaling_governor"),
        khz=tuple(clock for clock in clocks if clock is not None),
        temperatures=_temperatures(root),
        throttling={name: state for name, state in cooling.items() if state},
        load=_load(),
    )


def affinity() -> tuple[int, ...]:
    """Processors that this process may run on; empty where the system does not say."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def _temperatures(root: Path) -> dict[str, float]:
    zones = {}
    for zone in _folders(root / THERMAL, "thermal_zone*"):
        millidegrees = _number(zone / "temp")
        if millidegrees is not None and millidegrees > -200_000:  # a unit that is off reads -256 degC
            zones[_text(zone / "type") or zone.name] = millidegrees / 1000
    return zones


def _pinned(root: Path) -> bool:
    frequencies = _folders(root / CPU, "cpu[0-9]*/cpufreq")
    ranges = [(_text(one / "scaling_min_freq"), _text(one / "scaling_max_freq")) for one in frequencies]
    if not ranges:
        raise OneStrideError(f"no /{CPU}/cpu*/cpufreq: this machine, or its host, keeps its clocks to itself")
    return all(low == high for low, high in ranges)


def _load() -> tuple[float, float, float]:
    one, five, fifteen = (round(value, 2) for value in os.getloadavg())
    return one, five, fifteen


def _folders(parent: Path, pattern: str) -> list[Path]:
    return sorted(parent.glob(pattern), key=lambda path: (len(str(path)), str(path)))


def _processor(root: Path) -> str | None:
    lines = (_text(root / "proc/cpuinfo", whole=True) or "").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text and text.lstrip("-").isdigit() else None


def _text(path: Path, *, whole: bool = False) -> str | None:
    """A file's first line, without the NUL that device trees end with; None where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text if whole else (text.splitlines() or [""])[0].strip("\0 ") or None

"""What a Jetson's own tools print, read as values. Nothing here runs them, see `device`.

Reference: https://docs.nvidia.com/jetson/archives/r36.3/DeveloperGuide: Platform Power and Performance; tegrastats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from onestride.deploy.bench.report import Clocks, Power

_RELEASE = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
_MODE = re.compile(r"NV Power Mode:\s*(\S+)")
_CPU = re.compile(r"^(cpu\d+):.*?MinFreq=(\d+)\s+MaxFreq=(\d+)\s+CurrentFreq=(\d+)", re.MULTILINE)
_CLOCK = r"^{name}\s+MinFreq=(\d+)\s+MaxFreq=(\d+)\s+CurrentFreq=(\d+)"
# `VDD_IN 2532/2698` up to JetPack 4, `VDD_IN 4970mW/4970mW` since: the first is now, the second the mean.
_RAIL = re.compile(r"\b((?:VDD|VIN|POM)\w*) (\d+)(?:mW)?/\d+(?:mW)?")
_TEMPERATURE = re.compile(r"\b(\w+)@(-?\d+(?:\.\d+)?)C\b")
_GPU = re.compile(r"\bGR3D_FREQ (\d+)%")
_ABSENT = -200.0  # a sensor of a unit that is switched off reads -256 degC


@dataclass(frozen=True)
class Tegrastats:
    """One line of tegrastats.

    Attributes:
        power_mw: of each rail [mW].
        temperatures: of each sensor that is on [degC].
        gpu: share of the GPU's time in use; None where the line does not say.
    """

    power_mw: dict[str, int]
    temperatures: dict[str, float]
    gpu: float | None


def parse_release(text: str) -> str:
    """Jetson Linux's release from `/etc/nv_tegra_release`, such as `36.4.3`.

    Raises:
        ValueError: it says none.
    """
    found = _RELEASE.search(text)
    if found is None:
        raise ValueError(f"expected a line like '# R36 (release), REVISION: 4.3', got {_start(text)}")
    return f"{found[1]}.{found[2]}"


def parse_power_mode(text: str) -> str:
    """The mode's name from `nvpmodel -q`, such as `MAXN` or `15W`; its number follows in brackets where it is told.

    Raises:
        ValueError: it says none.
    """
    found = _MODE.search(text)
    if found is None:
        raise ValueError(f"expected a line like 'NV Power Mode: MAXN', got {_start(text)}")
    number = re.match(r"\s*(\d+)\s*$", text[found.end() :], re.MULTILINE)
    return f"{found[1]} ({number[1]})" if number else found[1]


def parse_clocks(text: str) -> Clocks:
    """Clocks from `jetson_clocks --show`.

    Raises:
        ValueError: it names no processor.
    """
    khz = {name: (int(low), int(high), int(now)) for name, low, high, now in _CPU.findall(text)}
    if not khz:
        raise ValueError(f"expected lines like 'cpu0: Online=1 ... MinFreq=... MaxFreq=...', got {_start(text)}")
    gpu, emc = _clock("GPU", text), _clock("EMC", text)
    ranges = [*khz.values(), *([gpu] if gpu else [])]
    return Clocks(pinned=all(low == high for low, high, _ in ranges), khz=khz, gpu_hz=gpu, emc_hz=emc)


def _clock(name: str, text: str) -> tuple[int, int, int] | None:
    found = re.search(_CLOCK.format(name=name), text, re.MULTILINE)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def parse_tegrastats(line: str) -> Tegrastats:
    """One line; what it does not tell is left out."""
    gpu = _GPU.search(line)
    readings = {name: float(value) for name, value in _TEMPERATURE.findall(line)}
    return Tegrastats(
        power_mw={name: int(value) for name, value in _RAIL.findall(line)},
        temperatures={name: value for name, value in readings.items() if value > _ABSENT},
        gpu=int(gpu[1]) / 100 if gpu else None,
    )


def power_of(text: str) -> Power:
    """Mean and highest power of each rail over the lines of a log.

    Raises:
        ValueError: no line tells of power.
    """
    samples = [parsed.power_mw for parsed in map(parse_tegrastats, text.splitlines()) if parsed.power_mw]
    if not samples:
        raise ValueError(f"expected rails like 'VDD_IN 4970mW/4970mW', got {_start(text)}")
    rails = {rail: [sample[rail] for sample in samples if rail in sample] for rail in samples[0]}
    return Power(
        samples=len(samples),
        mean_mw={rail: round(sum(values) / len(values), 1) for rail, values in rails.items()},
        max_mw={rail: float(max(values)) for rail, values in rails.items()},
    )


def _start(text: str) -> str:
    return repr(text.strip()[:60])

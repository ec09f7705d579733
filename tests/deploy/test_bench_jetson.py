"""What a Jetson's tools print, read: in the words of JetPack 4 to 6. And a machine that is none."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestride.deploy.bench.device import Skips, condition, machine
from onestride.deploy.bench.jetson import parse_clocks, parse_power_mode, parse_release, parse_tegrastats, power_of
from onestride.deploy.bench.surroundings import power_meter
from onestride.hardware.errors import OneStrideError

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"

ORIN = (
    "11-20-2026 17:03:05 RAM 6185/7620MB (lfb 8x2MB) SWAP 851/3810MB (cached 1MB) "
    "CPU [15%@1728,11%@1728,14%@729,13%@729,off,off] EMC_FREQ 43%@2133 GR3D_FREQ 63%@[621] NVDEC off VIC off APE 200 "
    "cpu@53.968C soc2@52.437C soc0@50.75C gpu@-256C tj@53.968C soc1@53.656C "
    "VDD_IN 12479mW/12479mW VDD_CPU_GPU_CV 4667mW/4667mW VDD_SOC 2817mW/2817mW"
)
AGX = (
    "04-24-2026 00:01:24 RAM 1282/62795MB (lfb 15152x4MB) CPU [0%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] "
    "CV0@-256C CPU@42.593C Tboard@32C tj@42.593C VDD_GPU_SOC 2399mW/2399mW VDD_CPU_CV 400mW/400mW "
    "VIN_SYS_5V0 4032mW/4032mW NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
NANO = (
    "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,1%@102,0%@102,0%@102] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@39C CPU@40.5C PMIC@100C GPU@41C POM_5V_IN 900/943 POM_5V_GPU 0/0 POM_5V_CPU 123/123"
)

CLOCKS = """SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
Online CPUs: 0-1
cpu0:  Online=1 Governor=schedutil MinFreq={low} MaxFreq=1728000 CurrentFreq=1190400 IdleStates: WFI=1 c7=1
cpu1:  Online=1 Governor=schedutil MinFreq=1728000 MaxFreq=1728000 CurrentFreq=1728000 IdleStates: WFI=1 c7=1
GPU MinFreq=1020000000 MaxFreq=1020000000 CurrentFreq=1020000000
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride=1
FAN Dynamic Speed Control=disabled hwmon0_pwm1=255
NV Power Mode: MAXN_SUPER
"""


@pytest.mark.parametrize(
    ("text", "release"),
    [(RELEASE, "36.4.3"), ("# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref", "32.7.1")],
)
def test_release(text, release):
    assert parse_release(text) == release


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN\n0\n", "MAXN (0)"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n", "MODE_15W_6CORE (2)"),
        ("NV Power Mode: 25W", "25W"),
    ],
)
def test_power_mode(text, mode):
    assert parse_power_mode(text) == mode


def test_clocks_are_pinned_where_no_limit_leaves_room():
    locked, free = parse_clocks(CLOCKS.format(low=1728000)), parse_clocks(CLOCKS.format(low=729600))
    assert locked.pinned and not free.pinned
    assert free.khz == {"cpu0": (729600, 1728000, 1190400), "cpu1": (1728000, 1728000, 1728000)}
    assert free.gpu_hz == (1020000000,) * 3
    assert free.emc_hz == (204000000, 3199000000, 3199000000)


def test_tegrastats_of_three_generations():
    orin, agx, nano = map(parse_tegrastats, (ORIN, AGX, NANO))
    assert orin.power_mw == {"VDD_IN": 12479, "VDD_CPU_GPU_CV": 4667, "VDD_SOC": 2817}
    assert orin.gpu == 0.63
    assert orin.temperatures["tj"] == 53.968 and "gpu" not in orin.temperatures  # off: it reads -256 degC
    assert agx.power_mw["VIN_SYS_5V0"] == 4032 and "NC" not in agx.power_mw
    assert "CV0" not in agx.temperatures
    assert nano.power_mw == {"POM_5V_IN": 900, "POM_5V_GPU": 0, "POM_5V_CPU": 123}
    assert nano.temperatures["GPU"] == 41.0


def test_power_over_a_log():
    log = "\n".join([ORIN, ORIN.replace("12479mW/", "4479mW/"), "a line without power"])
    power = power_of(log)
    assert (power.samples, power.mean_mw["VDD_IN"], power.max_mw["VDD_IN"]) == (2, 8479.0, 12479.0)


@pytest.mark.parametrize("parse", [parse_release, parse_power_mode, parse_clocks, power_of])
def test_other_words_are_refused_with_what_was_expected(parse):
    with pytest.raises(ValueError, match=r"expected .*got 'hello'"):
        parse("hello\n")


@given(st.text(max_size=200))
def test_no_line_of_tegrastats_is_too_strange(line):
    parse_tegrastats(line)


def tool(folder: Path, name: str, prints: str, code: int = 0) -> None:
    """A program of the device, which no package index has: it prints what the real one prints."""
    (folder / f"{name}.txt").write_text(prints)
    script = folder / name
    script.write_text(f"#!/bin/sh\n/bin/cat {folder}/{name}.txt\nexit {code}\n")
    script.chmod(0o755)


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A file system and a PATH like a Jetson's."""
    root, tools = tmp_path / "root", tmp_path / "bin"
    cpu, thermal = root / "sys/devices/system/cpu", root / "sys/class/thermal"
    files = {
        root / "etc/nv_tegra_release": RELEASE,
        root / "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        cpu / "cpu0/cpufreq/scaling_governor": "schedutil\n",
        cpu / "cpu0/cpufreq/scaling_cur_freq": "1190400\n",
        cpu / "cpu0/cpufreq/scaling_min_freq": "1728000\n",
        cpu / "cpu0/cpufreq/scaling_max_freq": "1728000\n",
        thermal / "thermal_zone0/type": "cpu-thermal\n",
        thermal / "thermal_zone0/temp": "53968\n",
        thermal / "thermal_zone1/type": "gpu-thermal\n",
        thermal / "thermal_zone1/temp": "-256000\n",
        thermal / "cooling_device0/type": "cpufreq-cpu0\n",
        thermal / "cooling_device0/cur_state": "3\n",
        thermal / "cooling_device1/type": "pwm-fan\n",
        thermal / "cooling_device1/cur_state": "0\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tools.mkdir()
    tool(tools, "dpkg-query", "6.2.1+b38")
    tool(tools, "nvpmodel", "NV Power Mode: 25W\n1\n")
    tool(tools, "jetson_clocks", "Error: run as root\n", code=1)
    monkeypatch.setenv("PATH", str(tools))
    return root


def test_a_jetson_is_described_by_its_own_tools(board):
    skips = Skips()
    found = machine(skips, root=board)
    assert found.device == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found.pinned is True
    assert found.jetson is not None
    assert (found.jetson.l4t, found.jetson.jetpack, found.jetson.power_mode) == ("36.4.3", "6.2.1+b38", "25W (1)")
    (skipped,) = skips.found
    assert skipped.what == "jetson_clocks" and "run as root; it answers root only" in skipped.why


def test_how_it_stands(board):
    now = condition(board)
    assert (now.governor, now.khz) == ("schedutil", (1190400,))
    assert now.temperatures == {"cpu-thermal": 53.968}
    assert now.throttling == {"cpufreq-cpu0 0": 3}


def test_another_machine_says_what_it_skipped_and_why(tmp_path):
    skips = Skips()
    found = machine(skips, "my server", tmp_path)
    assert (found.device, found.jetson, found.pinned) == ("my server", None, None)
    said = {one.what: one.why for one in skips.found}
    assert said["clocks"].startswith("no /sys/devices/system/cpu")
    assert said["JetPack, nvpmodel, jetson_clocks, tegrastats"].endswith("this is no Jetson")
    now = condition(tmp_path)
    assert (now.governor, now.khz, now.temperatures, now.throttling) == (None, (), {}, {})
    assert len(now.load) == len(os.getloadavg())


def test_power_is_taken_from_the_tools_own_log(board, tmp_path):
    meter, written = Path(os.environ["PATH"]) / "tegrastats", tmp_path / "written"
    meter.write_text(f'#!/bin/sh\nprintf "%s\\n" "{ORIN}" > "$4"\n: > {written}\nexec /bin/sleep 60\n')
    meter.chmod(0o755)
    with power_meter(board) as power:
        while not written.exists():
            time.sleep(0.01)
        found = power()
    assert found.mean_mw["VDD_IN"] == 12479.0


@pytest.mark.parametrize(("jetson", "why"), [(False, "this is no Jetson"), (True, "tegrastats: No such file")])
def test_no_power_without_the_tool(board, tmp_path, jetson, why):
    with power_meter(board if jetson else tmp_path / "nothing") as power, pytest.raises(OneStrideError, match=why):
        power()

"""Latency and jitter of a policy file: back to back, and paced at the rate it will run at.

Timed is what a control loop does with the policy: copy the observation in, draw the noise, run the graph, take the
chunk out. Warm-up is excluded; the first call is reported by itself.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onestride.deploy.contract import Contract
from onestride.deploy.runtime import Images, PolicyRuntime, import_onnxruntime, load_contract
from onestride.hardware.state import Array

FORMAT = 1
WARM_UP = 200
QUANTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p99.9": 99.9}

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        policy: exported file.
        calls: timed calls of each back-to-back series.
        seconds: length of each paced series [s].
        rate: pace [Hz]; default the contract's control rate, or its policy rate where no robot is named.
        nfe: network evaluations to measure; default all that the file offers.
        provider: onnxruntime execution provider.
    """

    policy: Path
    calls: int = 5000
    seconds: float = 3.0
    rate: float | None = None
    nfe: tuple[int, ...] = ()
    provider: str = "CPUExecutionProvider"


def bench(options: BenchOptions) -> dict[str, Any]:
    """Measure a policy file.

    Returns:
        A JSON-able report: environment, policy, and one entry per NFE with back-to-back and paced figures [µs].

    Raises:
        OneStrideError: the file, an NFE or the provider is refused.
    """
    contract, digest = load_contract(options.policy)
    rate = options.rate or contract.execution.control_rate or contract.execution.policy_rate
    before = throttling()
    results = [_measure(options, contract, nfe, rate) for nfe in options.nfe or contract.policy.nfe]
    return {
        "format": FORMAT,
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "policy": {
            "file": options.policy.name,
            "sha256": digest,
            "name": contract.policy.name,
            "candidates": contract.policy.candidates,
        },
        "environment": environment() | {"before": before, "after": throttling()},
        "provider": options.provider,
        "threads": 1,
        "rate_hz": rate,
        "results": results,
    }


def _measure(options: BenchOptions, contract: Contract, nfe: int, rate: float) -> dict[str, Any]:
    loaded = time.perf_counter()
    policy = PolicyRuntime(options.policy, nfe=nfe, provider=options.provider)
    load_ms = (time.perf_counter() - loaded) * 1e3
    rng = np.random.default_rng(0)
    low, high = np.tile(contract.dataset.minimum, contract.history), np.tile(contract.dataset.maximum, contract.history)
    observations = rng.uniform(low, high, (256, len(low)))
    images = {term.name: rng.integers(0, 256, (contract.history, *term.shape), np.uint8) for term in contract.images}
    for index in range(WARM_UP):
        policy.infer(observations[index % 256], images)
    return {
        "nfe": nfe,
        "load_ms": round(load_ms, 3),
        "first_call_us": round(policy.first_call * 1e6, 2),
        "back_to_back_us": percentiles(back_to_back(policy, observations, options.calls, images)),
        "paced": paced(policy, observations, rate, options.seconds, images),
    }


def back_to_back(policy: PolicyRuntime, observations: Array, calls: int, images: Images | None = None) -> Samples:
    """Durations (calls,) [µs] of inferences without a pause between them."""
    durations = np.empty(calls)
    for index in range(calls):
        start = time.perf_counter_ns()
        policy.infer(observations[index % len(observations)], images)
        durations[index] = (time.perf_counter_ns() - start) * 1e-3
    return durations


def paced(
    policy: PolicyRuntime, observations: Array, rate: float, seconds: float, images: Images | None = None
) -> dict[str, Any]:
    """Inferences on absolute deadlines, as a control loop makes them, with the jitter of waking up.

    Returns:
        Percentiles of duration and wake-up delay [µs], overruns (ended after the next deadline) and the longest run
        of them.
    """
    period, count = 1.0 / rate, max(1, round(rate * seconds))
    durations, delays = np.empty(count), np.empty(count)
    overruns = np.zeros(count, dtype=bool)
    begun = time.perf_counter()
    for index in range(count):
        deadline = begun + index * period
        time.sleep(max(0.0, deadline - time.perf_counter()))
        start = time.perf_counter()
        policy.infer(observations[index % len(observations)], images)
        end = time.perf_counter()
        durations[index], delays[index], overruns[index] = end - start, start - deadline, end > deadline + period
    return {
        "rate_hz": rate,
        "infer_us": percentiles(durations * 1e6),
        "wakeup_us": percentiles(delays * 1e6),
        "overruns": int(overruns.sum()),
        "longest_run_of_overruns": longest_run(overruns),
    }


def percentiles(samples: Samples) -> dict[str, float]:
    """min, p50 to p99.9, max and mean of samples (N,), and N."""
    values = {name: float(np.percentile(samples, q)) for name, q in QUANTILES.items()}
    summary = {"min": float(samples.min()), **values, "max": float(samples.max()), "mean": float(samples.mean())}
    return {name: round(value, 2) for name, value in summary.items()} | {"n": len(samples)}


def longest_run(flags: NDArray[np.bool_]) -> int:
    """Length of the longest run of true values."""
    longest = current = 0
    for flag in flags:
        current = current + 1 if flag else 0
        longest = max(longest, current)
    return longest


def environment() -> dict[str, Any]:
    """The machine and the software that were measured."""
    onnxruntime = import_onnxruntime()
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": platform.platform(),
        "device_model": _first_line(Path("/proc/device-tree/model")),
        "jetpack": _first_line(Path("/etc/nv_tegra_release")),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "onestride": version("onestride"),
    }


def throttling() -> dict[str, Any]:
    """What tells a slow clock from a slow program: governor, clock, temperature, load."""
    cpu = Path("/sys/devices/system/cpu/cpu0/cpufreq")
    return {
        "governor": _first_line(cpu / "scaling_governor"),
        "khz": _first_line(cpu / "scaling_cur_freq"),
        "millidegrees": _first_line(Path("/sys/class/thermal/thermal_zone0/temp")),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _first_line(path: Path) -> str | None:
    """A file's first line, without the NUL that device trees end with; None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip("\0 ")
    except (OSError, IndexError):
        return None


def over_budget(report: dict[str, Any], budget_us: float) -> list[str]:
    """One line for each NFE whose paced p99 exceeds the budget [µs]."""
    return [
        f"NFE {result['nfe']}: expected paced p99 <= {budget_us:g} µs, got {result['paced']['infer_us']['p99']:g} µs"
        for result in report["results"]
        if result["paced"]["infer_us"]["p99"] > budget_us
    ]

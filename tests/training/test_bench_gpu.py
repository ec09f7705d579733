"""The benchmark of a GPU runs to its end where there is none, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
NAME = "python/line_environment:Line"
SIZES = {"hidden": "16", "candidates": "2", "updates": "5", "steps": "2000", "online-steps": "60"}


@pytest.mark.slow
def test_it_measures_updates_and_online_iterations() -> None:
    sizes = [word for name, value in SIZES.items() for word in (f"--{name}", value)]
    command = [sys.executable, str(TESTS / "benchmarks" / "bench_gpu.py"), "--device", "cpu", "--env", NAME, *sizes]
    done = subprocess.run(command, env={"PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == int(not found["bare"]["met"]), done.stderr
    assert found["bare"]["eager_per_s"] > 0 and found["bare"]["wanted_per_s"] == 1000
    assert found["online"]["per_s"] > 0 and found["online"]["paper_per_s"] == 153.6

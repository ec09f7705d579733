"""The whole demo in short form: real environment, real training, real node and plant over DDS."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ogbench", reason="needs the extra `sim`")
pytest.importorskip("rclpy", reason="needs the extra `ros`")

SHORT = ["--demonstrations", "3", "--steps", "40", "--episodes", "1"]
KEYS = {
    "success_rate": float,
    "bare_env_success_rate": float,
    "episodes": int,
    "transport": str,
    "policy_rate_hz": float,
    "control_rate_hz": float,
    "deadline_misses": int,
    "intervention_rate": float,
    "train_steps": int,
    "train_s": float,
    "total_s": float,
    "policy_sha256": str,
    "dataset_id": str,
}


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "onestride.deploy.cli", "demo", "--out", str(out), *arguments]


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, *arguments), capture_output=True, text=True, timeout=300, check=False)


def strays(out: Path) -> list[psutil.Process]:
    """Processes whose command line names the demo's folder."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(out) in " ".join(p.info["cmdline"] or [])]


def until(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    done = run(out, *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    return out, done


def test_the_report_says_what_happened(finished):
    out, done = finished
    report = json.loads((out / "report.json").read_text())
    assert json.loads(done.stdout) == report
    for key, kind in KEYS.items():
        assert isinstance(report[key], kind), key
    series = {"tick_ms": ("p50", "p99", "max"), "observation_age_ms": ("p50", "p99"), "policy_us": ("p50", "p99")}
    for key, parts in series.items():
        assert all(report[key][part] >= 0 for part in parts)
    assert report["episodes"] == 1
    assert report["transport"].startswith("rmw_")
    assert report["control_rate_hz"] >= 100
    assert report["train_steps"] == 40
    assert report["faults"] == []


def test_the_page_needs_nothing_else(finished):
    out, _ = finished
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "src=" not in page.replace('src="data:', "")


def test_running_it_again_reuses_what_is_there(finished):
    out, first = finished
    before = json.loads(first.stdout)
    again = run(out, *SHORT, "--json", "--no-film")
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    said = " ".join(again.stderr.split())
    assert "3 of them reused" in said
    assert "40 gradient steps (reused)" in said
    assert said.count("reused") == 3
    assert report["policy_sha256"] == before["policy_sha256"]
    assert report["train_s"] == before["train_s"]


def test_ctrl_c_while_the_robot_runs_leaves_no_process_and_nothing_broken(finished):
    """Interrupted in its longest stage, the demo exits with 130, stops node and plant, and can be run again."""
    out, _ = finished
    demo = subprocess.Popen(command(out, *SHORT), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = out / "log" / "node.log"
    log.unlink()
    try:
        assert until(lambda: log.exists() and "mode active" in log.read_text(), 120), "the node never became active"
        demo.send_signal(signal.SIGINT)
        _, stderr = demo.communicate(timeout=30)
    finally:
        demo.kill()
    assert demo.returncode == 130
    assert "Traceback" not in stderr
    assert until(lambda: not strays(out), 10), [p.info for p in strays(out)]
    check = [
        sys.executable,
        "-m",
        "onestride.deploy.cli",
        "check",
        str(out / "policy.onnx"),
        "--run",
        str(out / "train"),
    ]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0


def test_killed_demo_takes_its_processes_along(finished):
    out, _ = finished
    demo = subprocess.Popen(command(out, *SHORT), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = out / "log" / "node.log"
    log.unlink(missing_ok=True)
    assert until(lambda: log.exists() and "mode active" in log.read_text(), 120)
    os.kill(demo.pid, signal.SIGKILL)
    demo.wait()
    assert until(lambda: not strays(out), 15), [p.info for p in strays(out)]


def test_two_demos_side_by_side_do_not_mix(finished, tmp_path):
    """At the same time, with the same names: each robot moves in its own namespace and domain, without a fault."""
    out, _ = finished
    copies = [shutil.copytree(out, tmp_path / name) for name in ("one", "two")]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    demos = [subprocess.Popen(command(copy, *SHORT, "--no-film", "--json"), **options) for copy in copies]
    answers = [demo.communicate(timeout=300) for demo in demos]
    for demo, (stdout, stderr) in zip(demos, answers, strict=True):
        assert demo.returncode == 0, stderr
        assert json.loads(stdout)["faults"] == []
    logs = [(copy / "log" / "node.log").read_text() for copy in copies]
    namespaces = [set(re.findall(r"onestride_[0-9a-f]{8}", log)) for log in logs]
    assert all(len(found) == 1 for found in namespaces)
    assert namespaces[0] != namespaces[1]


def test_impossible_numbers_are_refused(tmp_path):
    done = run(tmp_path / "demo", "--episodes", "0")
    assert done.returncode == 1
    assert done.stderr.strip() == "onestride: expected demonstrations, steps and episodes >= 1"

"""`onestride bench` on a small policy: every way that this machine has, and the control tick around it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from onestride.deploy.bench.bench import BenchOptions, bench
from onestride.deploy.bench.full_tick import Cell, _Loop
from onestride.deploy.bench.numeric import numeric_error
from onestride.deploy.bench.report import POLICY_STAGES, TICK_STAGES, read_report
from onestride.deploy.bench.series import Stopwatch
from onestride.deploy.bench.surroundings import neighbours, on_processors
from onestride.deploy.bench.variants import CPU, CUDA, TENSORRT, conversion, engine_folder, options_of, tolerance
from onestride.deploy.cli import main
from onestride.deploy.controller import Mode
from onestride.deploy.runtime import PolicyRuntime
from onestride.hardware.errors import OneStrideError

pytest.importorskip("onnx", reason="needs the extra `bench`")

SHORT = ["--calls", "20", "--seconds", "0.05", "--nfe", "1"]


def test_a_report_has_everything_a_reader_compares(sample_policy):
    report = bench(BenchOptions(sample_policy, calls=200, seconds=0.25))
    assert [variant.nfe for variant in report.variants] == [1, 2]
    for variant in report.variants:
        assert tuple(variant.back_to_back) == tuple(variant.paced.stages) == POLICY_STAGES
        assert variant.back_to_back["policy"].n == 200
        assert variant.paced.stages["policy"].n == 50 and variant.paced.rate_hz == 200
        assert variant.first_call_us > 0 and variant.load_ms * 1e3 > variant.first_call_us
        parts = sum(variant.back_to_back[stage].mean for stage in ("copy_in", "infer", "copy_out"))
        assert parts == pytest.approx(variant.back_to_back["policy"].mean, rel=0.01, abs=0.05)
    assert report.full_tick is None
    assert {one.what for one in report.skipped} >= {"full tick", "power"}


def test_the_error_is_the_difference_that_the_graphs_have(sample_policy):
    """The sample graph is mean + 0.1 * nfe * noise, so that one and two evaluations differ by 0.1 * noise."""
    one, two = (PolicyRuntime(sample_policy, nfe=nfe) for nfe in (1, 2))
    contract = one.contract
    observations = np.zeros((3, contract.observation_size))
    found = numeric_error(two, one, observations, {}, 0.01)
    noise = np.random.default_rng(1).standard_normal((3, *contract.noise_shape), dtype=np.float32)
    difference = np.abs(0.1 * noise) / np.maximum(1.0, np.abs(0.1 * noise))
    assert found.max == pytest.approx(difference.max(), rel=1e-5)
    assert found.p50 == pytest.approx(np.median(difference.max((1, 2, 3))), rel=1e-5)
    assert not found.within and found.samples == 3
    assert contract.export is not None
    assert found.to_torch == pytest.approx(found.max + contract.export.parity)
    assert numeric_error(one, one, observations, {}, 0.01).max == 0.0


def test_budget_and_earlier_report(sample_policy, tmp_path, capsys):
    short = ["bench", str(sample_policy), *SHORT, "--sink", "none"]
    assert main([*short, "--budget", "p99=100s,infer.p50=100s", "--output", str(tmp_path / "a.json")]) == 0
    assert main([*short, "--budget", "p99=0.001us", "--compare", str(tmp_path / "a.json")]) == 1
    captured = capsys.readouterr()
    assert "expected policy.p99 <= 0.001" in captured.err
    assert "against the earlier report" in captured.out
    assert read_report(tmp_path / "a.json").variants[0].nfe == 1


def test_json_and_page(sample_policy, tmp_path, capsys):
    page = tmp_path / "deep" / "r.html"
    command = ["bench", str(sample_policy), *SHORT, "--sink", "none", "--json", "--html", str(page), "--device", "here"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["device"] == "here"
    assert "on here</h1>" in page.read_text()


def test_refusals(sample_policy, tmp_path, capsys):
    (tmp_path / "x.json").write_text("[]")
    refused = {
        ("--nfe", "3"): "available: 1, 2",
        ("--providers", "abacus"): "available:",
        ("--providers", "cuda"): "onnxruntime provider on this machine",
        ("--providers", "cpu,tensorrt"): "CPUExecutionProvider",
        ("--precisions", "fp7"): "available: fp32, fp16, int8",
        ("--tolerance", "fp16=lots"): "PRECISION=NUMBER",
        ("--calls", "0"): "expected calls",
        ("--compare", str(tmp_path / "x.json")): "expected bench format",
        ("--affinity", "4096"): "expected processors out of",
        ("--budget", "p99"): "with us, ms or s",
    }
    for options, said in refused.items():
        assert main(["bench", str(sample_policy), "--sink", "none", *options]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line, options
    assert main(["bench"]) == 1
    assert "expected one of them" in capsys.readouterr().err


def test_strict_fails_where_a_tolerance_is_exceeded(sample_policy, capsys):
    half = ["bench", str(sample_policy), *SHORT, "--sink", "none", "--precisions", "fp16"]
    assert main([*half, "--strict"]) == 0
    assert main([*half, "--tolerance", "fp16=1e-9"]) == 0
    assert main([*half, "--tolerance", "fp16=1e-9", "--strict"]) == 1
    assert "action error" in capsys.readouterr().err


def test_tolerances_are_stated_or_usual():
    assert tolerance(CPU, "fp32", {}) == 1e-5
    assert tolerance(CUDA, "fp32", {}) == 1e-3
    assert tolerance(CPU, "int8", {"int8": 0.5}) == 0.5


def test_providers_are_told_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert options_of(CPU, "fp32", "ab" * 32) == {}
    assert options_of(CUDA, "fp32", "ab" * 32, cuda_graph=True) == {"use_tf32": "0", "enable_cuda_graph": "1"}
    told = options_of(TENSORRT, "fp16", "ab" * 32)
    assert told["trt_fp16_enable"] == "1" and told["trt_engine_cache_enable"] == "1"
    cache = engine_folder("ab" * 32, "fp16")
    assert told["trt_engine_cache_path"] == str(cache) and cache.is_dir()
    assert cache.parent == tmp_path / "onestride" / "engines" and cache.name.startswith("ab" * 8)


def test_engines_are_kept_apart_by_policy_precision_and_board(tmp_path):
    model = tmp_path / "proc/device-tree/model"
    model.parent.mkdir(parents=True)
    model.write_text("NVIDIA Jetson AGX Orin\0")
    folders = {
        engine_folder("ab" * 32, "fp16"),
        engine_folder("cd" * 32, "fp16"),
        engine_folder("ab" * 32, "fp32"),
        engine_folder("ab" * 32, "fp16", tmp_path),
    }
    assert len(folders) == 4


def test_precisions_that_a_provider_has_not():
    assert conversion(TENSORRT, "fp16") is None  # it builds the engine so by itself
    with pytest.raises(OneStrideError, match="CPU provider only"):
        conversion(CUDA, "int8")


def test_affinity_holds_meanwhile_and_neighbours_end():
    before = os.sched_getaffinity(0)
    with on_processors([min(before)]), neighbours(1):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_the_control_tick_in_closed_loop(sample_policy, robot, cube_scene):
    sent: list[np.ndarray] = []
    options = BenchOptions(sample_policy, calls=5, seconds=0.5, nfe=(1,))
    report = bench(options, Cell(robot, cube_scene, lambda command: sent.append(command.copy())))
    tick = report.full_tick
    assert tick is not None and tick.paced.rate_hz == 200 and tick.sink == "dds"
    stages = tick.paced.stages
    assert set(stages) == set(TICK_STAGES)
    assert stages["tick"].n == stages["filters"].n == stages["publish"].n == 100
    assert stages["observe"].n == 10  # a policy step is 10 ticks
    assert tick.n_inferences == stages["infer"].n == tick.inferring.n == 2  # a chunk is 5 steps
    whole = sum(one.mean * one.n for name, one in stages.items() if name != "tick")
    assert whole == pytest.approx(stages["tick"].mean * 100, rel=0.02)
    assert np.isfinite(sent).all() and len(sent) >= 100


def test_a_fault_is_counted_once_and_the_stop_ends_before_the_loop_begins_anew(sample_policy, robot, cube_scene):
    loop, modes = _Loop(PolicyRuntime(sample_policy), Cell(robot, cube_scene)), []
    loop.watched_by(Stopwatch(TICK_STAGES, 200))
    for index in range(200):
        loop.tick(index)
        if index == 60:
            loop.controller.fault("for a test")
        loop.world(index)
        modes.append(loop.controller.mode)
    assert loop.faults == {"for a test": 1}
    assert 1 < modes.count(Mode.FAULT) < 100
    assert modes[-1] is Mode.ACTIVE


def test_a_policy_of_others_on_legs(shared_data, capsys):
    folder = shared_data / "policies" / "go1_joystick"
    command = ["bench", str(folder / "go1_policy.onnx"), "--contract", "go1_joystick", "--sink", "memory", "--json"]
    assert main([*command, "--model", str(folder / "go1_mjx_feetonly.xml"), "--calls", "20", "--seconds", "0.5"]) == 0
    report = json.loads(capsys.readouterr().out)
    tick = report["full_tick"]
    assert (tick["robot"], tick["faults"], report["policy"]["candidates"]) == ("go1", {}, 1)
    assert tick["n_inferences"] == tick["paced"]["stages"]["observe"]["n"] == 25  # 50 Hz, one action a chunk
    assert report["variants"][0]["error"]["max"] == 0.0 and report["variants"][0]["error"]["to_torch"] is None


def test_the_control_tick_says_why_it_is_left_out(sample_policy, tmp_path, capsys):
    command = ["bench", str(sample_policy), *SHORT, "--sink", "memory", "--scene", str(tmp_path)]
    assert main(command) == 0
    assert "full tick" in capsys.readouterr().out
    assert main([*command, "--budget", "tick.p99=1ms"]) == 1

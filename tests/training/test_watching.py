"""A policy exported with `--watch`: its file tells a learnt Lyapunov function, and the run can be compared with it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("ogbench", reason="needs the extra `sim`")

from onestride.datasets.store import Store
from onestride.deploy.cli import main
from onestride.deploy.runtime import PolicyRuntime, load_contract
from onestride.hardware.errors import OneStrideError
from onestride.training.certificates.on_data import to_go
from onestride.training.exporting import fresh_parity
from onestride.training.watching import load_watch, seen_with_history, successful


@pytest.fixture(scope="module")
def watched(small_run, tmp_path_factory):
    run = tmp_path_factory.mktemp("watched") / "run"
    shutil.copytree(small_run.run, run)
    policy = run.parent / "watched.onnx"
    assert main(["export", str(run), "-o", str(policy), "--watch"]) == 0
    return run, policy


def test_the_file_tells_how_far_the_task_is(small_run, watched):
    _, policy = watched
    contract, _ = load_contract(policy)
    assert [monitor.name for monitor in contract.policy.monitors] == ["lyapunov"]
    assert "not proved" in contract.policy.monitors[0].meaning
    runtime, told, right = PolicyRuntime(policy), [], []
    for episode in successful(Store.open(small_run.data), ("observation",), contract.history):
        for observation, wanted in zip(episode[::10], to_go(len(episode), 0.02)[::10], strict=True):
            runtime.infer(observation)
            told.append(runtime.readings[0].value)
            right.append(wanted)
    assert np.corrcoef(told, right)[0, 1] > 0.9


def test_it_is_compared_with_its_run(watched):
    run, policy = watched
    assert fresh_parity(policy, run).passed


def test_a_run_without_the_function_is_not_compared(watched, small_run):
    finding = fresh_parity(watched[1], small_run.run)
    assert not finding.passed
    assert "lyapunov.safetensors" in finding.detail


def test_a_damaged_function_is_refused(watched, tmp_path):
    (tmp_path / "lyapunov.safetensors").write_bytes((watched[0] / "lyapunov.safetensors").read_bytes()[:-9])
    with pytest.raises(OneStrideError, match=r"lyapunov\.safetensors: expected a learnt Lyapunov function, got"):
        load_watch(tmp_path)


def test_a_moved_store_is_asked_for(small_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(small_run.run, run)
    config = json.loads((run / "config.json").read_text())
    config["data"] = str(tmp_path / "moved.zarr")
    (run / "config.json").write_text(json.dumps(config))
    assert main(["export", str(run), "-o", str(tmp_path / "p.onnx"), "--watch"]) == 1
    assert "--data names a store that moved" in capsys.readouterr().err


def test_history_repeats_the_first_step():
    steps = np.arange(6, dtype=np.float64).reshape(3, 2)
    np.testing.assert_array_equal(seen_with_history(steps, 2), [[0, 1, 0, 1], [0, 1, 2, 3], [2, 3, 4, 5]])

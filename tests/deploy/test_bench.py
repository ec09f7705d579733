"""The bench's arithmetic, and that it measures what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onestride.deploy.bench import BenchOptions, bench, longest_run, over_budget, percentiles
from onestride.deploy.cli import main


def test_percentiles_of_a_known_series():
    figures = percentiles(np.arange(1.0, 1002.0, dtype=np.float64))
    assert figures["min"] == 1 and figures["max"] == 1001 and figures["n"] == 1001
    assert (figures["p50"], figures["p90"], figures["p99"], figures["p99.9"]) == (501, 901, 991, 1000)


@pytest.mark.parametrize(("flags", "longest"), [([], 0), ([0, 0], 0), ([1, 0, 1, 1, 0], 2), ([1, 1, 1], 3)])
def test_longest_run(flags, longest):
    assert longest_run(np.array(flags, dtype=bool)) == longest


def test_a_report_has_everything_a_reader_compares(small_run):
    report = bench(BenchOptions(small_run.policy, calls=200, seconds=0.25))
    assert [result["nfe"] for result in report["results"]] == [1, 2, 4]
    assert report["rate_hz"] == 200
    for result in report["results"]:
        assert result["back_to_back_us"]["n"] == 200
        assert result["paced"]["infer_us"]["n"] == 50
        assert (
            0 < result["back_to_back_us"]["min"] <= result["back_to_back_us"]["p50"] <= result["back_to_back_us"]["max"]
        )
        assert result["first_call_us"] > 0
    assert report["environment"]["onnxruntime"]
    assert json.loads(json.dumps(report)) == report


def test_budget_sets_the_exit_code(small_run, tmp_path, capsys):
    short = ["bench", str(small_run.policy), "--calls", "20", "--seconds", "0.05", "--nfe", "1"]
    assert main([*short, "--budget-us", "1e9", "--output", str(tmp_path / "a.json")]) == 0
    assert main([*short, "--budget-us", "1e-3", "--compare", str(tmp_path / "a.json")]) == 1
    captured = capsys.readouterr()
    assert "expected paced p99 <= 0.001" in " ".join(captured.err.split())
    assert "against the earlier report" in " ".join(captured.out.split())


def test_over_budget_names_the_nfe():
    report = {"results": [{"nfe": 4, "paced": {"infer_us": {"p99": 12.0}}}]}
    assert over_budget(report, 12.0) == []
    assert over_budget(report, 11.0) == ["NFE 4: expected paced p99 <= 11 µs, got 12 µs"]


def test_refusals(small_run, tmp_path, capsys):
    assert main(["bench", str(small_run.policy), "--nfe", "3"]) == 1
    assert main(["bench", str(small_run.policy), "--provider", "AbacusExecutionProvider"]) == 1
    assert main(["bench", str(small_run.policy), "--calls", "0"]) == 1
    (tmp_path / "x.json").write_text("[]")
    assert main(["bench", str(small_run.policy), "--compare", str(tmp_path / "x.json")]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert "available: 1, 2, 4" in lines[0]
    assert "available:" in lines[1] and "CPUExecutionProvider" in lines[1]

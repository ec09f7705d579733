"""The report: bands against known formulas, groups by settings, and a page that stands alone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from onestride.deploy.cli import main
from onestride.hardware.errors import OneStrideError
from onestride.training.checkpoint import RunConfig
from onestride.training.report import group_runs, student, wilson

CONFIG = RunConfig("mvp", {"lr": 1e-3, "hidden": [8]}, "id", "data", ("x",), 1, 1, 10, 0)


def make_run(path: Path, config: RunConfig, success: dict[int, float]) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(asdict(config)))
    rows = [f"{step},1.5,{rate},-5.0,0.0,7.0,20,1000000" for step, rate in success.items()]
    heading = "step,seconds,success,return,cost,length,episodes,seed"
    (path / "evaluations.csv").write_text("\n".join([heading, *rows, ""]))
    (path / "metrics.csv").write_text("step,seconds,actor/loss\n5,1,0.5\n10,2,0.25\n")
    return path


def test_students_band_is_scipys() -> None:
    values = np.array([[0.1, 0.5], [0.3, 0.9], [0.2, 0.4], [0.6, 0.5]])
    low, high = student(values)
    expected = stats.t.interval(0.95, 3, loc=values.mean(0), scale=stats.sem(values, axis=0))
    np.testing.assert_allclose([low, high], expected)
    assert np.isnan(student(values[:1])).all()


def test_wilsons_band_is_scipys() -> None:
    low, high = wilson(np.array([0.0, 0.3, 1.0]), np.array([10.0, 50.0, 50.0]))
    for index, (hits, count) in enumerate(((0, 10), (15, 50), (50, 50))):
        expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose([low[index], high[index]], [expected.low, expected.high], atol=1e-6)


def test_seeds_share_a_group_and_settings_do_not(tmp_path: Path) -> None:
    other = replace(CONFIG, settings={"lr": 1e-4, "hidden": [8]})
    paths = [
        make_run(tmp_path / "b", replace(CONFIG, seed=1), {5: 0.4, 10: 1.0, 15: 0.9}),
        make_run(tmp_path / "a", CONFIG, {5: 0.2, 10: 0.8}),
        make_run(tmp_path / "c", other, {5: 0.1}),
    ]
    first, second = group_runs(paths)
    assert [run.config.seed for run in first.runs] == [0, 1] and len(second.runs) == 1
    assert (first.label, second.label) == ("mvp, lr 0.001", "mvp, lr 0.0001")
    curve = first.evaluation("success")
    assert curve is not None and curve.steps.tolist() == [5, 10]
    np.testing.assert_allclose(curve.mean, [0.3, 0.9])
    reach = stats.t.ppf(0.975, 1) * 0.1
    np.testing.assert_allclose(curve.high - curve.mean, [reach, reach])
    loss = first.metric("actor/loss")
    assert loss is not None and loss.mean.tolist() == [0.5, 0.25]


def test_agents_are_told_apart_by_name(tmp_path: Path) -> None:
    rival = replace(CONFIG, agent="qc", settings={"alpha": 3})
    paths = [make_run(tmp_path / "a", CONFIG, {5: 0.2}), make_run(tmp_path / "b", rival, {5: 0.1})]
    assert [group.label for group in group_runs(paths)] == ["mvp", "qc"]


def test_a_page_that_stands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = make_run(tmp_path / "<b>a</b>", CONFIG, {5: 0.2, 10: 0.8})
    bare = make_run(tmp_path / "bare", replace(CONFIG, seed=1, env="e"), {})
    page = tmp_path / "sub" / "report.html"
    assert main(["report", str(evil), str(bare), "-o", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"] == ["mvp, env ", "mvp, env e"]
    text = page.read_text()
    assert text.count("<svg") >= 2 and "0.8 [" in text and "&lt;b&gt;a" in text and "<b>a</b>" not in text
    assert "<script" not in text and 'src="http' not in text


@pytest.mark.parametrize(("words", "sentence"), [((), "expected at least one run"), (("/nowhere",), "no config.json")])
def test_what_is_no_run_is_refused(
    words: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *words, "-o", str(tmp_path / "r.html")]) == 1
    assert sentence in capsys.readouterr().err


def test_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, CONFIG, {5: 0.2}) for name in "ab"]
    with pytest.raises(OneStrideError, match=r"different seeds, got seeds \[0, 0\]"):
        group_runs(paths)

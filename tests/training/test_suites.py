"""Benchmarks of learning: cells that can be trained, results that stay, a table that claims nothing unrun."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onestride.hardware.errors import OneStrideError
from onestride.training import commands_sweep
from onestride.training.commands_suite import SUITES, BenchTrain, load
from onestride.training.suites import page
from onestride.training.suites.cells import Cell
from onestride.training.suites.page import write_page
from onestride.training.suites.results import Results, judged
from onestride.training.suites.results import found as find
from onestride.training.suites.running import run_cells
from onestride.training.sweep import Trial


def scales() -> Iterator[tuple[str, str]]:
    for suite in SUITES:
        for scale in load(suite).scales:
            yield suite, scale


def entry(cell: Cell, success: float, scale: str = "cpu-smoke") -> dict[str, Any]:
    row = {"step": 40.0, "seconds": 1.0, "success": success, "return": -9.0, "cost": 0.0, "length": 9.0}
    row |= {"episodes": 50.0, "seed": 7.0}
    return {
        "scale": scale,
        "task": cell.task,
        "agent": cell.agent,
        "seed": cell.seed,
        "train_s": 60.0,
        "offline": judged(row),
        "online": None,
        "candidates": {},
        "evaluations": [row],
        "command": cell.command,
        "device": "a processor",
        "commit": "0123456789",
    }


@pytest.mark.parametrize(("suite", "scale"), scales())
def test_every_cell_is_one_that_train_accepts(suite: str, scale: str) -> None:
    cells = load(suite).cells(scale)
    assert len({cell.name for cell in cells}) == len(cells)
    tried = set()
    for cell in cells:
        if (cell.task, cell.agent) not in tried:
            tried.add((cell.task, cell.agent))
            data = ("--data", "x.zarr") if cell.data else ()
            commands_sweep._check(Trial("x", (cell.words[0], *data, *cell.words[1:], "--seed", str(cell.seed))))


def test_the_paper_suite_has_nine_tasks_and_begins_where_agents_differ_most() -> None:
    cells = load("mvp-paper").cells("gpu")
    assert len({cell.task for cell in cells}) == 9
    assert len({cell.seed for cell in cells}) >= 3
    assert cells[0].task == "double-t4"
    assert "--candidates 32" in " ".join(cells[0].words)


def test_a_cell_that_goes_on_from_another_names_one_of_its_suite() -> None:
    for suite, scale in scales():
        cells = load(suite).cells(scale)
        assert {cell.start for cell in cells if cell.start} <= {cell.name for cell in cells}


def test_unknown_suites_scales_and_agents_are_refused_by_a_list() -> None:
    with pytest.raises(OneStrideError, match=r"cube-single"):
        load("cube")
    suite = load("cube-single")
    with pytest.raises(OneStrideError, match=r"cpu-smoke"):
        suite.cells("gpu")
    with pytest.raises(OneStrideError, match=r"bc_flow"):
        suite.cells("cpu", only=("bc",))


def test_only_keeps_the_agents_that_are_named() -> None:
    assert {cell.agent for cell in load("cube-single").cells("cpu", only=("qc",))} == {"qc"}
    assert {cell.seed for cell in load("cube-single").cells("cpu", seeds=(5,))} == {5}


def test_a_result_replaces_its_own_cell_and_no_other(tmp_path: Path) -> None:
    results = Results(tmp_path / "suite.json")
    first, second = load("cube-single").cells("cpu-smoke")[:2]
    results.put(entry(first, 0.1))
    results.put(entry(second, 0.2))
    results.put(entry(first, 0.3))
    found = {one["agent"]: one["offline"]["success"] for one in results.read()}
    assert found == {first.agent: 0.3, second.agent: 0.2}


def test_a_damaged_results_file_is_refused(tmp_path: Path) -> None:
    results = Results(tmp_path / "suite.json")
    results.path.write_text('{"format": 1')
    with pytest.raises(OneStrideError, match=r"suite\.json: expected the results"):
        results.read()


def test_a_damaged_results_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "cube-single.json").write_bytes(b"\xfc")
    command = BenchTrain("cube-single", only=("bc_flow",), run=tmp_path / "runs", results=tmp_path)
    with pytest.raises(OneStrideError, match=r"expected the results of a suite"):
        command()
    assert not (tmp_path / "runs").exists()


def test_the_table_tells_what_was_run_and_what_was_not(tmp_path: Path) -> None:
    suite = load("cube-single")
    cells = suite.cells("cpu-smoke", seeds=(0, 1))
    of_mvp = [cell for cell in cells if cell.agent == "mvp"]
    entries = [entry(of_mvp[0], 0.5), entry(of_mvp[1], 0.7), entry(cells[-1], 0.9, scale="cpu")]
    table, picture = write_page(suite, "cpu-smoke", cells, entries, tmp_path)
    line = next(line for line in table.read_text().splitlines() if line.startswith("| cube-single-t2 |"))
    agents = list(dict.fromkeys(cell.agent for cell in cells))
    assert line.count("not run") == len(agents) - 1
    assert "0.60 (n=2)" in line
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_each_stage_says_how_many_seeds_reached_it(tmp_path: Path) -> None:
    suite = load("cube-single")
    cells = suite.cells("cpu-smoke", seeds=(0, 1))[:2]
    entries = [entry(cell, success) for cell, success in zip(cells, (0.5, 0.7), strict=True)]
    entries[1]["online"] = entries[1]["offline"]
    page, _ = write_page(suite, "cpu-smoke", cells, entries, tmp_path)
    assert "| 0.60 (n=2) → 0.70 (n=1) |" in page.read_text()


def test_a_run_that_goes_on_is_drawn_from_the_end_of_the_one_before(tmp_path: Path, monkeypatch: Any) -> None:
    suite = load("cube-single")
    cells = suite.cells("cpu-smoke", seeds=(0,), only=("mvp", "mvp, then online"))
    offline, online = cells
    drawn: list[list[dict[str, Any]]] = []
    monkeypatch.setattr(page, "_plot", lambda _, entries: drawn.append(entries) or b"")
    later = entry(online, 0.9)
    later["evaluations"] = [{**row, "step": 20.0} for row in later["evaluations"]]
    write_page(suite, "cpu-smoke", cells, [entry(offline, 0.5), later], tmp_path)
    write_page(suite, "cpu-smoke", cells, [later], tmp_path)
    first, second = drawn[0]
    curves = [[(row["step"], row["success"]) for row in one["evaluations"]] for one in (first, second)]
    assert curves == [[(40.0, 0.5)], [(40.0, 0.5), (60.0, 0.9)]]
    assert drawn[1] == [], "where it began is not known"
    assert later["evaluations"][0]["step"] == 20.0, "what the table reads stays"


def test_the_page_shows_seeds_of_earlier_calls_too() -> None:
    suite = load("cube-single")
    before = [entry(suite.cells("cpu", seeds=(7,))[0], 0.5, scale="cpu"), entry(suite.cells("cpu-smoke")[0], 0.5)]
    shown = BenchTrain("cube-single", scale="cpu", seeds=(2,))._shown(suite, before)
    assert {cell.seed for cell in shown} == {2, 7}


def test_a_result_with_other_settings_is_not_this_cell(tmp_path: Path) -> None:
    suite = load("cube-single")
    cell = suite.cells("cpu-smoke")[0]
    other = entry(cell, 0.5) | {"command": cell.command.replace("--steps 40", "--steps 41")}
    assert other["command"] != cell.command
    assert find(cell, "cpu-smoke", [other]) is None and find(cell, "cpu", [entry(cell, 0.5)]) is None
    (table,) = write_page(suite, "cpu-smoke", [cell], [other], tmp_path)
    assert "| cube-single-t2 | not run |" in table.read_text()


def test_a_cell_is_not_begun_from_an_unfinished_one(tmp_path: Path) -> None:
    suite = load("cube-single")
    (cell,) = suite.cells("cpu-smoke", only=("mvp, then online",))
    assert cell.data is not None
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{cell.data.name}.done").touch()
    (outcome,) = run_cells([cell], "cpu-smoke", tmp_path, Results(tmp_path / "x.json"))
    assert outcome.code == 1 and "run mvp first" in outcome.message
    assert not (tmp_path / "x.json").exists()


def test_the_interval_of_a_rate_contains_it() -> None:
    low, high = judged({"step": 1, "success": 0.8, "return": 0, "cost": 0, "length": 1, "episodes": 50, "seed": 0})[
        "interval"
    ]
    # Wilson's interval for 40 of 50, from its closed form.
    assert (low, high) == pytest.approx((0.6696, 0.8876), abs=1e-4)


@pytest.mark.slow
def test_a_suite_runs_its_cells_and_a_second_call_only_reads(tmp_path: Path) -> None:
    words = ["bench-train", "--suite", "cube-single", "--only", "mvp", "mvp, then online", "--json"]
    words += ["--run", str(tmp_path / "runs"), "--results", str(tmp_path / "docs")]
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "onestride.deploy.cli", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert all("success" in state for state in json.loads(done.stdout).values())
    offline, online = json.loads((tmp_path / "docs" / "cube-single.json").read_text())["cells"]
    assert offline["candidates"]["1"]["episodes"] == offline["offline"]["episodes"]
    assert online["online"] is not None
    assert "not run" in (tmp_path / "docs" / "cube-single-cpu-smoke.md").read_text()

"""Budgets, comparisons, the page and the table: what is made of a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_reports import figures, full_tick, paced, report, variant

from onestride.deploy.bench.budgets import STAGES, STATISTICS, Budget, over_budget, parse_budget
from onestride.deploy.bench.compare import changes, differences
from onestride.deploy.bench.page import build_page
from onestride.deploy.bench.report import FORMAT, Power, read_report
from onestride.deploy.bench.table import HEAD, table_of
from onestride.deploy.cli import main
from onestride.hardware.errors import OneStrideError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("p99=500us", Budget("policy", "p99", 500.0)),
        ("filters.p50=60us", Budget("filters", "p50", 60.0)),
        ("tick.p99.9=1ms", Budget("tick", "p99.9", 1000.0)),
        ("wakeup.max=0.5s", Budget("wakeup", "max", 500_000.0)),
    ],
)
def test_a_budget_as_it_is_written(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p99=500", "with us, ms or s"),
        ("p99", "with us, ms or s"),
        ("lunch.p99=1ms", "stage of a budget.*available: .*filters"),
        ("p42=1ms", "statistic of a budget.*available: .*p99.9"),
    ],
)
def test_a_budget_written_otherwise(text, said):
    with pytest.raises(OneStrideError, match=said):
        parse_budget(text)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_every_budget_can_be_judged(stage, statistic):
    measured = report(full_tick=full_tick())
    assert over_budget(measured, Budget(stage, statistic, 1e9)) == [] or stage in ("observe", "publish")


def test_each_variant_has_to_keep_the_budget():
    measured = report(variant(p50=40.0), variant("int8", p50=90.0))
    assert over_budget(measured, parse_budget("p50=90us")) == []
    (line,) = over_budget(measured, parse_budget("p50=89us"))
    assert line == "CPUExecutionProvider int8, NFE 1: expected policy.p50 <= 89 µs, got 90 µs"
    assert len(over_budget(measured, parse_budget("p99=70us"))) == 2


def test_a_stage_of_the_tick_is_judged_there_and_missed_where_there_is_none():
    assert over_budget(report(full_tick=full_tick(filters=60.0)), parse_budget("filters.p50=60us")) == []
    (line,) = over_budget(report(full_tick=full_tick(filters=61.0)), parse_budget("filters.p50=60us"))
    assert line.startswith("full tick: expected filters.p50")
    (line,) = over_budget(report(), parse_budget("tick.p99=1ms"))
    assert line.endswith("not measured: the policy names no robot")


def test_changes_are_ratios_of_the_same_stage_of_the_same_way():
    earlier = report(variant(p50=40.0), variant("fp16"), full_tick=full_tick(50.0))
    later = report(variant(p50=60.0), variant("int8"), full_tick=full_tick(25.0))
    found = {one.what: one for one in changes(earlier, later)}
    assert found["CPUExecutionProvider fp32, NFE 1: policy"].p50 == 1.5
    assert found["full tick on ur5e_2f85: filters"].p50 == 0.5
    assert not any("fp16" in what or "int8" in what for what in found)


def test_differences_say_what_is_not_like_for_like():
    assert differences(report(), report()) == []
    assert differences(report(), report(device="another", busy=2)) == [
        "device: a board before, another now",
        "busy neighbours: 0 before, 2 now",
    ]


def test_a_report_survives_its_file(tmp_path):
    measured = report(variant(), full_tick=full_tick())
    (tmp_path / "r.json").write_text(measured.model_dump_json(indent=2))
    assert read_report(tmp_path / "r.json") == measured
    assert json.loads((tmp_path / "r.json").read_text())["format"] == FORMAT


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 2}', '{"format": 2, "variants": []}'])
def test_what_is_no_report(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(OneStrideError, match=r"r\.json: expected"):
        read_report(tmp_path / "r.json")


def test_the_page_needs_nothing_else_and_says_what_was_skipped():
    page = build_page(report(variant(error=0.5), full_tick=full_tick(), device="<script>alert(1)</script>"))
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "<script" not in page and "http" not in page and "&lt;script&gt;" in page
    assert 'class="bad"' in page  # the error is beyond its tolerance
    assert "the policy names no robot" in page
    assert "filters 50" in page  # the bar names its longer parts


def test_the_table_has_a_row_for_each_way_and_the_devices_in_order(tmp_path):
    power = Power(
        samples=3, mean_mw={"VDD_IN": 7250.0, "VDD_SOC": 2000.0}, max_mw={"VDD_IN": 9000.0, "VDD_SOC": 2500.0}
    )
    here = {
        "b": report(
            variant(p50=40.0), variant("int8", p50=20.0), device="Orin", power=power, full_tick=full_tick(90.0)
        ),
        "a": report(variant(p50=80.0), device="Zynq"),
        "c": report(variant(p50=70.0), device="A | board\n<b>"),
    }
    for name, measured in here.items():
        (tmp_path / f"{name}.json").write_text(measured.model_dump_json())
    head, line, *rows = table_of(tmp_path).splitlines()
    assert head.count("|") == line.count("|") == len(HEAD) + 1
    cells = [[cell.strip() for cell in row.split(" | ")] for row in rows]
    assert [row[0].lstrip("| ") for row in cells] == ["A \\| board \\<b\\>", "Orin", "Orin", "Zynq"]
    orin = cells[1]
    assert (orin[4], orin[6], orin[9], orin[10], orin[12], orin[13]) == ("fp32", "40", "1.96%", "190", "7.2", "0.1")
    assert cells[2][10] == "–"  # the tick was measured with the first way only


def test_the_table_command(tmp_path, capsys):
    (tmp_path / "r.json").write_text(report().model_dump_json())
    assert main(["bench", "--table", str(tmp_path)]) == 0
    assert "| a board |" in capsys.readouterr().out
    assert main(["bench", "--table", str(tmp_path / "none")]) == 1
    assert "expected JSON reports" in capsys.readouterr().err


def test_the_table_in_the_docs_is_that_of_the_reports_beside_it():
    folder = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "devices"
    assert (folder / "README.md").read_text(encoding="utf-8").endswith(f"\n\n{table_of(folder)}")


def test_series_at_one_rate_are_named_by_it():
    assert paced({"policy": figures(1.0)}).rate_hz == 200.0
    faster = variant().model_copy(update={"paced": paced({}).model_copy(update={"rate_hz": 500.0})})
    assert differences(report(), report(faster)) == ["rate: (200.0,) before, (500.0,) now"]

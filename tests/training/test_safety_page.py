"""The safety report with its closed loop, and the page that shows it."""

from __future__ import annotations

import html
import re

import pytest
from policy_samples import cube_contract, sample_graph, signed

from onestride.deploy.certify.report import SafetyReport
from onestride.deploy.cli import main


@pytest.fixture(scope="module")
def folder(cube_scene, tmp_path_factory):
    """One episode of each kind on the plant, behind the chain of the robot."""
    pytest.importorskip("onnx", reason="needs the extra `train`")
    path, contract = tmp_path_factory.mktemp("certified"), cube_contract()
    (path / "policy.onnx").write_bytes(signed(sample_graph(contract), contract))
    options = ["--scene", str(cube_scene.folder), "--episodes", "1", "--rollouts", "1", "--seconds", "0.5"]
    assert main(["certify", str(path / "policy.onnx"), "-o", str(path), *options]) == 0
    return path


@pytest.fixture(scope="module")
def report(folder) -> SafetyReport:
    return SafetyReport.model_validate_json((folder / "safety.json").read_bytes())


def test_the_plant_was_driven_three_ways(report):
    assert [one.name for one in report.plant] == ["policy", "noisy observation", "outward at full speed"]
    assert all(one.commands.ticks > 0 for one in report.plant)
    adversary = report.plant[-1]
    assert adversary.commands.by_rows > 0.2, "an adversary that is not resisted is none"
    assert adversary.joint_excess <= 0.0087, "half a degree"


def test_a_policy_that_never_moves_much_is_told_from_the_adversary(report):
    first, _, adversary = report.plant
    assert first.commands.active != adversary.commands.active


def test_page_shows_all_of_it_and_needs_nothing_else(folder, report):
    page = (folder / "safety.html").read_text()
    assert not re.search(r"(?:src|href)=\"https?:", page)
    assert "<b>simulated</b>" in page
    assert page.count("<svg") >= 6
    for claim in report.claims:
        assert claim.name in page
        assert html.escape(claim.claim) in page
    for line in report.not_claimed:
        assert html.escape(line) in page
    for one in (*(one.result for one in report.rollouts), *(one.commands for one in report.plant)):
        assert f"<td>{one.name}</td><td>{one.ticks}</td>" in page


def test_page_of_a_failure_says_why(report):
    from onestride.training.safety_page import build_page

    page = build_page(report.model_copy(update={"passed": False, "failures": ("<joints> violated",)}))
    assert "Not certified" in page
    assert "&lt;joints&gt; violated" in page

"""`onestride certify` on legs: the shipped chain passes on the plant, and what is broken on purpose is caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from legged_samples import legged_contract
from policy_samples import sample_graph, signed

pytest.importorskip("robosuite_models", reason="needs the model of the Go2")

from onestride.deploy.certify import legs
from onestride.deploy.certify.certify import Certification, Request
from onestride.deploy.certify.plant_runs import MeteredPlant
from onestride.deploy.certify.report import SafetyReport
from onestride.deploy.cli import main
from onestride.deploy.contract import RobotTerms
from onestride.deploy.safety.impedance import ImpedanceLimits
from onestride.deploy.safety.speed import Overspeed
from onestride.deploy.safety.tilt import Tilt
from onestride.deploy.safety.types import Box, Certified
from onestride.hardware.description import load_robot
from onestride.hardware.models import robot_scene
from onestride.hardware.scene import Scene

ROBOT = load_robot("go2")
CONTRACT = legged_contract(
    joints=list(ROBOT.joint_names),
    pose=[joint.default for joint in ROBOT.joints],
    robot=RobotTerms.of(ROBOT).model_dump(mode="json"),
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    return robot_scene(ROBOT, folder=tmp_path_factory.mktemp("go2") / "scene")


@pytest.fixture
def attacked(scene, monkeypatch):
    """The report of some attacks on the chain as it is now; each ends after so many stops."""

    def make(stops: int = 1) -> SafetyReport:
        monkeypatch.setattr(legs, "STOPS", stops)
        request = Request(Path("none.onnx"), "none", CONTRACT, ROBOT, scene, rollouts=1, seconds=0.8)
        return Certification(request).gather()

    return make


def broken(report: SafetyReport) -> set[str]:
    return {rule for one in report.rollouts for rule, count in one.result.violations.items() if count}


def test_the_shipped_chain_passes(attacked):
    report = attacked(2)
    assert report.passed, report.failures
    claims = {one.name: one for one in report.claims}
    assert {"finite", "tilt", "frozen_imu", "projection.impedance", "safe_stop"} <= set(claims)
    for name in ("tilt", "projection.impedance", "safe_stop"):
        assert claims[name].held > 0
        assert claims[name].violations == 0
    assert "damp" in claims["safe_stop"].assumes
    assert any(line.startswith("balance:") for line in report.not_claimed)
    results = [one.result for one in report.rollouts]
    assert min(one.margins.get("effort", 1.0) for one in results) < 0.01, "an attack that stays far below was no attack"
    assert any("tilt" in reason or "moves at" in reason for one in results for reason in one.reasons)
    assert "the attacks above ran on the plant" in report.plant_skipped


def test_targets_that_ask_for_too_much_effort_are_caught(attacked, monkeypatch):
    stated = ImpedanceLimits.rows

    def wide(source, motion):
        position, effort = stated(source, motion)
        assert isinstance(effort, Box)
        return position, Box("effort", effort.low - 0.5, effort.high + 0.5)

    monkeypatch.setattr(ImpedanceLimits, "rows", wide)
    report = attacked()
    assert not report.passed
    assert broken(report) == {"impedance.effort"}


def test_targets_beyond_the_position_limits_are_caught(attacked, monkeypatch):
    stated = ImpedanceLimits.rows
    monkeypatch.setattr(ImpedanceLimits, "rows", lambda source, motion: stated(source, motion)[1:])
    assert "impedance.position" in broken(attacked())


def test_a_robot_that_is_driven_on_while_it_lies_is_caught(attacked, monkeypatch):
    for guard in (Tilt, Overspeed):
        monkeypatch.setattr(guard, "certify", lambda _guard, _state, nominal: Certified(nominal))
    assert "tilt" in broken(attacked())


def test_a_stop_that_drives_is_caught(attacked, monkeypatch):
    monkeypatch.setattr(MeteredPlant, "damp", lambda plant: plant.command(np.array(ROBOT.position_limits[1])))
    assert "safe_stop" in broken(attacked())


def test_the_command_writes_a_page(scene, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra `train`")
    policy = tmp_path / "walk.onnx"
    policy.write_bytes(signed(sample_graph(CONTRACT), CONTRACT))
    folder = str(scene.model_path.parent)
    options = ["--scene", folder, "--rollouts", "1", "--seconds", "0.3"]
    assert main(["certify", str(policy), "-o", str(tmp_path), *options]) == 0
    report = SafetyReport.model_validate_json((tmp_path / "safety.json").read_bytes())
    assert report.robot["id"] == "go2"
    pytest.importorskip("matplotlib", reason="the page needs it")
    assert "projection.impedance" in (tmp_path / "safety.html").read_text(encoding="utf-8")

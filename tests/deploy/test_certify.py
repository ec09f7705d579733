"""`onestride certify`: sound chains pass, and a chain that is broken on purpose is caught by what it sends."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from limited_arm import limited_content, limited_ur5e

from onestride.deploy.certify.attacks import ATTACKS
from onestride.deploy.certify.batches import attack_joints, attack_tank
from onestride.deploy.certify.certify import Certification, Request
from onestride.deploy.certify.claims import FILTERS as STATED_FILTERS
from onestride.deploy.certify.claims import ROWS as STATED_ROWS
from onestride.deploy.certify.claims import claims_of, not_claimed
from onestride.deploy.certify.limits import JointBounds, uses
from onestride.deploy.certify.report import Played, SafetyReport
from onestride.deploy.certify.trace import Judge, Trace
from onestride.deploy.cli import main
from onestride.deploy.safety import build
from onestride.deploy.safety.joints import JointLimits
from onestride.deploy.safety.stop import DecelerateAndHold
from onestride.deploy.safety.tank import make_tank
from onestride.deploy.safety.types import Box, Certified, Motion
from onestride.hardware.description import RobotDescription, load_robot
from onestride.hardware.models import robot_scene
from onestride.hardware.safety.chain import ProjectionFilter
from onestride.hardware.safety.energy import TankRow

PERIOD = 0.005
SHORT = ["--rollouts", "1", "--seconds", "0.6"]
ARM = [joint.name for joint in load_robot("ur5e_2f85").joints[:6]]
WORKSPACE = {"row": "workspace", "frames": {"pinch": 0.02}, "inside": [[0.1, -0.6, 0.0], [0.75, 0.6, 0.8]]}
TANK = {"row": "tank", "ports": [{"name": "arm", "joints": ARM, "initial": 20.0, "minimum": 1.0, "capacity": 20.0}]}
#: What `onestride certificate commanded_joint` writes, in short numbers: level and decay are a little below its own.
CERTIFICATE = {
    "claim": "lyapunov",
    "system": "commanded_joint",
    "states": ["distance to the goal [rad]", "speed of the command [rad/s]"],
    "period": PERIOD,
    "domain": [1.0, 2.0],
    "limit": [8.0],
    "function": {"form": "quadratic", "matrix": [[115.38759421, 27.99727326], [27.99727326, 16.20269003]]},
    "level": 37.0,
    "decay": 0.008,
    "proof": {"method": "algebra", "share": 0.45},
}
LYAPUNOV, BARRIER = ({"row": row, "certificate": CERTIFICATE} for row in ("lyapunov", "barrier"))


def robot_with(*rows: dict[str, object], **changes: object) -> dict[str, Any]:
    """The UR5e's YAML with further rows in its projection, and other limits for its arm's joints."""
    content = limited_content()
    content["safety"][-1]["rows"] += list(rows)
    for joint in content["joints"][:6]:
        joint.update(changes)
    return content


@pytest.fixture(scope="module")
def robot() -> RobotDescription:
    """With every limit that can be attacked."""
    return limited_ur5e()


def certified(policy: Path, folder: Path, *options: str) -> tuple[int, SafetyReport]:
    """The command's exit code, and the report that it wrote."""
    code = main(["certify", str(policy), "-o", str(folder), *SHORT, *options])
    return code, SafetyReport.model_validate_json((folder / "safety.json").read_bytes())


def certify(contract, robot: RobotDescription, scene=None) -> SafetyReport:
    """Without episodes on the plant: the file of the policy is not needed."""
    request = Request(Path("none.onnx"), "none", contract, robot, scene, rollouts=1, seconds=0.6, episodes=0)
    return Certification(request).gather()


# What is sound


@pytest.fixture(scope="module")
def sound(sample_policy, tmp_path_factory) -> Path:
    """The folder of a report about the shipped robot."""
    folder = tmp_path_factory.mktemp("sound")
    assert main(["certify", str(sample_policy), "-o", str(folder), *SHORT]) == 0
    return folder


def test_a_sound_chain_passes(sound):
    text = (sound / "safety.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the report"))
    report = SafetyReport.model_validate_json(text)
    assert (report.passed, report.failures, report.simulated) == (True, (), True)
    assert {one.result.name for one in report.rollouts} == set(ATTACKS) - {"nearest"}
    joints = next(claim for claim in report.claims if claim.name == "projection.joints")
    assert joints.level == "proved"
    assert joints.held > 100_000
    assert any(line.startswith("energy: no tank") for line in report.not_claimed)
    assert report.plant_skipped


def test_the_attacks_are_attacks(contract, robot):
    """They use the limits up, they are refused, and the robot is stopped again and again."""
    report = certify(changed_for(contract, robot), robot)
    found = {one.result.name: one.result for one in report.rollouts}
    for name in ("random targets", "outward"):
        assert min(found[name].used[rule] for rule in ("velocity", "acceleration", "jerk")) > 0.5, name
    assert found["not finite"].refusals > 0
    assert all("not finite" in reason for reason in found["not finite"].reasons)
    assert report.joints is not None
    assert min(report.joints.used.values()) > 0.999


def test_json_is_the_report_and_nothing_else(sample_policy, tmp_path, capsys):
    code = main(["certify", str(sample_policy), "-o", str(tmp_path), *SHORT, "--json"])
    report = SafetyReport.model_validate_json(capsys.readouterr().out)
    assert code == 0
    assert report == SafetyReport.model_validate_json((tmp_path / "safety.json").read_bytes())


def test_schema_names_every_number():
    schema = SafetyReport.model_json_schema()
    assert {"claims", "not_claimed", "rollouts", "energy", "certificates", "plant"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_every_filter_and_row_has_its_statement():
    assert set(STATED_FILTERS) == set(build.FILTERS) - {"approach"}, "approach claims nothing"
    assert set(STATED_ROWS) == set(build.ROWS)


def test_what_is_declared_is_no_longer_not_claimed(contract):
    plain, full = load_robot("ur5e_2f85"), RobotDescription.model_validate(robot_with(TANK, WORKSPACE))
    assert set(not_claimed(full, contract)) < set(not_claimed(plain, contract))
    assert {"projection.tank", "projection.workspace"} < {claim.name for claim in claims_of(full, contract)}


def test_a_chain_with_every_row_passes(contract, cube_scene):
    robot = RobotDescription.model_validate(robot_with(TANK, WORKSPACE, LYAPUNOV, BARRIER))
    report = certify(changed_for(contract, robot), robot, cube_scene)
    assert report.failures == ()
    assert {kept.name for kept in report.certificates} == {"lyapunov", "barrier"}
    assert "nearest" in {one.result.name for one in report.rollouts}
    held = {claim.name: claim.held for claim in report.claims}
    assert all(held[f"projection.{row}"] > 0 for row in ("joints", "tank", "workspace", "lyapunov", "barrier"))


def changed_for(contract, robot: RobotDescription):
    """A contract that was made for this robot."""
    terms = type(contract.robot).of(robot)
    return contract.model_copy(update={"robot": terms})


# What is broken on purpose


def test_limits_beyond_those_of_the_contract(sample_policy, tmp_path, capsys):
    robot = tmp_path / "fast.yaml"
    robot.write_text(yaml.safe_dump(robot_with(velocity=4.0)))
    code, report = certified(sample_policy, tmp_path, "--robot", str(robot))
    assert code == 1
    assert not report.passed
    assert any(line.startswith("robot.velocity: contract has") for line in report.differences)
    assert any("joints.velocity violated" in line for line in report.failures)
    assert "FAIL" in capsys.readouterr().out


def test_a_chain_without_the_joints_row(contract, sample_policy, tmp_path, capsys):
    content = robot_with()
    content["safety"][-1]["rows"] = []
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["certify", str(sample_policy), "--robot", str(path), "-o", str(tmp_path)]) == 1
    assert "expected the row joints in the projection" in capsys.readouterr().err
    robot = load_robot("ur5e_2f85")
    empty = tuple(
        ProjectionFilter.model_construct(rows=()) if terms.filter == "projection" else terms for terms in robot.safety
    )
    report = certify(contract, robot.model_copy(update={"safety": empty}))
    assert any("joints.position violated" in line for line in report.failures)


class Silent:
    """A source that asks for nothing."""

    name = "silent"

    def reset(self, motion: Motion) -> None: ...

    def observe(self, motion: Motion) -> None: ...

    def rows(self, motion: Motion) -> tuple[()]:  # noqa: ARG002
        return ()

    def sent(self, motion: Motion, command: np.ndarray) -> None: ...

    def readings(self) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("row", [WORKSPACE, LYAPUNOV, BARRIER], ids=lambda row: row["row"])
def test_a_row_that_is_declared_and_asks_for_nothing(contract, cube_scene, monkeypatch, row):
    robot = RobotDescription.model_validate(robot_with(row))
    monkeypatch.setitem(build.ROWS, row["row"], lambda *_: Silent())
    report = certify(changed_for(contract, robot), robot, cube_scene)
    claim = next(claim for claim in report.claims if claim.name == f"projection.{row['row']}")
    assert claim.violations > 0
    assert any(f"{row['row']} violated" in line for line in report.failures)


def test_a_filter_that_lets_anything_pass(contract, robot, monkeypatch):
    class Careless(JointLimits):
        def rows(self, motion: Motion):
            return tuple(box for box in super().rows(motion) if not isinstance(box, Box) or box.name != "jerk")

    monkeypatch.setitem(build.ROWS, "joints", lambda _, parts: Careless(parts.robot))
    monkeypatch.setitem(build.FILTERS, "approach", build.FILTERS["finite"])
    report = certify(changed_for(contract, robot), robot)
    assert any("joints.jerk violated" in line for line in report.failures)
    assert not any("joints.velocity violated" in line for line in report.failures)


# The judge, and attacks on rows alone


def test_a_stop_is_judged_by_its_deceleration_even_after_yields(contract):
    """The FR3 goes to its limit at 2 rad/s, as far as braking at once allows: ramping up leaves too little room."""
    fr3, period = load_robot("fr3"), 0.001
    judge = Judge(JointBounds.of(fr3, contract), {}, {}, deceleration=fr3.safe_stop.deceleration)
    home, upper = np.array([joint.default for joint in fr3.joints]), fr3.position_limits[1]
    towards, still = np.where(np.arange(len(home)) == 0, 2.0, 0.0), np.zeros_like(home)
    stop, trace = DecelerateAndHold(fr3, period), Trace(period, [np.where(towards > 0, upper - 0.3, home)])
    while upper[0] - trace.commands[-1][0] > 2.0**2 / (2 * 10) + 2 * period:
        trace.note(trace.commands[-1] + towards * period, Certified(home, active=("projection.joints.jerk.yielded",)))
    stop.begin(trace.commands[-1], towards, still)
    sound, dead = (replace(trace, commands=[*trace.commands], answers=[*trace.answers]) for _ in range(2))
    while not stop.at_rest:
        sound.note(stop.next(), None)
    dead.note(dead.commands[-1], None)
    assert not any(judge.violations(sound).values())
    assert uses(sound.sent, period, judge.bounds).used["jerk"][trace.stopping.size :].max() > 1.0
    broken = judge.violations(dead)
    assert (broken["safe_stop"], broken["joints.acceleration"], broken["joints.jerk"]) == (1, 1, 0)


def test_uses_of_commands_by_hand(robot, contract):
    """One joint, 0.1 s: a step of 0.2 rad from rest is 2 rad/s, 20 rad/s^2 and 200 rad/s^3, a stop after it -400."""
    home = np.array([joint.default for joint in robot.joints])
    moved = home.copy()
    moved[0] += 0.2
    found = uses(np.array([home, moved, moved]), 0.1, JointBounds.of(robot, contract))
    np.testing.assert_allclose(found.used["velocity"], [2 / 3.1416, 0.0])
    np.testing.assert_allclose(found.used["acceleration"], [20 / 40, 20 / 40])
    np.testing.assert_allclose(found.used["jerk"], [200 / 4000, 400 / 4000])
    assert not any(one.any() for one in found.beyond.values())


def test_the_strictest_limits_count(robot, contract):
    promised = contract.model_copy(update={"robot": contract.robot.model_copy(update={"velocity": (1.0,) * 7})})
    assert JointBounds.of(robot, promised).velocity.max() == 1.0
    assert JointBounds.of(robot, contract.model_copy(update={"robot": None})).velocity[0] == 3.1416


def test_corners_of_the_joints_rows(robot, contract):
    bounds = JointBounds.of(robot, contract)
    sound = attack_joints(robot, bounds, PERIOD, 64, 100, np.random.default_rng(0))
    assert (sound.violations, sound.empty) == (0, 0)
    tight = bounds._replace(acceleration=0.9 * bounds.acceleration)
    assert attack_joints(robot, tight, PERIOD, 64, 100, np.random.default_rng(0)).violations > 0


def test_a_tank_overdrawn_on_the_plant_is_counted_as_a_violation(contract):
    robot = RobotDescription.model_validate(robot_with(TANK))
    certification = Certification(Request(Path("none.onnx"), "none", changed_for(contract, robot), robot))
    tank = make_tank(TankRow.model_validate(TANK), robot)
    energy = attack_tank(tank, robot, PERIOD, 2, 2, np.random.default_rng(0))
    commands = certification.judge.attacked("policy", [])
    for most, violations in ((19.0, 0), (25.0, 1)):
        played = Played.model_construct(name="policy", commands=commands, energy={"arm": most})
        claims = {one.name: one for one in certification._claims((), None, energy, (played,))}
        assert claims["projection.tank"].violations == claims["projection"].violations == violations


# What it refuses


def test_missing_scene(sample_policy, tmp_path, capsys):
    assert main(["certify", str(sample_policy), "--scene", str(tmp_path / "no"), "-o", str(tmp_path)]) == 1
    assert "not a scene: expected" in capsys.readouterr().err


def test_rows_of_geometry_without_a_scene(sample_policy, tmp_path, capsys):
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(robot_with(WORKSPACE)))
    assert main(["certify", str(sample_policy), "--robot", str(path), "-o", str(tmp_path)]) == 1
    assert "rows of geometry need a model, expected --scene or --plant" in capsys.readouterr().err


def test_unknown_robot(sample_policy, tmp_path, capsys):
    assert main(["certify", str(sample_policy), "--robot", "r2d2", "-o", str(tmp_path)]) == 1
    assert "unknown robot: got 'r2d2', available: fr3, go1" in capsys.readouterr().err


def test_a_policy_of_an_arm_is_refused_on_legs(sample_policy, tmp_path, capsys, shared_data):
    scene = robot_scene("go1", shared_data / "policies/go1_joystick/go1_mjx_feetonly.xml", folder=tmp_path / "go1")
    options = ["--robot", "go1", "--scene", str(scene.model_path.parent), "-o", str(tmp_path / "out")]
    assert main(["certify", str(sample_policy), *options, "--rollouts", "1", "--seconds", "0.1"]) == 1
    said = capsys.readouterr().out
    assert "FAIL the policy does not fit: " in said
    assert "not certified" in said


def test_damaged_policy(sample_policy, tmp_path, capsys):
    data = bytearray(sample_policy.read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "damaged.onnx"
    path.write_bytes(bytes(data))
    assert main(["certify", str(path), "-o", str(tmp_path)]) == 1
    assert "damaged or changed after export" in capsys.readouterr().err
    assert not (tmp_path / "safety.json").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--rollouts", "0"], "expected rollouts >= 1 and episodes >= 0, got 0 and 2"),
        (["--episodes", "-1"], "expected rollouts >= 1 and episodes >= 0"),
        (["--seconds", "nan"], "expected seconds within 0.1 and 600"),
        (["--noise", "-1"], "expected noise within 0 and 10"),
    ],
)
def test_bad_settings(sample_policy, tmp_path, capsys, option, words):
    assert main(["certify", str(sample_policy), "-o", str(tmp_path), *option]) == 1
    assert words in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(sample_policy, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["certify", str(sample_policy), "-o", str(tmp_path / "file"), *SHORT]) == 1
    assert "expected to write the report" in capsys.readouterr().err


def test_the_page_on_safety_names_tests_that_exist():
    root = Path(__file__).parents[2]
    named = set(re.findall(r"`(test_\w+)`", (root / "docs" / "safety.md").read_text()))
    there = {
        name for path in root.glob("tests/**/test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 20
    assert named <= there, named - there

"""What other trainers write becomes a contract that sees and does the same, and whatever is ambiguous is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from foreign_samples import foreign_graph
from legged_samples import legged_measurement

from onestride.deploy.actions import ActionMapper
from onestride.deploy.cli import main
from onestride.deploy.contract import Contract
from onestride.deploy.foreign import load_policy
from onestride.deploy.importers import import_contract
from onestride.deploy.importers.drafting import as_yaml
from onestride.deploy.importers.names import Answers
from onestride.deploy.observe import Observer
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Inertial

pytest.importorskip("onnx", reason="needs the extra `train`")

ROBOT = load_robot("go2")
FORWARD: Any = SimpleNamespace(robot=ROBOT)
GAINS = {gain: [getattr(joint, gain) for joint in ROBOT.joints] for gain in ("stiffness", "damping")}

#: Isaac's order of the joints: all hips, all thighs, all calves; and the motor of each, by Unitree's order.
LEGS, PARTS = ("FL", "FR", "RL", "RR"), ("hip", "thigh", "calf")
ISAAC = [f"{leg}_{part}_joint" for part in PARTS for leg in LEGS]
MOTORS = [f"{leg}_{part}_joint" for leg in ("FR", "FL", "RR", "RL") for part in PARTS]
IDS = [MOTORS.index(name) for name in ISAAC]
POSE = [{"hip": 0.1, "thigh": 0.8, "calf": -1.5}[name.split("_")[1]] for name in ISAAC]


# unitree_rl_lab


def deployment() -> dict[str, Any]:
    """A `deploy.yaml` as unitree_rl_lab's exporter lays it out, of a blind walker with a history of 3."""

    def seen(size: int, scale: float = 1.0, **params: Any) -> dict[str, Any]:
        return {"params": params, "clip": None, "scale": [scale] * size, "history_length": 3}

    return {
        "joint_ids_map": IDS,
        "step_dt": 0.02,
        **GAINS,
        "default_joint_pos": POSE,
        "commands": {
            "base_velocity": {
                "ranges": {
                    "lin_vel_x": [-0.5, 1.0],
                    "lin_vel_y": [-0.4, 0.4],
                    "ang_vel_z": [-1.0, 1.0],
                    "heading": None,
                }
            }
        },
        "actions": {
            "JointPositionAction": {
                "clip": [[-100.0, 100.0]] * 12,
                "joint_names": [".*"],
                "scale": [0.25] * 12,
                "offset": POSE,
                "joint_ids": None,
            }
        },
        "observations": {
            "base_ang_vel": seen(3, 0.2),
            "projected_gravity": seen(3),
            "velocity_commands": seen(3, command_name="base_velocity"),
            "joint_pos_rel": seen(12),
            "joint_vel_rel": seen(12, 0.05),
            "last_action": seen(12),
        },
    }


@pytest.fixture
def imported(tmp_path: Path):
    """Imports a deployment, edited first."""

    def run(change=lambda _: None, answers: Answers | None = None, inputs: int = 135) -> Contract:
        content = yaml.safe_load(yaml.safe_dump(deployment(), sort_keys=False))
        change(content)
        policy, file = tmp_path / "policy.onnx", tmp_path / "deploy.yaml"
        policy.write_bytes(foreign_graph(inputs, 12))
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return import_contract(policy, ROBOT, answers or Answers(history_order="term_major"), file)

    return run


def test_a_deployment_sees_what_its_controller_would(imported):
    """The reference follows the published controller: by motor, clipped, scaled, term by term, oldest first."""
    contract = imported()
    observer, rng, past = Observer(contract, FORWARD), np.random.default_rng(0), []
    for _ in range(5):
        q, dq, action = rng.normal(size=(3, 12))
        w, command = rng.normal(size=(2, 3))
        imu = Inertial(np.array([1.0, 0.0, 0.0, 0.0]), w, np.zeros(3))
        measurement = legged_measurement(position=q, velocity=dq, imu=imu, vectors={"velocity_command": command})
        observer.acted(action)
        motor = {name: index for index, name in enumerate(ROBOT.joint_names)}
        by_policy = [motor[name] for name in ISAAC]
        asked = np.clip(command, [-0.5, -0.4, -1.0], [1.0, 0.4, 1.0])
        terms = [0.2 * w, np.array([0, 0, -1.0]), asked, q[by_policy] - POSE, 0.05 * dq[by_policy], action]
        past = [*past, terms] if past else [terms] * 3
        expected = np.concatenate([past[step][index] for index in range(6) for step in (-3, -2, -1)])
        assert observer.build(measurement) == pytest.approx(expected)


def test_a_deployment_moves_the_joints_that_its_motors_are(imported):
    mapper = ActionMapper(imported(), FORWARD)
    action = np.zeros(12)
    action[ISAAC.index("RR_calf_joint")] = 0.4
    target = dict(zip(ROBOT.joint_names, mapper.target(legged_measurement(), action, np.zeros(12)), strict=True))
    expected = dict(zip(ISAAC, POSE, strict=True)) | {"RR_calf_joint": -1.5 + 0.25 * 0.4}
    assert target == pytest.approx(expected)


def test_rates_follow_the_deployment_and_the_robot(imported):
    execution = imported().execution
    assert (execution.policy_rate, execution.control_rate, execution.interpolation) == (50.0, 200.0, "hold")
    asked = imported(answers=Answers(history_order="term_major", control_rate=500.0))
    assert asked.execution.control_rate == 500.0


def test_what_the_controller_says_of_the_history_is_taken(imported):
    for flag, order in ((True, "step_major"), (False, "term_major")):
        contract = imported(lambda c, flag=flag: c["observations"].update(use_gym_history=flag), Answers())
        assert (contract.history, contract.history_order) == (3, order)


def test_clips_move_behind_the_scale(imported):
    contract = imported(lambda c: c["observations"]["base_ang_vel"].update(clip=[-10.0, 5.0]))
    assert contract.observations[0].clip == pytest.approx((-2.0, 1.0))

    def scaled_first(content):
        content["observations"]["base_ang_vel"]["clip"] = [-10.0, 5.0]
        content["observations"]["scale_first"] = True

    assert imported(scaled_first).observations[0].clip == (-10.0, 5.0)


def of(content, *path):
    for key in path:
        content = content[key]
    return content


AMBIGUOUS = {
    "history layout": (lambda c: c, "the layout of the history is not stated: .*--history-order", Answers()),
    "unknown observation": (
        lambda c: of(c, "observations").update(gait_phase={"scale": None, "history_length": 3}),
        "unknown observation of .*deploy.yaml: got 'gait_phase', available: base_ang_vel",
    ),
    "absolute positions": (
        lambda c: of(c, "observations").update(joint_pos=of(c, "observations").pop("joint_pos_rel")),
        "unknown observation .*'joint_pos', available",
    ),
    "unequal histories": (
        lambda c: of(c, "observations", "last_action").update(history_length=1),
        r"history_length: expected the same for every observation, got \[1, 3\]",
    ),
    "parameters": (
        lambda c: of(c, "observations", "joint_pos_rel").update(params={"asset_cfg": {"joint_ids": [0]}}),
        "observation joint_pos_rel: params asset_cfg means nothing here",
    ),
    "gains": (
        lambda c: of(c, "stiffness").__setitem__(4, 20.0),
        "stiffness of FL_thigh_joint: trained with 20, robot go2 has 35; .*--robot FILE.yaml",
    ),
    "map": (lambda c: of(c, "joint_ids_map").__setitem__(0, 1), "joint_ids_map: expected the motors 0 to 11 once each"),
    "other action": (
        lambda c: c.update(actions={"JointVelocityAction": of(c, "actions", "JointPositionAction")}),
        "JointPositionAction: Field required.*JointVelocityAction: Extra inputs",
    ),
    "some joints": (
        lambda c: of(c, "actions", "JointPositionAction").update(joint_ids=[0, 1, 2]),
        r"joint_ids: expected null, for all joints, got \[0, 1, 2\]",
    ),
    "target clip": (
        lambda c: of(c, "actions", "JointPositionAction").update(clip=[[-1.0, 1.0]] * 12),
        r"clip: targets of FL_hip_joint are clipped to \[-1.0, 1.0\], inside the limits",
    ),
    "unequal scales under a clip": (
        lambda c: of(c, "observations", "base_ang_vel").update(clip=[-1.0, 1.0], scale=[0.2, 0.2, 0.3]),
        "base_ang_vel is clipped and then scaled by .0.2, 0.3.: expected one positive scale",
    ),
    "no ranges": (lambda c: of(c, "commands").pop("base_velocity"), "commands.base_velocity: Field required"),
    "no order": (lambda c: c.pop("joint_ids_map"), "joint_ids_map: Field required"),
    "misspelt": (lambda c: c.update(stifness=[1.0]), "stifness: Extra inputs are not permitted"),
    "groups": (
        lambda c: c.update(observations={"policy": of(c, "observations")}),
        "observations.policy",
    ),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_an_ambiguous_deployment_is_refused_by_name(imported, case):
    change, message, *answers = AMBIGUOUS[case]
    with pytest.raises(OneStrideError, match=f"(?s){message}"):
        imported(change, *answers)


def test_a_description_of_another_graph_is_refused(imported):
    with pytest.raises(OneStrideError, match=r"3 x 45 observations and 12 actions .* obs takes 45 numbers"):
        imported(inputs=45)


# rsl_rl and mjlab


def csv(values, decimals: int = 3) -> str:
    """As those exporters join lists: numbers to three decimals, lists within by semicolons."""
    if isinstance(values, list | tuple):
        return ",".join(csv(v).replace(",", ";") if isinstance(v, list) else csv(v) for v in values)
    return values if isinstance(values, str) else f"{values:.{decimals}f}"


NAMES = ["base_ang_vel", "projected_gravity", "joint_pos", "joint_vel", "actions", "command"]


def metadata(**changes: Any) -> list[tuple[str, str]]:
    """Metadata of a blind mjlab walker; a change to None leaves the key out."""
    found = {
        "run_path": "runs/walk",
        "joint_names": ISAAC,
        "joint_stiffness": GAINS["stiffness"],
        "joint_damping": GAINS["damping"],
        "default_joint_pos": POSE,
        "command_names": ["twist"],
        "observation_names": NAMES,
        "observation_terms_scale": [[0.2, 0.2, 0.2], 1.0, 1.0, 0.05, 1.0, 1.0],
        "observation_terms_flatten_history_dim": [True] * 6,
        "observation_terms_history_length": [0] * 6,
        "observation_terms_clip": [[-np.inf, np.inf]] * 5 + [[-2.0, 2.0]],
        "action_scale": [0.25] * 12,
        **changes,
    }
    return [(key, csv(value)) for key, value in found.items() if value is not None]


ANSWERS = Answers(policy_rate=50.0, command=(1.0, 0.5, 1.0))


def from_metadata(tmp_path: Path, entries: list[tuple[str, str]], answers: Answers = ANSWERS, inputs=45, **graph):
    policy = tmp_path / "policy.onnx"
    policy.write_bytes(foreign_graph(inputs, 12, metadata=entries, **graph))
    return import_contract(policy, ROBOT, answers)


def test_metadata_sees_and_does_what_its_environment_did(tmp_path):
    contract, rng = from_metadata(tmp_path, metadata()), np.random.default_rng(1)
    q, dq, action = rng.normal(size=(3, 12))
    w, command = np.array([0.3, -0.1, 0.2]), np.array([0.4, -0.2, 5.0])
    imu = Inertial(np.array([1.0, 0.0, 0.0, 0.0]), w, np.zeros(3))
    measurement = legged_measurement(position=q, velocity=dq, imu=imu, vectors={"velocity_command": command})
    observer = Observer(contract, FORWARD)
    observer.acted(action)
    order = [ROBOT.joint_names.index(name) for name in ISAAC]
    expected = [0.2 * w, [0, 0, -1], q[order] - POSE, 0.05 * dq[order], action, [0.4, -0.2, 1.0]]
    assert observer.build(measurement) == pytest.approx(np.concatenate(expected))
    moved = ActionMapper(contract, FORWARD).target(measurement, np.full(12, 0.1), np.zeros(12))
    assert moved[order] == pytest.approx(np.array(POSE) + 0.025)


def test_a_flattened_history_is_term_major(tmp_path):
    contract = from_metadata(tmp_path, metadata(observation_terms_history_length=[4] * 6), inputs=180)
    assert (contract.history, contract.history_order) == (4, "term_major")


def test_older_metadata_needs_a_persons_word(tmp_path):
    old = dict.fromkeys(key for key, _ in metadata() if key.startswith("observation_terms"))
    entries = metadata(**old, action_scale="0.25", command_names=["base_velocity"])
    with pytest.raises(OneStrideError, match="does not say how observations are scaled or clipped; if not: --unscaled"):
        from_metadata(tmp_path, entries)
    answers = Answers(policy_rate=50.0, command=(1.0, 0.5, 1.0), unscaled=True)
    contract = from_metadata(tmp_path, entries, answers)
    assert [term.scale for term in contract.observations] == [1.0] * 6
    assert contract.actions[0].scale == 0.25
    with pytest.raises(OneStrideError, match="does not say how many steps of observation the policy sees"):
        from_metadata(tmp_path, entries, answers, inputs=90)


def test_the_offset_of_the_action_is_taken_where_it_is_said(tmp_path):
    contract = from_metadata(tmp_path, metadata(action_offset=[0.0] * 12))
    assert contract.actions[0].offset == (0.0,) * 12
    assert contract.observations[2].offset == pytest.approx(POSE)


OPEN = {
    "rate": ({}, "metadata says no rate: expected --policy-rate", Answers(command=(1.0, 1.0, 1.0))),
    "command": ({}, "expected --command-limits VX VY WZ", Answers(policy_rate=50.0)),
    "base velocity": (
        {"observation_names": ["base_lin_vel", *NAMES[1:]]},
        "which no sensor measures: expected --base-velocity estimator or odometry",
    ),
    "no joints": ({"joint_names": None}, "expected the key joint_names, got run_path"),
    "no order": ({"observation_names": None}, "expected the key observation_names"),
    "unknown observation": ({"observation_names": ["height_scan", *NAMES[1:]]}, "got 'height_scan', available"),
    "another robot": ({"joint_names": [f"j{i}" for i in range(12)]}, "joint_names j0, j1.*robot go2 has"),
    "a motion": ({"command_names": ["motion"]}, "command_names: expected base_velocity or twist, got motion"),
    "gains": (
        {"joint_damping": [0.5] * 11 + [1.0]},
        r"damping of RR_calf_joint: trained with 1\.000, robot go2 has 0\.500",
    ),
    "counts": ({"joint_stiffness": [35.0] * 3}, "metadata joint_stiffness: expected 12 numbers, got 3"),
    "words": ({"default_joint_pos": ["home"] * 12}, "metadata default_joint_pos: expected numbers, got 'home,"),
    "history": (
        {"observation_terms_history_length": [1, 1, 2, 2, 2, 1]},
        r"expected the same for every observation, got \[1, 2\]",
    ),
    "history not flat": (
        {"observation_terms_history_length": [3] * 6, "observation_terms_flatten_history_dim": [0] * 6},
        "the layout of the history is not stated",
    ),
}


@pytest.mark.parametrize("case", OPEN)
def test_what_metadata_leaves_open_is_asked_for_by_name(tmp_path, case):
    changes, message, *answers = OPEN[case]
    with pytest.raises(OneStrideError, match=message):
        from_metadata(tmp_path, metadata(**changes), *answers)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(OneStrideError, match="metadata key 'joint_names' stands twice; refusing to guess"):
        from_metadata(tmp_path, [*metadata(), ("joint_names", "others")])


@pytest.mark.parametrize("further", [("time_step",), ("h_in", "c_in")])
def test_a_graph_of_several_inputs_is_refused(tmp_path, further):
    with pytest.raises(OneStrideError, match=f"expected a graph of one input, got .*{further[0]}"):
        from_metadata(tmp_path, metadata(), further=further)


# The file


@pytest.mark.parametrize("history", [1, 3])
def test_the_file_says_the_same_contract(tmp_path, history):
    contract = from_metadata(
        tmp_path, metadata(observation_terms_history_length=[history] * 6), inputs=45 * history, batch="batch"
    )
    file = tmp_path / "contract.yaml"
    file.write_text(as_yaml(contract, "policy.onnx"))
    assert load_policy(tmp_path / "policy.onnx", file)[0] == contract


def test_the_command_writes_a_file_that_check_accepts(tmp_path, capsys):
    policy, file, target = (str(tmp_path / name) for name in ("policy.onnx", "deploy.yaml", "contract.yaml"))
    Path(policy).write_bytes(foreign_graph(135, 12))
    Path(file).write_text(yaml.safe_dump(deployment(), sort_keys=False))
    asked = ["import-contract", policy, "--robot", "go2", "--deploy", file, "-o", target]
    assert main(asked) == 1
    assert "the layout of the history is not stated" in capsys.readouterr().err
    assert not Path(target).exists()
    assert main([*asked, "--history-order", "term_major"]) == 0
    assert main(["check", policy, "--contract", target, "--robot", "go2", "--json"]) == 0
    assert main([*asked, "--history-order", "term_major"]) == 1
    assert "exists; --force writes over it" in capsys.readouterr().err

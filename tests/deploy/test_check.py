"""`onestride check` on a really trained and exported policy: what is wrong is refused, each by its own line."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml
from policy_samples import signed_anew

from onestride.deploy.cli import main

pytest.importorskip("ogbench", reason="needs the extra `sim`")


@pytest.fixture
def check(capsys):
    """Runs the command: exit code, and the findings by question."""

    def run(policy: Path, *options: object) -> tuple[int, dict[str, dict]]:
        capsys.readouterr()
        code = main(["check", str(policy), "--json", *map(str, options)])
        output = json.loads(capsys.readouterr().out)
        findings = {finding["question"]: finding for finding in output["findings"]}
        assert output["passed"] == all(finding["passed"] for finding in findings.values()) == (code == 0)
        return code, findings

    return run


def assert_refused(result: tuple[int, dict[str, dict]], question: str, *words: str) -> None:
    """This question failed, those before it passed, and the detail holds the words."""
    code, findings = result
    assert code == 1
    assert [name for name, finding in findings.items() if not finding["passed"]] == [question]
    for word in words:
        assert word in findings[question]["detail"]


def test_a_sound_policy_fits_its_robot_its_data_and_its_run(check, small_run):
    code, findings = check(small_run.policy, "--robot", "ur5e_2f85", "--data", small_run.data, "--run", small_run.run)
    assert code == 0
    assert [name for name in findings if not name.startswith("safety")] == [
        "integrity", "contract", "graph", "recorded parity", "robot", "data", "envelope", "fresh parity",
    ]  # fmt: skip
    assert findings["robot"]["detail"] == "fits ur5e_2f85"
    assert "is the training data itself" in findings["data"]["detail"]
    assert findings["envelope"]["detail"] == "0.0% of steps leave the training ranges"
    assert "28 observations x 1 -> 5 x 5 actions at 20 Hz, NFE 1, 2, 4" in findings["contract"]["detail"]
    assert "as recorded at export" in findings["recorded parity"]["detail"]


def test_without_json_the_answers_are_a_table(small_run, capsys):
    assert main(["check", str(small_run.policy)]) == 0
    output = capsys.readouterr().out
    assert "pass" in output
    assert "integrity" in output
    assert "FAIL" not in output


# The file


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_byte_is_refused(check, small_run, tmp_path, share):
    data = bytearray(small_run.policy.read_bytes())
    data[int(share * len(data))] ^= 0x10
    path = tmp_path / "policy.onnx"
    path.write_bytes(data)
    result = check(path, "--robot", "ur5e_2f85")
    assert_refused(result, "integrity", str(path))
    assert list(result[1]) == ["integrity"], "nothing more is asked of a damaged file"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"", "carries no onestride.sha256"), (b"\x89PNG\r\n", "not an ONNX file")],
)
def test_a_file_that_is_no_policy_is_refused(check, tmp_path, content, words):
    path = tmp_path / "policy.onnx"
    if content is not None:
        path.write_bytes(content)
    assert_refused(check(path), "integrity", str(path), words)


# The contract, signed anew: whole, but wrong


def permuted(content) -> None:
    joints = content["observations"][0]["source"]["joints"]
    joints[1], joints[4] = joints[4], joints[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("execution"), "execution: Field required"),
        (lambda c: c["robot"].pop("safe_stop"), "robot.safe_stop: Field required"),
        (permuted, "observation element 1: the terms give 'arm_position.wrist_2_joint'"),
        (lambda c: c["observations"][0].update(unit="m"), "arm_position: expected unit 'rad' for its source, got 'm'"),
        (lambda c: c.update(schema_version=99), "expected schema_version 1, got 99"),
        (lambda c: c["execution"].update(control_rate=33.0), "expected control_rate to be a whole multiple"),
    ],
)
def test_a_contract_that_was_tampered_with_is_refused_by_name(check, small_run, tmp_path, change, words):
    path = signed_anew(small_run.policy, tmp_path / "policy.onnx", change)
    result = check(path, "--robot", "ur5e_2f85")
    assert_refused(result, "contract", words)
    assert list(result[1]) == ["integrity", "contract"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["policy"].update(nfe=[1, 3]), "unknown output: got 'actions_nfe3', available: actions_nfe1"),
        (lambda c: c.update(history=2), "inputs: the contract gives"),
        (lambda c: c["execution"].update(horizon=6), "'noise': [1, 6, 5]"),
    ],
)
def test_a_contract_that_its_graph_does_not_keep_is_refused(check, small_run, tmp_path, change, words):
    path = signed_anew(small_run.policy, tmp_path / "policy.onnx", change)
    assert_refused(check(path), "graph", words)


def test_a_draft_is_not_a_finished_export(check, small_run, tmp_path):
    path = signed_anew(small_run.policy, tmp_path / "policy.onnx", lambda content: content.update(export=None))
    assert_refused(check(path), "recorded parity", "export was not completed")


# The robot


def other_robot(folder: Path, change) -> Path:
    text = (resources.files("onestride.hardware") / "robots" / "ur5e_2f85.yaml").read_text()
    content = yaml.safe_load(text)
    change(content)
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(id="ur10e"), ["robot.id: contract has ur5e_2f85, robot ur10e has ur10e"]),
        (lambda r: r["joints"][0].update(velocity=1.0), ["robot.velocity: contract has (3.1416", "has (1.0, 3.1416"]),
        (lambda r: r["joints"][2].update(stiffness=99), ["robot.stiffness", "has (4500.0, 4500.0, 99.0"]),
        (lambda r: r["joints"].reverse(), ["robot.joints: ", "has ('right_driver_joint', 'wrist_3_joint'"]),
        (lambda r: r["frames"].pop("pinch"), ["frame: contract names 'pinch', robot ur5e_2f85 has flange"]),
    ],
)
def test_another_robot_is_refused_with_both_sides_named(check, small_run, tmp_path, change, words):
    path = other_robot(tmp_path, change)
    assert_refused(check(small_run.policy, "--robot", path), "robot", *words)


def test_the_chain_of_a_robot_is_listed_with_what_each_part_claims(check, small_run, tmp_path):
    chain = ["finite", {"filter": "frozen", "window": 0.3}, "approach", "projection"]
    safety = [{"filter": one} if isinstance(one, str) else one for one in chain]
    _, findings = check(small_run.policy, "--robot", other_robot(tmp_path, lambda r: r.update(safety=safety)))
    listed = {name.removeprefix("safety "): found["detail"] for name, found in findings.items() if "safety " in name}
    assert list(listed) == ["finite", "frozen", "approach", "projection", "projection.joints"]
    assert listed["finite"].startswith("Refuses actions and measurements that are not finite")
    assert listed["frozen"].endswith("(moved 0.02, window 0.3)")


def test_a_robot_nobody_described_is_refused_with_those_that_are(check, small_run):
    assert_refused(check(small_run.policy, "--robot", "r2d2"), "robot", "unknown robot: got 'r2d2'", "ur5e_2f85")


# The data


def other_data(original: Path, path: Path, change, values=None) -> Path:
    """A store with the schema of another, changed, and its first episode."""
    from onestride.datasets.schema import Schema
    from onestride.datasets.store import Store

    store = Store.open(original)
    content = store.schema.model_dump()
    change(content)
    copy = Store.create(path, Schema.model_validate(content), store.provenance)
    episode = store.read_episode(0)
    if values:
        values(episode.data)
    copy.append([episode])
    return path


def observation_of(content) -> dict:
    return next(feature for feature in content["features"] if feature["role"] == "observation")


def renamed(index: int, name: str):
    def change(content):
        names = list(observation_of(content)["names"])
        names[index] = name
        observation_of(content)["names"] = names

    return change


def swapped(content) -> None:
    names = list(observation_of(content)["names"])
    names[12], names[13] = names[13], names[12]
    observation_of(content)["names"] = names


def other_unit(content) -> None:
    units = list(observation_of(content)["units"])
    units[6] = "m/s"
    observation_of(content)["units"] = units


def unnamed(content) -> None:
    observation_of(content)["names"] = ()


def other_action(content) -> None:
    action = next(feature for feature in content["features"] if feature["name"] == content["label"])
    action["names"] = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swapped, "order differs: the contract has 'effector_position.x' where observation[12] of the data is"),
        (
            renamed(9, "speed"),
            "observation 'arm_velocity.wrist_1_joint' of the contract is not in the data; available: ",
        ),
        (unnamed, "observation 'arm_position.shoulder_pan_joint' of the contract is not in the data; available: obs"),
        (other_unit, "unit of observation arm_velocity.shoulder_pan_joint: the contract has 'rad/s', the data 'm/s'"),
        (other_action, "action: the contract has effector_position.x, effector_position.y"),
    ],
)
def test_data_with_other_observations_is_refused_by_name(check, small_run, tmp_path, change, words):
    path = other_data(small_run.data, tmp_path / "other.zarr", change)
    assert_refused(check(small_run.policy, "--data", path), "data", words)


def test_other_data_of_the_same_kind_fits_and_its_envelope_is_reported(check, small_run, tmp_path):
    def far(data):
        data["observation"] = np.array(data["observation"])
        data["observation"][:, 3] += 50.0

    path = other_data(small_run.data, tmp_path / "other.zarr", lambda _: None, far)
    code, findings = check(small_run.policy, "--data", path)
    assert code == 0
    assert "another dataset with the same observations" in findings["data"]["detail"]
    assert findings["envelope"]["detail"] == (
        "100.0% of steps leave the training ranges, most often arm_position.wrist_1_joint"
    )


def test_data_that_is_not_there_is_refused(check, small_run, tmp_path):
    assert_refused(check(small_run.policy, "--data", tmp_path / "none.zarr"), "data", "none.zarr")


def test_damaged_data_is_refused(check, small_run, tmp_path):
    path = other_data(small_run.data, tmp_path / "other.zarr", lambda _: None)
    chunk = max(
        (file for file in (path / "segments").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
    )
    chunk.write_bytes(chunk.read_bytes()[:-7])
    assert_refused(check(small_run.policy, "--data", path), "data", str(path))


# The run


def test_a_run_that_went_on_is_told_to_be_exported_anew(check, small_run, tmp_path):
    path = signed_anew(small_run.policy, tmp_path / "p.onnx", lambda content: content["policy"].update(steps=59))
    words = "exported at step 59, the run is at step 60: export it anew"
    assert_refused(check(path, "--run", small_run.run), "fresh parity", words)


def test_a_run_that_is_not_there_is_refused(check, small_run, tmp_path):
    assert_refused(check(small_run.policy, "--run", tmp_path / "none"), "fresh parity", "none")


def test_weights_that_are_not_the_runs_are_refused(check, small_run, tmp_path):
    """The file is whole and of the right step, but its weights are others."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(small_run.policy)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = np.frombuffer(weights.raw_data, np.float32) * np.float32(1.01)
    weights.raw_data = values.tobytes()
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(model.SerializeToString())
    path = signed_anew(changed, tmp_path / "p.onnx", lambda _: None)
    assert_refused(check(path, "--run", small_run.run), "fresh parity", "at most 1e-05")


# The command


def test_the_contracts_schema_is_printed(capsys):
    assert main(["check", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["title"] == "Contract"


def test_no_policy_is_a_one_line_error(capsys):
    assert main(["check"]) == 1
    assert capsys.readouterr().err == "onestride: expected a policy file: onestride check policy.onnx\n"

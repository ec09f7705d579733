"""A policy that onestride did not export runs by its contract file, and by no file that does not fit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from foreign_samples import foreign_graph, foreign_weights, sha256
from legged_samples import legged_content

from onestride.deploy.check import check_file
from onestride.deploy.cli import main
from onestride.deploy.foreign import available_contracts, load_policy, read_contract
from onestride.deploy.runtime import InlineInference, PolicyRuntime, load_contract
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError

pytest.importorskip("onnx", reason="needs the extra `train`")


def content_for(policy: Path) -> dict[str, Any]:
    """What a person writes beside a policy of 48 numbers in and 12 out."""
    content = legged_content(graph={"input": "obs", "output": "actions", "sha256": sha256(policy)})
    content["policy"] = {"name": "walk", "algorithm": "ppo"}
    del content["dataset"]
    for name in ("position", "velocity", "safe_stop", "acceleration", "jerk", "safety"):
        del content["robot"][name]
    return json.loads(json.dumps(content))


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "walk.onnx"
    path.write_bytes(foreign_graph(48, 12))
    return path


@pytest.fixture
def written(policy: Path):
    """Writes a contract file for the policy, edited first."""

    def write(change=lambda _: None, name: str = "walk.yaml") -> Path:
        content = content_for(policy)
        change(content)
        path = policy.with_name(name)
        text = json.dumps(content) if name.endswith(".json") else yaml.safe_dump(content, sort_keys=False)
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", ["walk.yaml", "walk.json"])
def test_it_computes_what_its_graph_computes(policy, written, name):
    runtime = PolicyRuntime(policy, contract=written(name=name))
    observation = np.linspace(-1.0, 1.0, 48)
    expected = observation.astype(np.float32) @ foreign_weights(48, 12)
    assert runtime.infer(observation) == pytest.approx(expected[None], rel=1e-5)
    assert runtime.sha256 == sha256(policy)
    assert (runtime.noise == 0.0).all()
    assert runtime.infer(observation).shape == (1, 12)


def test_inference_hands_it_on_as_a_chunk_of_one(policy, written):
    inference = InlineInference(PolicyRuntime(policy, contract=written()))
    inference.request(np.ones(48), at=0)
    prediction = inference.poll()
    assert prediction is not None and prediction.chunk is not None
    assert prediction.chunk.shape == (1, 12)


@pytest.mark.parametrize("batch", ["batch", None])
def test_a_free_batch_is_fed_one_observation(tmp_path, batch):
    policy, file = tmp_path / "free.onnx", tmp_path / "free.yaml"
    policy.write_bytes(foreign_graph(48, 12, batch=batch))
    file.write_text(yaml.safe_dump(content_for(policy)))
    chunk = PolicyRuntime(policy, contract=file).infer(np.ones(48))
    assert chunk == pytest.approx(foreign_weights(48, 12).sum(axis=0)[None], rel=1e-4)


def test_what_nobody_can_know_may_be_left_out(policy, written):
    contract, digest = load_contract(policy, written())
    assert digest == sha256(policy)
    assert contract.policy.nfe == (1,)
    assert contract.dataset.observation_names == contract.observation_names
    assert contract.dataset.episodes == 0
    assert contract.differences(load_robot("go1")) == []


def test_gains_that_differ_from_the_robots_are_named(policy, written):
    contract, _ = load_contract(policy, written(lambda content: content["robot"].update(stiffness=[20.0] * 12)))
    (difference,) = contract.differences(load_robot("go1"))
    assert difference.startswith("robot.stiffness: contract has (20.0, 20.0")


REFUSALS = {
    "another file": (
        lambda c: c["graph"].update(sha256="ab" * 32),
        r"written for another file: .* is abababababab…, but",
    ),
    "no graph": (lambda c: c.pop("graph"), "graph: expected input, output and sha256 of the policy's file, got none"),
    "input name": (
        lambda c: c["graph"].update(input="observation"),
        "inputs: the contract gives .*'observation'.*'obs'",
    ),
    "output name": (lambda c: c["graph"].update(output="mu"), "unknown output: got 'mu', available: actions"),
    "input size": (lambda c: c["observations"].pop(0), r"the contract gives \{'obs': \[1, 45\]\}, .* \[1, 48\]"),
    "history": (lambda c: c.update(history=2), r"the contract gives \{'obs': \[1, 96\]\}, .* \[1, 48\]"),
    "version": (lambda c: c.update(schema_version=2), "expected schema_version 1, got 2"),
    "chunks": (lambda c: c["execution"].update(horizon=4), "graph: expected nfe .1., horizon 1"),
    "candidates": (lambda c: c["policy"].update(candidates=4), "graph: expected nfe .1., horizon 1, one candidate"),
    "misspelt": (lambda c: c["graph"].update(inputs="obs"), "graph.inputs: Extra inputs are not permitted"),
    "unknown joint": (
        lambda c: c["actions"][0]["joints"].__setitem__(0, "FR_knee"),
        "legs: joint 'FR_knee' is not one of robot.joints",
    ),
    "unknown source": (lambda c: c["observations"][1].update(source={"kind": "gps"}), "observations.1.source.*'gps'"),
}


@pytest.mark.parametrize("change", REFUSALS)
def test_a_contract_that_does_not_fit_is_refused_with_both_sides(policy, written, change):
    edit, message = REFUSALS[change]
    with pytest.raises(OneStrideError, match=message):
        PolicyRuntime(policy, contract=written(edit))


def test_a_graph_of_another_output_size_is_refused(policy, written):
    policy.write_bytes(foreign_graph(48, 10))
    with pytest.raises(OneStrideError, match=r"actions: expected shape \[1, 12\], got \[1, 10\]"):
        PolicyRuntime(policy, contract=written())


def test_the_file_itself_must_be_the_one_that_is_meant(policy, written):
    file = written()
    policy.write_bytes(foreign_graph(48, 12, seed=1))
    with pytest.raises(OneStrideError, match=r"walk\.yaml was written for another file: graph\.sha256 is"):
        load_policy(policy, file)


def test_a_metadata_key_that_stands_twice_is_refused(policy, written):
    policy.write_bytes(foreign_graph(48, 12, metadata=[("joint_names", "a"), ("joint_names", "b")]))
    with pytest.raises(OneStrideError, match="metadata key 'joint_names' stands twice; refusing to guess"):
        load_policy(policy, written())


@pytest.mark.parametrize(
    ("name", "text"), [("twice.yaml", "history: 1\nhistory: 2\n"), ("twice.json", '{"history": 1, "history": 2}')]
)
def test_a_key_that_stands_twice_in_the_contract_file_is_refused(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(OneStrideError, match="key 'history' stands twice; refusing to guess"):
        read_contract(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "- 1\n", "expected fields with names, got list"),
        ("a.yaml", "a: [", "not readable"),
        ("a.json", "{", "not readable"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "not readable"),
        ("a.yaml", "schema_version: 1\n", "graph: expected input"),
    ],
)
def test_what_is_no_contract_file_is_refused(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(OneStrideError, match=rf"{name}.*{message}"):
        read_contract(path)


def test_a_missing_contract_file_is_refused(tmp_path):
    with pytest.raises(OneStrideError, match=r"cannot read .*none\.yaml"):
        read_contract(tmp_path / "none.yaml")
    with pytest.raises(OneStrideError, match=r"unknown contract.*'nobodys'.*go1_joystick"):
        read_contract("nobodys")


def test_a_policy_of_our_own_takes_no_second_contract(sample_policy, written):
    with pytest.raises(OneStrideError, match=r"carries its own contract; expected no other, got .*walk\.yaml"):
        load_policy(sample_policy, written())


def test_a_contract_without_graph_terms_is_refused(policy, tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(legged_content()))
    with pytest.raises(OneStrideError, match="graph: expected input, output and sha256 of"):
        load_policy(policy, path)


def test_a_foreign_policy_without_a_contract_file_says_what_is_needed(policy):
    with pytest.raises(OneStrideError, match=r"a policy of another origin needs a contract file: --contract FILE"):
        PolicyRuntime(policy)


# Commands


def test_check_answers_its_questions(policy, written):
    findings, contract = check_file(policy, written())
    assert contract is not None
    assert [(finding.question, finding.passed) for finding in findings] == [
        ("integrity", True),
        ("contract", True),
        ("graph", True),
    ]


def test_check_fails_on_a_graph_of_another_form(policy, written):
    findings, _ = check_file(policy, written(lambda content: content["graph"].update(input="observation")))
    assert [finding.passed for finding in findings] == [True, True, False]


def test_the_command_line_checks_it(policy, written, capsys):
    file = str(written())
    assert main(["check", str(policy), "--contract", file, "--robot", "go1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {finding["question"]: finding["passed"] for finding in found["findings"]}["robot"]
    assert main(["check", str(policy), "--contract", file, "--robot", "ur5e_2f85", "--json"]) == 1


def test_every_contract_that_comes_with_onestride_is_whole_and_fits_its_robot():
    assert "go1_joystick" in available_contracts()
    for name in available_contracts():
        contract = read_contract(name)
        assert contract.graph is not None
        assert contract.robot is not None
        assert contract.differences(load_robot(contract.robot.id)) == []

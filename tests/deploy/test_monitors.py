"""A policy file that carries its own watch: the risk is exported, checked, computed and reported, not acted upon."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from policy_samples import cube_contract, parse
from pydantic import ValidationError

from onestride.deploy import onnx_file
from onestride.deploy.check import check_file
from onestride.deploy.contract import Contract, MonitorTerms
from onestride.deploy.export import export_policy
from onestride.deploy.monitors import Reading
from onestride.deploy.runtime import PolicyRuntime, create_session, load_contract, predicted
from onestride.hardware.errors import OneStrideError
from onestride.policies.ensemble import Ensemble
from onestride.policies.gaussian import GaussianPolicy, SquashedGaussian
from onestride.policies.gaussian_export import ExportableGaussian, Monitor
from onestride.policies.normaliser import Affine

WATCH = Monitor("risk", "largest discounted sum of costs of the action that a constraint critic expects", 0.02)


def draft() -> Contract:
    whole = cube_contract()
    policy = whole.policy.model_copy(update={"nfe": (1,), "monitors": (MonitorTerms(**WATCH._asdict()),)})
    return whole.model_copy(update={"policy": policy, "export": None})


@pytest.fixture(scope="module")
def module() -> ExportableGaussian:
    torch.manual_seed(0)
    contract = draft()
    size, action = contract.observation_size, contract.action_size
    gaussian = SquashedGaussian(size, contract.execution.horizon, action, (16,))
    policy = GaussianPolicy(Affine.identity(size), Affine.identity(action), gaussian)
    return ExportableGaussian(policy, constraint=Ensemble(2, size + gaussian.chunk_dim, (16,)), monitor=WATCH)


@pytest.fixture(scope="module")
def watched(module, tmp_path_factory):
    path = tmp_path_factory.mktemp("watched") / "policy.onnx"
    export_policy(module, draft(), path, np.random.default_rng(0).normal(size=(20, draft().observation_size)))
    return path


def test_the_contract_names_the_monitor(watched):
    contract, _ = load_contract(watched)
    assert contract.policy.monitors == (MonitorTerms(**WATCH._asdict()),)
    assert contract.export is not None and contract.export.parity <= 1e-5


def test_the_runtime_reads_what_the_critics_give(watched, module):
    policy = PolicyRuntime(watched)
    for seed in range(5):
        observation = np.random.default_rng(seed).normal(size=draft().observation_size)
        noise = np.zeros((5, 5), np.float32)
        with torch.no_grad():
            chunk, risk = module(torch.as_tensor(observation[None], dtype=torch.float32), torch.from_numpy(noise[None]))
        np.testing.assert_allclose(policy.predict(observation, noise), chunk[0].numpy(), atol=1e-5)
        (reading,) = policy.readings
        assert (reading.name, reading.threshold) == ("risk", 0.02)
        assert reading.value == pytest.approx(risk.item(), abs=1e-5)


def test_a_prediction_carries_its_readings(watched):
    policy = PolicyRuntime(watched)
    prediction = predicted(policy, np.ones(draft().observation_size), 3)
    assert prediction.error == "" and prediction.readings == policy.readings
    assert len(prediction.readings) == 1


def test_the_graph_is_pruned_to_what_is_asked_for(watched):
    data = watched.read_bytes()
    feed = {
        "observation": np.ones((1, draft().observation_size), np.float32),
        "noise": np.zeros((1, 5, 5), np.float32),
    }
    both = create_session(data, "actions_nfe1", "CPUExecutionProvider", "test", "risk").run(None, feed)
    for name, expected in zip(("actions_nfe1", "risk"), both, strict=True):
        (alone,) = create_session(data, name, "CPUExecutionProvider", "test").run(None, feed)
        np.testing.assert_array_equal(alone, expected)
    assert len(onnx_file.with_output(data, "actions_nfe1")) < len(onnx_file.with_output(data, "actions_nfe1", "risk"))


def test_check_looks_for_the_monitor(watched, tmp_path):
    assert all(finding.passed for finding in check_file(watched)[0])
    data = watched.read_bytes()
    contract, _ = load_contract(watched)
    without = onnx_file.with_output(data, "actions_nfe1")
    path = tmp_path / "policy.onnx"
    path.write_bytes(
        onnx_file.sign(onnx_file.with_metadata(without, {onnx_file.CONTRACT_KEY: contract.model_dump_json()}))
    )
    failed = [finding.detail for finding in check_file(path)[0] if not finding.passed]
    assert any("unknown output: got 'risk'" in detail for detail in failed)
    with pytest.raises(OneStrideError, match="unknown output: got 'risk'"):
        PolicyRuntime(path)


@pytest.mark.parametrize(("value", "tripped"), [(0.9, False), (1.0, False), (1.1, True), (math.nan, True)])
def test_a_reading_trips_above_its_threshold_and_where_it_is_no_number(value, tripped):
    assert Reading("risk", value, 1.0).tripped is tripped


@pytest.mark.parametrize("change", [{"name": "Risk 1"}, {"threshold": math.inf}, {"name": ""}])
def test_odd_monitors_are_refused(change):
    with pytest.raises(ValidationError):
        MonitorTerms(**{**WATCH._asdict(), **change})


def test_two_monitors_of_one_name_are_refused():
    content = draft().model_dump(mode="json")
    content["policy"]["monitors"] *= 2
    with pytest.raises(OneStrideError, match="monitors: expected each name once, got more for risk"):
        parse(content)


def test_a_policy_without_monitors_reads_nothing(sample_policy):
    policy = PolicyRuntime(sample_policy)
    policy.infer(np.zeros(28))
    assert policy.readings == ()


def test_the_node_counts_and_shows_the_readings():
    from onestride_controller.report import Report

    report = Report()
    for value in (0.5, 2.0, math.nan, 3.0):
        report.watched([Reading("risk", value, 1.0)])
    summary = report.summary(Counter())
    assert summary["counters"]["above_risk"] == 3
    assert summary["monitors"] == {"risk": {"last": 3.0, "threshold": 1.0}}

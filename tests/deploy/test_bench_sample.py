"""The sample policy: a real ONNX file, the same everywhere, that computes what it should."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onestride.deploy.bench.sample import (
    ACTION,
    HORIZON,
    NFE,
    OBSERVATION,
    sample_contract,
    sample_graph,
    sample_policy,
    sample_weights,
)
from onestride.deploy.cli import main
from onestride.deploy.runtime import PolicyRuntime

#: Of the graph: a device that makes another one is not comparable.
FIRST_WEIGHTS = [0.08765411, 0.03423691, 0.00278091, -0.05755615]


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """The file, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return sample_policy()


def average_velocity(observation, z, t, h):
    """The network, spelled out in double precision."""
    x = np.concatenate([observation, z, [t, h]])
    gelu = np.vectorize(lambda value: 0.5 * value * (1 + math.erf(value / math.sqrt(2))))
    *hidden, (last, bias) = sample_weights()
    for matrix, offset in hidden:
        x = gelu(x @ matrix.astype(np.float64) + offset)
    return x @ last.astype(np.float64) + bias


@pytest.mark.parametrize("nfe", NFE)
def test_it_walks_along_its_average_velocity(sample, nfe):
    policy, rng = PolicyRuntime(sample, nfe=nfe), np.random.default_rng(1)
    observation, noise = rng.uniform(-1, 1, OBSERVATION), rng.standard_normal((1, HORIZON, ACTION), dtype=np.float32)
    z = noise.reshape(-1).astype(np.float64)
    for step in range(nfe, 0, -1):
        z = z - average_velocity(observation, z, step / nfe, 1 / nfe) / nfe
    np.testing.assert_allclose(policy.predict(observation, noise).reshape(-1), z, atol=1e-5)


def test_it_is_the_same_every_time(sample):
    before = sample.read_bytes()
    assert sample_policy().read_bytes() == before
    sample.unlink()
    assert sample_policy().read_bytes() == before
    first = sample_weights()[0][0][0, :4]
    np.testing.assert_allclose(first, FIRST_WEIGHTS, rtol=1e-5)


def test_its_contract_names_no_robot():
    contract = sample_contract()
    assert contract.robot is None and contract.export is None
    assert contract.inputs == {"observation": (1, OBSERVATION), "noise": (1, HORIZON, ACTION)}


def test_onnx_finds_nothing_wrong_with_it():
    onnx = pytest.importorskip("onnx", reason="needs the extra `bench`")
    model = onnx.load_from_string(sample_graph())
    onnx.checker.check_model(model, full_check=True)
    assert sum(math.prod(one.dims) for one in model.graph.initializer if one.name[0] in "wb") > 800_000


def test_bench_without_a_policy(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["bench", "--sample", "--calls", "20", "--seconds", "0.05", "--nfe", "1"]) == 0
    assert "sample-512x4" in capsys.readouterr().out
    assert main(["bench", "policy.onnx", "--sample"]) == 1
    assert "expected one of them" in capsys.readouterr().err

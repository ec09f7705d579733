"""Half precision and 8 bits: what they make of a network's actions."""

from __future__ import annotations

import numpy as np
import pytest
from policy_samples import changed, parse

from onestride.deploy import onnx_file
from onestride.deploy.bench.bench import BenchOptions, bench
from onestride.deploy.bench.numeric import numeric_error
from onestride.deploy.bench.variants import CPU, TOLERANCES, conversion
from onestride.deploy.export import export_policy
from onestride.deploy.runtime import PolicyRuntime

pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("onnx", reason="needs the extra `bench`")

import onnx
import torch

from onestride.policies.critic import CriticEnsemble
from onestride.policies.exportable import Exportable
from onestride.policies.mean_flow import MeanFlow
from onestride.policies.normaliser import Affine
from onestride.policies.policy import ChunkPolicy
from onestride.policies.selection import BestOfN

H, D, S, N = 5, 5, 28, 8
HIDDEN = (64, 64)


def network():
    torch.manual_seed(0)
    return ChunkPolicy(Affine.identity(S), Affine.identity(D), MeanFlow(S, H, D, HIDDEN))


@pytest.fixture(scope="module")
def plain(contract, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "policy.onnx"
    export_policy(Exportable(network(), (1, 2)), contract, path, np.empty((0, S)))
    return path


@pytest.fixture(scope="module")
def ranked(contract, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranked") / "policy.onnx"
    terms = parse(changed(contract, lambda content: content["policy"].update(candidates=N, nfe=[1])))
    export_policy(
        Exportable(BestOfN(network(), CriticEnsemble(S, H * D, HIDDEN), N), (1,)), terms, path, np.empty((0, S))
    )
    return path


def error(path, precision, count=32):
    observations = np.random.default_rng(0).uniform(-1, 1, (count, S))
    policy = PolicyRuntime(path, convert=conversion(CPU, precision))
    return numeric_error(policy, PolicyRuntime(path), observations, {}, TOLERANCES[precision])


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_lower_precision_is_another_and_within_its_tolerance(plain, precision):
    found = error(plain, precision)
    assert 0 < found.p50 <= found.p99 <= found.max
    assert found.within and found.same_choice is None


def test_eight_bits_are_worse_than_sixteen(plain):
    assert error(plain, "int8").p50 > error(plain, "fp16").p50


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_where_candidates_are_ranked_the_choice_is_told_apart(ranked, precision):
    found = error(ranked, precision)
    assert found.within
    assert found.same_choice is not None and 0.5 < found.same_choice <= 1.0


def test_float32_makes_every_choice_alike(ranked):
    found = error(ranked, "fp32")
    assert (found.max, found.same_choice) == (0.0, 1.0)


def test_each_precision_is_a_row_with_its_own_error(plain):
    options = BenchOptions(plain, calls=10, seconds=0.05, nfe=(1,), precisions=("fp32", "fp16", "int8"))
    report = bench(options)
    assert [one.precision for one in report.variants] == ["fp32", "fp16", "int8"]
    assert [one.error.max > 0 for one in report.variants] == [False, True, True]
    assert report.policy.parity is not None and report.variants[0].error.to_torch == report.policy.parity


def test_the_weights_are_stored_in_fewer_bits(plain):
    data = onnx_file.with_output(plain.read_bytes(), "actions_nfe1")
    sizes = {}
    for precision in ("fp32", "fp16", "int8"):
        convert = conversion(CPU, precision)
        model = onnx.load_from_string(convert(data) if convert else data)
        sizes[precision] = sum(len(one.raw_data) for one in model.graph.initializer if len(one.dims) == 2)
    assert sizes["fp16"] == pytest.approx(sizes["fp32"] / 2, rel=0.02)
    assert sizes["int8"] == pytest.approx(sizes["fp32"] / 4, rel=0.05)


def test_a_model_without_inner_shapes_computes_the_same(plain):
    data = onnx_file.with_output(plain.read_bytes(), "actions_nfe1")
    bare = onnx_file.without_shapes(data)
    before, after = onnx.load_from_string(data), onnx.load_from_string(bare)
    assert len(before.graph.value_info) > 0 and len(after.graph.value_info) == 0
    after.graph.value_info.extend(before.graph.value_info)
    assert after == before

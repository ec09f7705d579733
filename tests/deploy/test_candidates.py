"""A policy that ranks candidates, from torch to the robot: the ranking is in the file, the noise has a row for each."""

from __future__ import annotations

import numpy as np
import pytest
from policy_samples import changed, parse, signed_anew

from onestride.deploy.bench.bench import BenchOptions, bench
from onestride.deploy.check import check_file
from onestride.deploy.export import export_policy
from onestride.deploy.runtime import PolicyRuntime

pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("onnx", reason="needs the extra `train`")

import torch

from onestride.policies.critic import CriticEnsemble
from onestride.policies.exportable import Exportable
from onestride.policies.mean_flow import MeanFlow
from onestride.policies.normaliser import Affine
from onestride.policies.policy import ChunkPolicy
from onestride.policies.selection import BestOfN

N, H, D, S = 6, 5, 5, 28
NOTHING = np.empty((0, S))


@pytest.fixture(scope="module")
def ranked_contract(contract):
    return parse(changed(contract, lambda content: content["policy"].update(candidates=N)))


@pytest.fixture(scope="module")
def best_of_n():
    torch.manual_seed(0)
    policy = ChunkPolicy(Affine.identity(S), Affine.identity(D), MeanFlow(S, H, D, (32, 32)))
    return BestOfN(policy, CriticEnsemble(S, H * D, (32, 32)), N)


@pytest.fixture(scope="module")
def ranked_policy(ranked_contract, best_of_n, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranked") / "policy.onnx"
    export_policy(Exportable(best_of_n, (1, 2)), ranked_contract, path, NOTHING)
    return path


def test_one_candidate_is_what_a_contract_without_the_word_means(contract):
    older = changed(contract, lambda content: content["policy"].pop("candidates"))
    assert parse(older) == contract
    assert contract.noise_shape == contract.chunk_shape == (1, H, D)


def test_the_noise_has_a_row_for_each_candidate(ranked_contract):
    assert ranked_contract.noise_shape == (N, H, D)
    assert ranked_contract.chunk_shape == (1, H, D)


@pytest.mark.parametrize("nfe", [1, 2])
def test_the_file_ranks_as_torch_does(ranked_policy, best_of_n, nfe):
    runtime, rng, chosen = PolicyRuntime(ranked_policy, nfe=nfe), np.random.default_rng(0), set()
    for _ in range(50):
        observation, noise = rng.normal(size=S), rng.standard_normal((N, H, D), dtype=np.float32)
        s = torch.tensor(observation[None], dtype=torch.float32)
        with torch.no_grad():
            near = best_of_n.near_best(s, torch.from_numpy(noise), nfe, 1e-5).numpy()
            chosen.add(int(best_of_n.values(s, torch.from_numpy(noise), nfe)[1].argmax()))
        assert np.abs(near - runtime.predict(observation, noise)).max((1, 2)).min() < 1e-5
    assert len(chosen) == N


def test_the_noise_of_a_seed_is_numpys_and_replays(ranked_policy):
    first, second = PolicyRuntime(ranked_policy, seed=4), PolicyRuntime(ranked_policy, seed=4)
    generator = np.random.default_rng(4)
    for _ in range(3):
        chunk = first.infer(np.ones(S))
        np.testing.assert_array_equal(first.noise, generator.standard_normal((N, H, D), dtype=np.float32))
        np.testing.assert_array_equal(second.infer(np.ones(S)), chunk)
        np.testing.assert_array_equal(first.predict(np.ones(S), first.noise), chunk)


def test_check_and_bench_say_how_many(ranked_policy):
    findings, _ = check_file(ranked_policy)
    assert all(finding.passed for finding in findings)
    assert any(f"best of {N} candidates" in finding.detail for finding in findings)
    report = bench(BenchOptions(ranked_policy, calls=20, seconds=0.05, nfe=(1,)))
    assert report.policy.candidates == N


def test_a_contract_that_promises_another_number_is_noticed(ranked_policy, tmp_path):
    other = signed_anew(ranked_policy, tmp_path / "other.onnx", lambda content: content["policy"].update(candidates=2))
    findings, _ = check_file(other)
    (graph,) = [finding for finding in findings if finding.question == "graph"]
    assert not graph.passed
    assert "'noise': [2, 5, 5]" in graph.detail and "'noise': [6, 5, 5]" in graph.detail

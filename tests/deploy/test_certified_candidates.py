"""A policy whose candidates a certificate judges, in one ONNX graph: it chooses as torch does, and tells it."""

from __future__ import annotations

import numpy as np
import pytest
from policy_samples import changed, parse

from onestride.deploy.contract import MonitorTerms
from onestride.deploy.export import export_policy
from onestride.deploy.runtime import PolicyRuntime

pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("onnx", reason="needs the extra `train`")

import torch

from onestride.policies.certified import CandidateCertificate
from onestride.policies.critic import CriticEnsemble
from onestride.policies.exportable import Exportable
from onestride.policies.mean_flow import MeanFlow
from onestride.policies.normaliser import Affine
from onestride.policies.policy import ChunkPolicy
from onestride.policies.selection import BestOfN

N, H, D, S = 6, 5, 5, 28


@pytest.fixture(scope="module")
def certified():
    torch.manual_seed(0)
    policy = ChunkPolicy(Affine.identity(S), Affine.identity(D), MeanFlow(S, H, D, (32, 32)))
    certificate = CandidateCertificate(CriticEnsemble(S, D, (32, 32)), 0.0, 1)
    module = BestOfN(policy, CriticEnsemble(S, H * D, (32, 32)), N, certificate)
    s, noise = torch.randn(50, S), torch.randn(50 * N, H, D)
    with torch.no_grad():
        certificate.limit = float(certificate(s, module.values(s, noise)[0]).quantile(0.2))
    return module


@pytest.fixture(scope="module")
def exported(contract, certified, tmp_path_factory):
    exportable = Exportable(certified, (1,))
    monitors = tuple(MonitorTerms(**one._asdict()) for one in exportable.monitors)
    draft = parse(changed(contract, lambda content: content["policy"].update(candidates=N, nfe=[1])))
    draft = draft.model_copy(update={"policy": draft.policy.model_copy(update={"monitors": monitors})})
    path = tmp_path_factory.mktemp("certified") / "policy.onnx"
    export_policy(exportable, draft, path, np.empty((0, S)))
    return path


def test_the_file_judges_as_torch_does(exported, certified):
    runtime, rng, counts = PolicyRuntime(exported), np.random.default_rng(0), set()
    for _ in range(60):
        observation, noise = rng.normal(size=S), rng.standard_normal((N, H, D), dtype=np.float32)
        s = torch.tensor(observation[None], dtype=torch.float32)
        with torch.no_grad():
            chunk, judged = certified.judged(s, torch.from_numpy(noise))
        np.testing.assert_allclose(runtime.predict(observation, noise), chunk[0].numpy(), atol=1e-5)
        count, least = runtime.readings
        assert (count.name, count.value, count.tripped) == ("certified_candidates", judged.kept.item(), False)
        assert least.value == pytest.approx(judged.least.item(), abs=1e-5)
        assert least.tripped == (count.value == 0)
        counts.add(int(count.value))
    assert 0 in counts and max(counts) > 1

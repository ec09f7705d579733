"""The exported slope of a policy: what the file itself does between pairs of observations lies within what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_environment import NAME
from line_samples import line_store

from onestride.deploy.contract import Contract, parse_contract
from onestride.deploy.runtime import PolicyRuntime, load_contract
from onestride.policies.conditioning import Observer
from onestride.policies.gaussian import GaussianPolicy
from onestride.policies.normaliser import Affine
from onestride.policies.policy import ChunkPolicy
from onestride.policies.selection import BestOfN
from onestride.policies.vision import Picture
from onestride.training.agents.bc_flow import BCFlowConfig
from onestride.training.agents.catalogue import AgentConfig
from onestride.training.agents.mvp import MVPConfig
from onestride.training.agents.qc import QCConfig
from onestride.training.agents.sac import SACConfig
from onestride.training.checkpoint import load_run
from onestride.training.exporting import export_run
from onestride.training.lipschitz import SAMPLES, lipschitz_terms
from onestride.training.trainer import TrainOptions, train

SMALL: dict[str, Any] = {"hidden": (16,), "batch_size": 8}
CHUNKS: dict[str, Any] = {"horizon": 3, "n_action_steps": 2, "history": 2}
CONFIGS: dict[str, AgentConfig] = {
    "sac": SACConfig(**SMALL),
    "bc_flow": BCFlowConfig(**SMALL, **CHUNKS, nfe=(4,)),
    "mvp": MVPConfig(**SMALL, **CHUNKS),
    "mvp bounded": MVPConfig(**SMALL, **CHUNKS, lipschitz=0.05, nfe=(1,)),
    "qc": QCConfig(**SMALL, **CHUNKS, critic_hidden=(16,), candidates=2, nfe=(4,)),
}

Exported = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A run of thirty steps and its file, by name; each is made once."""
    return cache(lambda name: export(tmp_path_factory.mktemp("run"), CONFIGS[name]))


def export(folder: Path, config: AgentConfig) -> tuple[Path, Path]:
    data = None if isinstance(config, SACConfig) else Path(line_store(folder / "line.zarr").path)
    steps, online = (0, 30) if data is None else (30, 0)
    train(
        TrainOptions(
            config, data, folder / "run", steps=steps, env=NAME, online_steps=online, startup_steps=10, episodes=1,
            evaluators=0,
        )
    )  # fmt: skip
    export_run(folder / "run", folder / "policy.onnx")
    return folder / "run", folder / "policy.onnx"


@pytest.mark.parametrize("name", ["sac", "bc_flow", "mvp", "mvp bounded"])
def test_the_file_moves_no_further_than_its_contract_says(name: str, exported: Exported) -> None:
    """By difference quotients of the graph, at one noise, in normalised values."""
    run, file = exported(name)
    contract, _ = load_contract(file)
    terms = contract.policy.lipschitz
    assert terms is not None and terms.nfe == contract.policy.nfe[0] and terms.samples == SAMPLES
    assert 0 < terms.seen <= terms.bound * (1 + 1e-5)
    runtime, policy = PolicyRuntime(file), load_run(run).agent.as_exportable().policy
    assert isinstance(policy, ChunkPolicy | GaussianPolicy)
    found = quotients(runtime, policy.condition, policy.action, contract)
    assert found.max() <= terms.bound * (1 + 1e-3)
    if name == "mvp bounded":
        assert terms.bound <= 0.05 * (1 + 1e-5), "the bound asked for is in the weights"


def quotients(runtime: PolicyRuntime, condition: Any, action: Affine, contract: Contract) -> np.ndarray:
    """Distance of chunks over distance of observations, both normalised, of 200 pairs near and far."""
    rng = np.random.default_rng(0)
    low, high = (np.tile(end, contract.history) for end in (contract.dataset.minimum, contract.dataset.maximum))
    found = []
    for reach in (0.01, 1.0):
        for _ in range(100):
            pair = rng.uniform(low, high), rng.uniform(low, high)
            first, second = pair[0], pair[0] + reach * (pair[1] - pair[0])
            chunks = []
            for observation in (first, second):
                runtime.reset(0)
                chunks.append(action(torch.from_numpy(runtime.infer(observation).copy())))
            s = [condition(torch.from_numpy(o.astype(np.float32))[None]) for o in (first, second)]
            found.append(((chunks[0] - chunks[1]).norm() / (s[0] - s[1]).norm()).item())
    return np.array(found)


def test_a_ranked_policy_and_one_with_pictures_say_nothing(exported: Exported) -> None:
    """The best of N jumps from one candidate to another; pictures would be left out of the observation."""
    run, file = exported("qc")
    contract, _ = load_contract(file)
    assert contract.policy.lipschitz is None
    ranked = load_run(run).agent.as_exportable().policy
    assert isinstance(ranked, BestOfN)
    single = ranked.policy
    draft = replace_candidates(contract)
    assert lipschitz_terms(single, draft, np.zeros((1, 6))) is not None
    seeing = Observer(Affine.identity(6), {"eye": Picture(32, 32, 3)}, history=2)
    assert lipschitz_terms(ChunkPolicy(seeing, single.action, single.flow), draft, np.zeros((1, 6))) is None


def replace_candidates(contract: Contract) -> Contract:
    return contract.model_copy(update={"policy": contract.policy.model_copy(update={"candidates": 1})})


def test_what_is_seen_is_the_largest_singular_value_at_the_observations(exported: Exported) -> None:
    """One observation only: the exact Jacobian there."""
    run, file = exported("sac")
    contract, _ = load_contract(file)
    policy = load_run(run).agent.as_exportable().policy
    assert isinstance(policy, GaussianPolicy)
    point = np.array([[0.3, -0.1, 0.5]])
    terms = lipschitz_terms(policy, contract, point)
    s = policy.condition(torch.from_numpy(point.astype(np.float32)))[0]
    exact = torch.autograd.functional.jacobian(lambda x: policy.gaussian.mode(x.unsqueeze(0))[0], s)
    assert terms is not None and terms.seen == pytest.approx(torch.linalg.matrix_norm(exact, 2).item(), rel=1e-5)


def test_a_contract_without_the_field_is_read_as_before(exported: Exported) -> None:
    _, file = exported("sac")
    contract, _ = load_contract(file)
    content = contract.model_dump(mode="json")
    del content["policy"]["lipschitz"]
    assert parse_contract(json.dumps(content), "old").policy.lipschitz is None

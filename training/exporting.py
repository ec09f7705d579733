"""From a training run to a policy file, and back to compare the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onestride.datasets.store import Store
from onestride.deploy import onnx_file
from onestride.deploy.check import Finding
from onestride.deploy.contract import Contract, parse_contract
from onestride.deploy.export import TOLERANCE, export_policy, parity
from onestride.deploy.runtime import load_contract
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array
from onestride.training.checkpoint import Run, load_run


def export_run(path: str | Path, output: str | Path, data: str | Path | None = None) -> Contract:
    """Export the newest checkpoint of a run.

    Args:
        path: run directory.
        output: policy file to write.
        data: the store it learnt from, if it has moved.

    Raises:
        OneStrideError: no run or no intact checkpoint there, or the export differs from torch.
    """
    run = load_run(path)
    draft = parse_contract(run.contract, str(run.path / "contract.json"))
    policy = draft.policy.model_copy(update={"steps": run.step})
    module = run.agent.as_exportable(draft.policy.nfe)
    observations = _observations(run, draft, data)
    return export_policy(module, draft.model_copy(update={"policy": policy}), output, observations)


def fresh_parity(policy: str | Path, path: str | Path) -> Finding:
    """Compare a policy file with the run it should come from, on observations drawn now."""
    question = "fresh parity"
    try:
        contract, _ = load_contract(policy)
        run = load_run(path)
    except OneStrideError as error:
        return Finding(question, False, str(error))
    if run.step != contract.policy.steps:
        detail = f"the file was exported at step {contract.policy.steps}, the run is at step {run.step}: export it anew"
        return Finding(question, False, detail)
    module = run.agent.as_exportable(contract.policy.nfe)
    try:
        observations = _observations(run, contract, None)
    except OneStrideError as error:
        return Finding(question, False, str(error))
    worst, count = parity(module, onnx_file.read_file(policy), contract, observations)
    return Finding(question, worst <= TOLERANCE, f"{worst:.2g} over {count} observations, at most {TOLERANCE}")


def _observations(run: Run, contract: Contract, data: str | Path | None) -> Array:
    """Observations (N, To * Do) of the training data; none where the store is not there any more."""
    where = Path(data or run.config.data)
    if not where.exists():
        return np.empty((0, contract.history * contract.observation_size))
    store = Store.open(where)
    if store.dataset_id != run.config.dataset_id:
        raise OneStrideError(f"{where}: expected dataset {run.config.dataset_id}, got {store.dataset_id}")
    steps = [store.read(name).reshape(store.num_steps, -1) for name in run.config.observations]
    return np.tile(np.concatenate(steps, axis=1).astype(np.float64), contract.history)

"""From a training run to a policy file, and back to compare the two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from onestride.datasets.store import Store
from onestride.deploy import onnx_file
from onestride.deploy.check import Finding
from onestride.deploy.contract import Contract, MonitorTerms, parse_contract
from onestride.deploy.export import SAMPLES, TOLERANCE, export_policy, parity
from onestride.deploy.runtime import Images, load_contract
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array
from onestride.policies.conditioning import Seeing
from onestride.policies.watched import Watched
from onestride.training.certificates.on_data import Measured
from onestride.training.checkpoint import Run, load_run
from onestride.training.lipschitz import lipschitz_terms
from onestride.training.selecting import select, selecting
from onestride.training.vision import pictures_of
from onestride.training.watching import NAME, learn_watch, load_watch


def export_run(
    path: str | Path,
    output: str | Path,
    data: str | Path | None = None,
    *,
    watch: bool = False,
    candidates: int | None = None,
    certificate: str | Path | None = None,
) -> Contract:
    """Export the newest checkpoint of a run.

    Args:
        path: run directory.
        output: policy file to write.
        data: the store it learnt from, if it has moved.
        watch: put the run's learnt Lyapunov function beside it, see `watch_run`.
        candidates: chunks drawn and ranked, instead of the run's number.
        certificate: file of `onestride certificate` that a candidate has to keep to be ranked.

    Raises:
        OneStrideError: no run or no intact checkpoint there, a certificate that does not fit the policy, or the export
            differs from torch.
    """
    run = load_run(path)
    draft = select(parse_contract(run.contract, str(run.path / "contract.json")), candidates, certificate)
    module = _exportable(run, draft, watch=watch)
    observations, images = _observed(run, draft, data)
    measured = {"monitors": _monitors(module), "lipschitz": lipschitz_terms(_policy(module), draft, observations)}
    policy = draft.policy.model_copy(update={"steps": run.step, **measured})
    return export_policy(module, draft.model_copy(update={"policy": policy}), output, observations, images)


def watch_run(path: str | Path, data: str | Path | None, told: Callable[[int], None] | None = None) -> Measured:
    """Learn a Lyapunov function of what a run's policy sees, from the successes it learnt from, into its folder.

    Args:
        path: run directory.
        data: the store it learnt from, if it has moved.
        told: hears of each gradient step.

    Raises:
        OneStrideError: no run, no store, too few successes, or a policy that sees pictures.
    """
    run = load_run(path)
    contract = parse_contract(run.contract, str(run.path / "contract.json"))
    if contract.images:
        raise OneStrideError(f"{run.path}: expected a policy without pictures to watch, got one that sees them")
    store = _store(run, data)
    if store is None:
        raise OneStrideError(f"{run.path}: expected its training data to learn from; --data names a store that moved")
    return learn_watch(store, run.config.observations, contract.history, run.path, told)


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
    try:
        module = _exportable(run, contract, watch=any(one.name == NAME for one in contract.policy.monitors))
        observations, images = _observed(run, contract, None)
    except OneStrideError as error:
        return Finding(question, False, str(error))
    worst, count = parity(module, onnx_file.read_file(policy), contract, observations, images)
    return Finding(question, worst <= TOLERANCE, f"{worst:.2g} over {count} observations, at most {TOLERANCE}")


def _exportable(run: Run, contract: Contract, *, watch: bool) -> nn.Module:
    """The acting policy as a function of the contract's inputs, choosing as the contract says.

    With its learnt function beside it if it is watched.
    """
    module = selecting(run.agent.as_exportable(contract.policy.nfe), contract)
    pictures = pictures_of(run.config.vision)
    if watch:
        return Watched(module, *load_watch(run.path))
    return Seeing(module, pictures) if pictures else module


def _policy(module: nn.Module) -> Any:
    """What acts within an exportable."""
    return getattr(module, "policy", None)


def _monitors(module: nn.Module) -> tuple[MonitorTerms, ...]:
    """What the graph computes beside the chunk; nothing for most policies."""
    inner = module.policy if isinstance(module, Seeing) else module
    return tuple(MonitorTerms(**monitor._asdict()) for monitor in getattr(inner, "monitors", ()))


def _observed(run: Run, contract: Contract, data: str | Path | None) -> tuple[Array, Images]:
    """Observations (N, To * Do) of the training data, and their pictures; none where there is no store, or no more.

    Without pictures all of them, with pictures no more than are compared.
    """
    store = _store(run, data)
    if store is None:
        return np.empty((0, contract.history * contract.observation_size)), {}
    rows = np.arange(store.num_steps)
    if contract.images:
        rows = np.random.default_rng(0).permutation(rows)[: SAMPLES // 2]
    steps = [store.read(name).reshape(store.num_steps, -1)[rows] for name in run.config.observations]
    images = {term.name: _pictures(store, term.source.camera, rows, contract.history) for term in contract.images}
    return np.tile(np.concatenate(steps, axis=1).astype(np.float64), contract.history), images


def _store(run: Run, data: str | Path | None) -> Store | None:
    """What a run learnt from; None where there is no store, or no more."""
    where = Path(data or run.config.data)
    if not (data or run.config.data) or not where.exists():
        return None
    store = Store.open(where)
    if store.dataset_id != run.config.dataset_id:
        raise OneStrideError(f"{where}: expected dataset {run.config.dataset_id}, got {store.dataset_id}")
    return store


def _pictures(store: Store, feature: str, rows: NDArray[np.int64], history: int) -> NDArray[np.uint8]:
    """One picture of each row, as often as the policy looks back (N, To, H, W, C)."""
    found = np.concatenate([store.read_rows(feature, int(row), int(row) + 1) for row in rows])
    return np.repeat(found[:, None], history, axis=1)

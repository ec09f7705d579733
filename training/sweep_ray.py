"""The same sweep on Ray: its trials are tasks, which Ray places by the processors and GPUs they ask for.

On a cluster of several machines the data and the sweep's folder must lie where all of them see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onestride.hardware.errors import OneStrideError
from onestride.training.sweep import Outcome, Progress, Trial, run_trial


def run_on_ray(
    every: Sequence[Trial],
    folder: Path,
    *,
    address: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Run trials as Ray tasks; one that fails does not stop the others. In the trials' order.

    Args:
        every: The trials.
        folder: Of the sweep.
        address: Of a running cluster; None = one on this machine, for as long as this takes.
        cpus: Processors of a trial.
        gpus: GPUs of a trial; parts of one share it.
        progress: Called with each outcome.

    Raises:
        OneStrideError: Ray is not installed, there is no such cluster, or it can never place a trial.
    """
    ray = _imported()
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OneStrideError(f"expected a Ray cluster at {address or 'this machine'}, got: {error}") from error
    try:
        _check_resources(ray.cluster_resources(), cpus, gpus)
        return _gather(ray, every, folder.resolve(), cpus, gpus, progress)
    finally:
        ray.shutdown()


def _gather(
    ray: Any, every: Sequence[Trial], folder: Path, cpus: float, gpus: float, progress: Progress | None
) -> list[Outcome]:
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(run_trial)
    waiting = {task.remote(trial, folder): trial.name for trial in every}
    done: dict[str, Outcome] = {}
    while waiting:
        (reference, *_), _ = ray.wait(list(waiting), num_returns=1)
        name = waiting.pop(reference)
        try:
            done[name] = ray.get(reference)
        except ray.exceptions.RayError as error:  # the machine was lost, and so were its successors
            done[name] = Outcome(name, 1, message=str(error).splitlines()[0])
        if progress:
            progress(done[name])
    return [done[trial.name] for trial in every]


def _check_resources(offered: dict[str, float], cpus: float, gpus: float) -> None:
    for name, asked in (("CPU", cpus), ("GPU", gpus)):
        if asked > offered.get(name, 0.0):
            raise OneStrideError(f"expected a Ray cluster with {asked:g} {name}, got {offered.get(name, 0.0):g}")


def _imported() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise OneStrideError("a sweep on Ray needs ray: pip install 'onestride[ray]'") from None
    return ray

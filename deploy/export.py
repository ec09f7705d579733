"""Write a policy as one ONNX file with its contract inside. The only file of this room that knows torch.

The graph holds normaliser, network and clipping. Noise is an input, so the caller owns the randomness. Each
number of network evaluations (NFE) is an output of the same weights.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onestride.deploy import onnx_file
from onestride.deploy.contract import Contract, ExportTerms
from onestride.deploy.runtime import create_session, output_name
from onestride.hardware.durable import write_atomic
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

if TYPE_CHECKING:
    from torch import nn

OPSET = 20
TOLERANCE = 1e-5
SAMPLES = 256


def export_policy(module: nn.Module, contract: Contract, path: str | Path, observations: Array) -> Contract:
    """Export, compare with torch, embed the completed contract, sign, and write atomically.

    Args:
        module: from (observation (1, To * Do), noise (1, h, Da)) to one chunk (1, h, Da) per NFE of the contract.
        contract: the draft.
        path: the file to write.
        observations: (N, To * Do) from the dataset, for the comparison; N may be 0.

    Returns:
        The contract as embedded.

    Raises:
        OneStrideError: the exported graph differs from torch by more than 1e-5.
    """
    data = _graph(module, contract)
    worst, count = parity(module, data, contract, observations)
    if not worst <= TOLERANCE:
        raise OneStrideError(f"export differs from torch: expected at most {TOLERANCE}, got {worst:.3g}")
    complete = contract.model_copy(
        update={
            "export": ExportTerms(
                onestride=version("onestride"),
                torch=version("torch"),
                opset=OPSET,
                parity=worst,
                parity_samples=count,
            )
        }
    )
    entries = {onnx_file.CONTRACT_KEY: complete.model_dump_json()}
    signed = onnx_file.sign(onnx_file.with_metadata(data, entries))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, signed, path.parent)
    return complete


def _graph(module: nn.Module, contract: Contract) -> bytes:
    import torch

    inputs = contract.history * contract.observation_size
    noise = torch.zeros(1, contract.execution.horizon, contract.action_size)
    with _quiet():
        program: Any = torch.onnx.export(
            module.eval(),
            (torch.zeros(1, inputs), noise),
            dynamo=True,
            opset_version=OPSET,
            input_names=["observation", "noise"],
            output_names=[output_name(nfe) for nfe in contract.policy.nfe],
            external_data=False,
            verbose=False,
        )
    data: bytes = program.model_proto.SerializeToString()
    return data


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter reports its progress on the standard output and warns about its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def parity(module: nn.Module, data: bytes, contract: Contract, observations: Array) -> tuple[float, int]:
    """Largest difference between a file's graph and torch, over random and dataset observations.

    Returns:
        The largest absolute difference over all outputs, and the number of observations.
    """
    sessions = [create_session(data, output_name(nfe), "CPUExecutionProvider", "graph") for nfe in contract.policy.nfe]
    rng = np.random.default_rng(0)
    samples = _samples(contract, observations, rng)
    worst = 0.0
    for observation in samples:
        noise = rng.standard_normal((1, contract.execution.horizon, contract.action_size), dtype=np.float32)
        expected = _torch_chunks(module, observation, noise)
        for session, chunk in zip(sessions, expected, strict=True):
            got = session.run(None, {"observation": observation, "noise": noise})[0]
            if got.shape != noise.shape:
                raise OneStrideError(f"export: expected chunks of shape {noise.shape}, got {got.shape}")
            worst = float(np.maximum(worst, np.abs(got - chunk).max()))  # keeps a NaN, which `max` would drop
    return worst, len(samples)


def _samples(contract: Contract, observations: Array, rng: np.random.Generator) -> list[Any]:
    """Half drawn from the dataset, half normal around its middle with its range as spread, each (1, To * Do)."""
    low, high = np.array(contract.dataset.minimum), np.array(contract.dataset.maximum)
    middle, spread = np.tile((low + high) / 2, contract.history), np.tile((high - low) / 2 + 1e-3, contract.history)
    drawn = [middle + spread * rng.standard_normal(middle.size) for _ in range(SAMPLES // 2)]
    if len(observations):
        drawn += [observations[i] for i in rng.integers(0, len(observations), SAMPLES // 2)]
    return [np.asarray(sample, np.float32)[None] for sample in drawn]


def _torch_chunks(module: nn.Module, observation: Any, noise: Any) -> list[Any]:
    import torch

    with torch.no_grad():
        return [chunk.numpy() for chunk in module(torch.from_numpy(observation), torch.from_numpy(noise))]

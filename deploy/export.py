"""Write a policy as one ONNX file with its contract inside. The only file of this room that knows torch.

The graph holds normaliser, network and clipping. Noise is an input, so the caller owns the randomness. Each
number of network evaluations (NFE) is an output of the same weights. Where candidates are ranked, the ranking is part
of the graph, too.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onestride.deploy import onnx_file
from onestride.deploy.contract import Contract, ExportTerms
from onestride.deploy.runtime import Images, create_session, output_shapes
from onestride.hardware.durable import write_atomic
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

if TYPE_CHECKING:
    from torch import nn

Feed: TypeAlias = dict[str, Any]

OPSET = 20
TOLERANCE = 1e-5
SAMPLES = 256

TIE = 1e-5
"""Candidates whose values differ by less than this, relative to the largest, are alike: rounding may choose either."""


def export_policy(
    module: nn.Module, contract: Contract, path: str | Path, observations: Array, images: Images | None = None
) -> Contract:
    """Export, compare with torch, embed the completed contract, sign, and write atomically.

    Args:
        module: from (observation (1, To * Do), noise (N, h, Da), each of the pictures (1, To, H, W, C) uint8) to
            one chunk (1, h, Da) per NFE of the contract and one number (1,) per monitor; where N > 1, `near_best`
            gives the chunks between which rounding may decide.
        contract: the draft.
        path: the file to write.
        observations: (N, To * Do) from the dataset, for the comparison; N may be 0.
        images: the contract's pictures (N, To, H, W, C) that go with them.

    Returns:
        The contract as embedded.

    Raises:
        OneStrideError: the exported graph differs from torch by more than 1e-5.
    """
    data = _graph(module, contract)
    worst, count = parity(module, data, contract, observations, images)
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

    inputs = {
        name: torch.zeros(shape, dtype=torch.uint8 if name.startswith("image.") else torch.float32)
        for name, shape in contract.inputs.items()
    }
    with _quiet():
        program: Any = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(output_shapes(contract)),
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


def parity(
    module: nn.Module, data: bytes, contract: Contract, observations: Array, images: Images | None = None
) -> tuple[float, int]:
    """Largest difference between a file's graph and torch, over random and dataset observations.

    Where several candidates are valued alike up to rounding, each of them is right. The difference is absolute, and
    relative to actions larger than 1, which a dataset may have: float32 holds no more of them.

    Returns:
        The largest difference over all outputs, and the number of observations.
    """
    shapes = output_shapes(contract)
    sessions = [create_session(data, name, "CPUExecutionProvider", "graph") for name in shapes]
    rng = np.random.default_rng(0)
    worst, count = 0.0, 0
    for sample in _samples(contract, observations, images or {}, rng):
        feed = sample | {"noise": rng.standard_normal(contract.noise_shape, dtype=np.float32)}
        expected = _torch_outputs(module, [feed[name] for name in contract.inputs])
        for (name, shape), session, right in zip(shapes.items(), sessions, expected, strict=True):
            got = session.run(None, feed)[0]
            if got.shape != shape:
                raise OneStrideError(f"export: expected {name} of shape {shape}, got {got.shape}")
            difference = (np.abs(got - right) / np.maximum(1, np.abs(right))).reshape(len(right), -1).max(1).min()
            worst = float(np.maximum(worst, difference))  # keeps a NaN, which `max` would drop
        count += 1
    return worst, count


def _samples(contract: Contract, observations: Array, images: Images, rng: np.random.Generator) -> Iterator[Feed]:
    """Half normal around the dataset's middle with its range as spread, half drawn from it; without noise."""
    low, high = np.array(contract.dataset.minimum), np.array(contract.dataset.maximum)
    middle, spread = np.tile((low + high) / 2, contract.history), np.tile((high - low) / 2 + 1e-3, contract.history)
    for _ in range(SAMPLES // 2):
        seen = {
            one.input_name: rng.integers(0, 256, contract.inputs[one.input_name], np.uint8) for one in contract.images
        }
        yield _feed(middle + spread * rng.standard_normal(middle.size)) | seen
    for index in rng.integers(0, len(observations), SAMPLES // 2) if len(observations) else ():
        seen = {one.input_name: images[one.name][index : index + 1] for one in contract.images}
        yield _feed(observations[index]) | seen


def _feed(observation: Array) -> Feed:
    return {"observation": np.asarray(observation, np.float32)[None]}


def _torch_outputs(module: Any, inputs: list[Any]) -> list[Any]:
    """For each output what is right: chunks (M, h, Da), a monitor's number (1,)."""
    import torch

    observation, noise, *images = (torch.from_numpy(value) for value in inputs)
    with torch.no_grad():
        alone = len(noise) == 1
        outputs = module(observation, noise, *images) if alone else module.near_best(observation, noise, TIE, *images)
        return [output.numpy() for output in outputs]

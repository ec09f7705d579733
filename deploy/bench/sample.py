"""A policy of a usual size with random weights, made without torch and onnx: for a device that has no policy yet.

Its file is the same wherever it is made, so that devices can be compared by it. It knows no robot.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onestride.deploy import onnx_file
from onestride.deploy.contract import Contract
from onestride.deploy.runtime import output_name
from onestride.hardware.durable import write_atomic
from onestride.hardware.errors import OneStrideError

NAME = "sample-512x4"
OBSERVATION, HORIZON, ACTION, WIDTHS, NFE, RATE = 37, 5, 5, (512,) * 4, (1, 2, 4), 200.0

_FLOAT, _INT64, _OPSET, _IR = 1, 7, 20, 10


def sample_policy() -> Path:
    """The sample's file in the user's cache, made now if it is not there.

    Raises:
        OneStrideError: it cannot be written.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "onestride" / "samples" / f"{NAME}-{version('onestride')}.onnx"
    if not path.exists():
        entries = {onnx_file.CONTRACT_KEY: sample_contract().model_dump_json()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, onnx_file.sign(onnx_file.with_metadata(sample_graph(), entries)), path.parent)
        except OSError as error:
            raise OneStrideError(f"{path}: expected to write the sample there, got: {error}") from None
    return path


def sample_contract() -> Contract:
    """Numbers without a source and actions that no robot takes: it can be timed, and nothing else."""
    observed, acted = (
        [f"{what}{index}" for index in range(size)] for what, size in (("o", OBSERVATION), ("a", ACTION))
    )
    source = {"kind": "dataset", "feature": "observation", "names": observed, "units": [""] * OBSERVATION}
    return Contract.model_validate(
        {
            "schema_version": 1,
            "policy": {"name": NAME, "algorithm": "none", "nfe": NFE, "seed": 0, "steps": 0, "config": {}},
            "environment": None,
            "robot": None,
            "history": 1,
            "observations": [{"name": "observation", "source": source, "unit": None}],
            "actions": [{"name": "action", "mode": "dataset", "unit": None, "names": acted}],
            "execution": {"control_rate": None, "policy_rate": RATE, "horizon": HORIZON, "n_action_steps": HORIZON},
            "dataset": {
                "id": "none",
                "statistics": "none",
                "episodes": 0,
                "steps": 0,
                "observation_names": observed,
                "observation_units": [""] * OBSERVATION,
                "action_names": acted,
                "minimum": [-1.0] * OBSERVATION,
                "maximum": [1.0] * OBSERVATION,
            },
        }
    )


def sample_weights() -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Matrix (in, out) and bias of each layer, uniform within 1 / sqrt(in) as torch begins; the same everywhere."""
    rng, chunk = np.random.default_rng(0), HORIZON * ACTION
    widths = (OBSERVATION + chunk + 2, *WIDTHS, chunk)
    layers = []
    for fan_in, fan_out in pairwise(widths):
        drawn = rng.integers(-(2**15), 2**15, (fan_in + 1, fan_out)) * 2.0**-15
        values = (drawn / np.sqrt(fan_in)).astype(np.float32)
        layers.append((values[:-1], values[-1]))
    return layers


def sample_graph() -> bytes:
    """The model: for each NFE as many steps of an average velocity, all with the same weights."""
    chunk = HORIZON * ACTION
    tensors = [_tensor("flat", np.array([1, chunk], np.int64)), _tensor("shape", np.array([1, HORIZON, ACTION]))]
    for layer, (matrix, bias) in enumerate(sample_weights()):
        tensors += [_tensor(f"w{layer}", matrix), _tensor(f"b{layer}", bias)]
    nodes = [_node("Reshape", ["noise", "flat"], "z")]
    for nfe in NFE:
        at = "z"
        for step in range(nfe, 0, -1):
            name = f"{nfe}.{step}"
            times = np.array([[step / nfe, 1 / nfe]], np.float32)
            tensors += [_tensor(f"{name}.t", times), _tensor(f"{name}.h", np.array(1 / nfe, np.float32))]
            nodes += [*_velocity(at, name), _node("Mul", [f"{name}.u", f"{name}.h"], f"{name}.d")]
            nodes.append(_node("Sub", [at, f"{name}.d"], f"{name}.z"))
            at = f"{name}.z"
        nodes.append(_node("Reshape", [at, "shape"], output_name(nfe)))
    inputs = [_value("observation", (1, OBSERVATION)), _value("noise", (1, HORIZON, ACTION))]
    outputs = [_value(output_name(nfe), (1, HORIZON, ACTION)) for nfe in NFE]
    return _model(nodes, tensors, inputs, outputs)


def _velocity(z: str, name: str) -> list[bytes]:
    """The network's nodes, from observation, point and times to `<name>.u`."""
    at, last = f"{name}.x", len(WIDTHS)
    nodes = [_node("Concat", ["observation", z, f"{name}.t"], at, axis=1)]
    for layer in range(last + 1):
        to = f"{name}.u" if layer == last else f"{name}.g{layer}"
        nodes.append(_node("Gemm", [at, f"w{layer}", f"b{layer}"], to))
        at = to
        if layer < last:
            nodes.append(_node("Gelu", [at], f"{at}.a"))
            at = f"{at}.a"
    return nodes


# ONNX's messages, written field by field; numbers from https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.


def _model(
    nodes: Iterable[bytes], tensors: Iterable[bytes], inputs: Iterable[bytes], outputs: Iterable[bytes]
) -> bytes:
    parts = {1: nodes, 2: [b"sample"], 5: tensors, 11: inputs, 12: outputs}
    graph = b"".join(_bytes(number, value) for number, values in parts.items() for value in values)
    opset = _bytes(1, b"") + _number(2, _OPSET)
    return _number(1, _IR) + _bytes(7, graph) + _bytes(8, opset)


def _node(operator: str, inputs: list[str], output: str, **attributes: int) -> bytes:
    names = b"".join(_bytes(1, name.encode()) for name in inputs) + _bytes(2, output.encode())
    given = (_bytes(1, name.encode()) + _number(3, value) + _number(20, 2) for name, value in attributes.items())
    return names + _bytes(4, operator.encode()) + b"".join(_bytes(5, one) for one in given)


def _tensor(name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> bytes:
    kind = _FLOAT if values.dtype == np.float32 else _INT64
    sizes = b"".join(_number(1, size) for size in values.shape)
    return sizes + _number(2, kind) + _bytes(8, name.encode()) + _bytes(9, np.ascontiguousarray(values).tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, _FLOAT) + _bytes(2, sizes)))


_bytes, _number = onnx_file.encode_bytes, onnx_file.encode_number

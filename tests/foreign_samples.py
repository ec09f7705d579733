"""ONNX policies as other trainers write them, made here: a graph of one matrix, with or without metadata."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np


def foreign_graph(
    inputs: int,
    outputs: int,
    *,
    batch: Any = 1,
    names: tuple[str, str] = ("obs", "actions"),
    metadata: list[tuple[str, str]] | None = None,
    further: tuple[str, ...] = (),
    seed: int = 0,
) -> bytes:
    """`actions = obs @ W`, W (inputs, outputs) drawn under `seed`; see `foreign_weights`."""
    from onnx import TensorProto, helper

    weights = foreign_weights(inputs, outputs, seed)
    taken, given = names
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", [taken, "W"], [given])],
        "foreign",
        [values(name, TensorProto.FLOAT, [batch, inputs]) for name in (taken, *further)],
        [values(given, TensorProto.FLOAT, [batch, outputs])],
        [helper.make_tensor("W", TensorProto.FLOAT, weights.shape, weights.ravel())],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    for key, value in metadata or []:
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return bytes(model.SerializeToString())


def foreign_weights(inputs: int, outputs: int, seed: int = 0) -> np.ndarray:
    """Weights of `foreign_graph`."""
    return np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

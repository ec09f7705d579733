"""A policy that fails as real ones do, whenever one element of its observation says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from legged_samples import legged_content, legged_contract
from onnx import TensorProto, helper, numpy_helper

from onestride.deploy import onnx_file
from onestride.deploy.contract import RobotTerms
from onestride.hardware.description import RobotDescription

from .tiny_policy import HORIZON, contract, graph

#: The element's values from which on actions are not finite, and inference takes far too long; below, it throws.
NOT_FINITE, SLOW, THROWS = 5.0, 15.0, -5.0

#: Products of 256 x 256 matrices for every unit above `SLOW`: of the order of 0.02 s a hundred.
PRODUCTS = 200.0


def touchy_graph(
    action: Sequence[float],
    element: int,
    *,
    noise_gain: float = 0.0,
    observed: int = 28,
    horizon: int = HORIZON,
) -> bytes:
    """An ONNX model as `tiny_policy.graph`, which is touched by one element of the observation."""
    model = onnx.load_from_string(graph(action, noise_gain, observed=observed, horizon=horizon))
    chosen = [node for node in model.graph.node if node.output[0].startswith("actions_")]
    for node in chosen:
        node.input[0] = "touched"
    others = [node for node in model.graph.node if node not in chosen]
    del model.graph.node[:]
    model.graph.node.extend([*others, *_touched(), *chosen])
    model.graph.initializer.extend(_constants(element))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _constants(element: int) -> list[onnx.TensorProto]:
    constants: dict[str, np.ndarray] = {
        "element": np.array(element, np.int64),
        "nil": np.array(0.0, np.float32),
        "true": np.array(True),
        "not_finite_from": np.array(NOT_FINITE, np.float32),
        "slow_from": np.array(SLOW, np.float32),
        "throws_from": np.array(THROWS, np.float32),
        "products": np.array(PRODUCTS, np.float32),
        "table": np.zeros(1, np.float32),
        "square": np.full((256, 256), 1.0 / 256.0, np.float32),
    }
    return [numpy_helper.from_array(array, name) for name, array in constants.items()]


def _touched() -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Gather", ["observation", "element"], ["of_all"], axis=1),
        node("ReduceSum", ["of_all"], ["touch"], keepdims=0),
        # The root of a negative number is not a number; nothing of another one is nothing.
        node("Sub", ["not_finite_from", "touch"], ["margin"]),
        node("Sqrt", ["margin"], ["root"]),
        node("Mul", ["root", "nil"], ["finite"]),
        # There is one entry to look up.
        node("Sub", ["throws_from", "touch"], ["below"]),
        node("Relu", ["below"], ["place"]),
        node("Cast", ["place"], ["entry"], to=TensorProto.INT64),
        node("Gather", ["table", "entry"], ["found"]),
        # Nothing of a product of many matrices.
        node("Sub", ["touch", "slow_from"], ["above"]),
        node("Relu", ["above"], ["units"]),
        node("Mul", ["units", "products"], ["many"]),
        node("Cast", ["many"], ["rounds"], to=TensorProto.INT64),
        node("Loop", ["rounds", "true", "square"], ["product"], body=_product()),
        node("ReduceMax", ["product"], ["largest"], keepdims=0),
        node("Mul", ["largest", "nil"], ["late"]),
        node("Sum", ["moved", "finite", "found", "late"], ["touched"]),
    ]


def _product() -> onnx.GraphProto:
    """One round of the loop: another product with the outer graph's matrix."""
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "square"], ["after"]),
            helper.make_node("Identity", ["go_on"], ["going_on"]),
        ],
        "product",
        [
            value("round", TensorProto.INT64, []),
            value("go_on", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, [256, 256]),
        ],
        [value("going_on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [256, 256])],
    )


def write_touchy(path: Path, action: Sequence[float], **execution: float) -> Path:
    """Write and sign a policy for the one-cube task that is touched by the gripper's contact reading.

    Args:
        path: of the file.
        action: what it does otherwise.
        execution: terms of the contract's execution that differ, such as `control_rate`.
    """
    terms = contract()
    terms = terms.model_copy(update={"execution": terms.execution.model_copy(update=execution)})
    model = touchy_graph(action, terms.observation_names.index("gripper_contact.value"))
    path.write_bytes(onnx_file.sign(onnx_file.with_metadata(model, {onnx_file.CONTRACT_KEY: terms.model_dump_json()})))
    return path


def write_touchy_legs(path: Path, robot: RobotDescription, noise_gain: float) -> Path:
    """Write and sign a policy that has a Go1 stand, a little uneasily, and is touched by what is asked forwards."""
    *others, command = legged_content()["observations"]
    asked = {"kind": "velocity_command", "low": [-100.0, -1.0, -1.0], "high": [100.0, 1.0, 1.0]}
    own = RobotTerms.of(robot).model_dump(mode="json")
    terms = legged_contract(observations=[*others, {**command, "source": asked}], robot=own)
    sizes = {"observed": len(terms.observation_names), "horizon": 1}
    model = touchy_graph([0.0] * 12, terms.observation_names.index("command.vx"), noise_gain=noise_gain, **sizes)
    path.write_bytes(onnx_file.sign(onnx_file.with_metadata(model, {onnx_file.CONTRACT_KEY: terms.model_dump_json()})))
    return path

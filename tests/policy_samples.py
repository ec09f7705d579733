"""Small policies to test with: the cube task's contract, around a graph of a few nodes, signed like any other file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onestride.deploy import onnx_file
from onestride.deploy.contract import (
    Contract,
    DatasetTerms,
    ExecutionTerms,
    ExportTerms,
    PolicyTerms,
    RobotTerms,
    parse_contract,
)
from onestride.deploy.runtime import output_name
from onestride.hardware.description import load_robot
from onestride.training.environments.ogbench_interface import cube_interface

ROBOT = "ur5e_2f85"
Change = Callable[[Any], None]


def cube_contract() -> Contract:
    """The single-cube task's contract, complete, without any training."""
    known = cube_interface(1)
    size = len(known.observation_names)
    return Contract(
        schema_version=1,
        policy=PolicyTerms(name="sample", algorithm="mvp", nfe=(1, 2), seed=3, steps=60, config={"rate": 3e-4}),
        environment="ogbench/cube-single-singletask-task2-v0",
        robot=RobotTerms.of(load_robot(ROBOT)),
        history=1,
        observations=known.observations,
        actions=known.actions,
        kinematics=known.kinematics,
        execution=ExecutionTerms(control_rate=200.0, policy_rate=20.0, horizon=5, n_action_steps=5),
        dataset=DatasetTerms(
            id="0123456789ab",
            statistics="ab" * 32,
            episodes=4,
            steps=400,
            observation_names=known.observation_names,
            observation_units=known.observation_units,
            action_names=known.action_names,
            minimum=tuple(np.linspace(-1.0, -0.1, size).tolist()),
            maximum=tuple(np.linspace(0.1, 1.0, size).tolist()),
        ),
        export=ExportTerms(onestride="0.1.0", torch="2.13.0", opset=20, parity=1e-7, parity_samples=256),
    )


def changed(contract: Contract, change: Change) -> dict[str, Any]:
    """The contract's JSON after `change` has edited it in place."""
    content = json.loads(contract.model_dump_json())
    change(content)
    return content


def parse(content: object) -> Contract:
    """Read a contract from JSON content."""
    return parse_contract(json.dumps(content), "test.onnx")


def sample_chunk(observation: np.ndarray, noise: np.ndarray, nfe: int) -> np.ndarray:
    """What the sample graph computes: the observation's mean plus a tenth of the noise per evaluation."""
    return np.asarray(observation.mean() + 0.1 * nfe * noise, np.float32)


def sample_graph(contract: Contract) -> bytes:
    """A graph of the contract's shapes that computes `sample_chunk`, one output for each NFE."""
    from onnx import TensorProto, helper

    inputs = contract.history * contract.observation_size
    chunk = [1, contract.execution.horizon, contract.action_size]
    nodes = [helper.make_node("ReduceMean", ["observation"], ["mean"], keepdims=0)]
    constants, outputs = [], []
    for nfe in contract.policy.nfe:
        constants.append(helper.make_tensor(f"scale{nfe}", TensorProto.FLOAT, [], [0.1 * nfe]))
        nodes.append(helper.make_node("Mul", ["noise", f"scale{nfe}"], [f"scaled{nfe}"]))
        nodes.append(helper.make_node("Add", [f"scaled{nfe}", "mean"], [output_name(nfe)]))
        outputs.append(helper.make_tensor_value_info(output_name(nfe), TensorProto.FLOAT, chunk))
    graph = helper.make_graph(
        nodes,
        "sample",
        [
            helper.make_tensor_value_info("observation", TensorProto.FLOAT, [1, inputs]),
            helper.make_tensor_value_info("noise", TensorProto.FLOAT, chunk),
        ],
        outputs,
        constants,
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    return bytes(model.SerializeToString())


def signed(data: bytes, contract: object) -> bytes:
    """A model with a contract, given as JSON content or as a contract, signed as export does it."""
    text = contract.model_dump_json() if isinstance(contract, Contract) else json.dumps(contract)
    return onnx_file.sign(onnx_file.with_metadata(data, {onnx_file.CONTRACT_KEY: text}))


def signed_anew(path: Path, target: Path, change: Change) -> Path:
    """A copy of a policy file with its contract edited in place and signed anew: whole, but other."""
    data = path.read_bytes()
    content = json.loads(onnx_file.metadata(data, str(path))[onnx_file.CONTRACT_KEY])
    change(content)
    target.write_bytes(signed(data, content))
    return target

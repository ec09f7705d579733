"""A small policy file with a real contract, made without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from onestride.deploy import onnx_file
from onestride.deploy.contract import Contract, DatasetTerms, ExecutionTerms, PolicyTerms, RobotTerms
from onestride.hardware.description import load_robot

HORIZON = 5
ENVIRONMENT = "ogbench/cube-single-singletask-task2-v0"


def contract() -> Contract:
    """The contract a policy for the one-cube task would have."""
    from onestride.training.environments.ogbench_interface import cube_interface

    interface = cube_interface(1)
    names, units = interface.observation_names, interface.observation_units
    return Contract(
        schema_version=1,
        policy=PolicyTerms(name="constant", algorithm="none", nfe=(1, 2), seed=0, steps=0, config={}),
        environment=ENVIRONMENT,
        robot=RobotTerms.of(load_robot(interface.robot)),
        history=1,
        observations=interface.observations,
        actions=interface.actions,
        kinematics=interface.kinematics,
        execution=ExecutionTerms(
            control_rate=interface.control_rate,
            policy_rate=interface.policy_rate,
            horizon=HORIZON,
            n_action_steps=HORIZON,
        ),
        dataset=DatasetTerms(
            id="none",
            statistics="none",
            episodes=1,
            steps=1,
            observation_names=names,
            observation_units=units,
            action_names=interface.action_names,
            minimum=(-100.0,) * len(names),
            maximum=(100.0,) * len(names),
        ),
    )


def graph(action: Sequence[float], noise_gain: float = 0.0, *, observed: int = 28, horizon: int = HORIZON) -> bytes:
    """An ONNX model: every action of the chunk is `action + noise_gain * noise`, whatever is observed."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    size = len(action)
    constants = [
        numpy_helper.from_array(np.zeros((observed, horizon * size), np.float32), "nothing"),
        numpy_helper.from_array(np.array([1, horizon, size], np.int64), "shape"),
        numpy_helper.from_array(np.array(action, np.float32), "action"),
        numpy_helper.from_array(np.array(noise_gain, np.float32), "gain"),
    ]
    nodes = [
        helper.make_node("MatMul", ["observation", "nothing"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["zero"]),
        helper.make_node("Mul", ["noise", "gain"], ["shaken"]),
        helper.make_node("Add", ["zero", "shaken"], ["moved"]),
    ]
    outputs = []
    for nfe in (1, 2):
        nodes.append(helper.make_node("Add", ["moved", "action"], [f"actions_nfe{nfe}"]))
        outputs.append(helper.make_tensor_value_info(f"actions_nfe{nfe}", TensorProto.FLOAT, [1, horizon, size]))
    inputs = [
        helper.make_tensor_value_info("observation", TensorProto.FLOAT, [1, observed]),
        helper.make_tensor_value_info("noise", TensorProto.FLOAT, [1, horizon, size]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "constant", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_policy(
    path: Path,
    action: Sequence[float] = (0.0, 0.0, 0.0, 0.0, 0.0),
    *,
    noise_gain: float = 0.0,
    change: Callable[[Contract], Contract] = lambda same: same,
) -> Path:
    """Write and sign a policy file; `change` alters its contract."""
    text = change(contract()).model_dump_json()
    data = onnx_file.with_metadata(graph(action, noise_gain), {onnx_file.CONTRACT_KEY: text})
    path.write_bytes(onnx_file.sign(data))
    return path

"""From what a trainer's files say to a contract that fits graph and robot, and to a YAML file for people."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel

from onestride.deploy import onnx_file
from onestride.deploy.contract import SCHEMA_VERSION, Contract, ExecutionTerms, GraphTerms, PolicyTerms, RobotTerms
from onestride.deploy.foreign import unknown_data
from onestride.deploy.importers.names import Answers
from onestride.deploy.runtime import import_onnxruntime
from onestride.deploy.terms import ActionTerm, ObservationTerm
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.state import Array

#: Commands go out this often where neither the file nor a person says, if policy and robot allow it [Hz].
USUAL_RATE = 200.0


@dataclass(frozen=True)
class Graph:
    """What a policy's graph takes and gives.

    Attributes:
        terms: names and hash.
        inputs: size of the input.
        outputs: size of the output.
        metadata: what the file says of itself.
    """

    terms: GraphTerms
    inputs: int
    outputs: int
    metadata: dict[str, str]


@dataclass(frozen=True)
class Draft:
    """What a trainer's files say.

    Attributes:
        name: of the policy.
        algorithm: that learnt it.
        observations: in order.
        action: what it does.
        history: observation steps.
        history_order: their layout.
        policy_rate: actions per second [Hz].
    """

    name: str
    algorithm: str
    observations: list[ObservationTerm]
    action: ActionTerm
    history: int
    history_order: str
    policy_rate: float


def read_graph(path: Path) -> Graph:
    """Look into a graph of one input and one output.

    Raises:
        OneStrideError: no ONNX file, a graph of another form, or an onestride policy.
    """
    data = onnx_file.read_file(path)
    metadata = onnx_file.metadata(data, str(path))
    if onnx_file.CONTRACT_KEY in metadata:
        raise OneStrideError(f"{path}: carries its own contract; there is nothing to import")
    try:
        session = import_onnxruntime().InferenceSession(data, providers=["CPUExecutionProvider"])
    except OneStrideError:
        raise
    except Exception as error:  # onnxruntime raises its own C++ exceptions, which share no base class
        raise OneStrideError(f"{path}: the graph is refused: {error}") from None
    taken, given = (
        _only(path, *found) for found in (("input", session.get_inputs()), ("output", session.get_outputs()))
    )
    digest = hashlib.sha256(data).hexdigest()
    return Graph(GraphTerms(input=taken[0], output=given[0], sha256=digest), taken[1], given[1], metadata)


def _only(path: Path, what: str, found: list[Any]) -> tuple[str, int]:
    """Name and size of the only input or output."""
    shapes = {one.name: one.shape for one in found}
    if len(found) != 1:
        raise OneStrideError(f"{path}: expected a graph of one {what}, got {shapes}")
    (name, shape), *_ = shapes.items()
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise OneStrideError(f"{path}: {what} {name}: expected a shape of (1, size), got {shape}")
    return name, shape[1]


def finished(draft: Draft, graph: Graph, robot: RobotDescription, answers: Answers) -> Contract:
    """The contract of a draft, on a robot that has the gains it was trained with.

    Raises:
        OneStrideError: the draft does not fit the graph.
    """
    size = sum(term.size for term in draft.observations)
    if draft.history * size != graph.inputs or draft.action.size != graph.outputs:
        raise OneStrideError(
            f"{draft.name}: {draft.history} x {size} observations and {draft.action.size} actions by its description, "
            f"but {graph.terms.input} takes {graph.inputs} numbers and {graph.terms.output} gives {graph.outputs}"
        )
    gains = RobotTerms.of(robot)
    return Contract(
        schema_version=SCHEMA_VERSION,
        policy=PolicyTerms(name=draft.name, algorithm=draft.algorithm, nfe=(1,), seed=0, steps=0, config={}),
        environment=None,
        robot=RobotTerms(
            id=robot.id, joints=gains.joints, stiffness=gains.stiffness, damping=gains.damping, default=gains.default
        ),
        history=draft.history,
        history_order="term_major" if draft.history_order == "term_major" else "step_major",
        observations=tuple(draft.observations),
        actions=(draft.action,),
        execution=ExecutionTerms(
            control_rate=answers.control_rate or _control_rate(draft.policy_rate, robot),
            policy_rate=draft.policy_rate,
            horizon=1,
            n_action_steps=1,
            interpolation="hold",
        ),
        dataset=unknown_data(draft.observations, [draft.action]),
        graph=graph.terms,
    )


def _control_rate(policy_rate: float, robot: RobotDescription) -> float:
    """The highest multiple of the policy's rate that the robot takes, up to the usual one."""
    return policy_rate * max(1, int(min(USUAL_RATE, robot.control_rates[1]) / policy_rate + 1e-9))


def same_gains(source: str, robot: RobotDescription, said: dict[str, dict[str, float]], digits: str) -> None:
    """Compare gains by joint name, to the digits that the file has (`.3f`, `.3g`).

    Raises:
        OneStrideError: a gain differs from the robot's.
    """
    for gain, values in said.items():
        for joint in robot.joints:
            ours, theirs = (format(value, digits) for value in (getattr(joint, gain), values[joint.name]))
            if ours != theirs:
                raise OneStrideError(
                    f"{source}: {gain} of {joint.name}: trained with {theirs}, robot {robot.id} has {ours}; "
                    "a robot description with the trained gains makes it fit: --robot FILE.yaml"
                )


def uniform(values: Array | list[float]) -> float | tuple[float, ...]:
    """One number where all are the same."""
    numbers = tuple(float(value) for value in np.asarray(values, dtype=np.float64).ravel())
    return numbers[0] if len(set(numbers)) == 1 else numbers


def as_yaml(contract: Contract, origin: str) -> str:
    """The contract file: what was said, without what is left at its default or not known."""
    content = _said(contract)
    del content["dataset"]
    text: str = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    return f"# Made by `onestride import-contract` from {origin}. Read it before it moves a robot.\n{text}"


def _said(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            name: _said(getattr(value, name))
            for name, field in fields.items()
            if name == "kind" or field.is_required() or getattr(value, name) != field.get_default()
        }
    return [_said(item) for item in value] if isinstance(value, tuple) else value

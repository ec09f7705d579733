"""Whether a graph takes and gives what its contract says."""

from __future__ import annotations

from typing import Any

from onestride.deploy.contract import Contract

Shape = list[int | str | None]


def graph_problem(session: Any, contract: Contract, expected: tuple[int, ...]) -> str:
    """What of a session's inputs and of its first output does not fit the contract; empty if all does.

    A graph that onestride did not export may leave its first dimension, the batch, free: one observation is fed.

    Args:
        session: of onnxruntime.
        contract: the promise.
        expected: shape of the output.
    """
    free = contract.graph is not None
    wanted = {name: list(shape) for name, shape in contract.inputs.items()}
    found = {item.name: _of_one(item.shape, free) for item in session.get_inputs()}
    if found != wanted:
        return f"inputs: the contract gives {wanted}, the graph has {found}"
    output = session.get_outputs()[0]
    if _of_one(output.shape, free) != list(expected):
        return f"{output.name}: expected shape {list(expected)}, got {output.shape}"
    kinds = {item.name: item.type for item in (*session.get_inputs(), output)}
    strange = [f"{name} {kind}" for name, kind in kinds.items() if free and kind != "tensor(float)"]
    return f"expected float32, the graph has {', '.join(strange)}" if strange else ""


def _of_one(shape: Shape, free: bool) -> Shape:
    """The shape for a batch of one, where the batch is free and may be."""
    return [1, *shape[1:]] if free and shape and not isinstance(shape[0], int) else shape

"""Contracts out of what other trainers write beside their policies; whatever is ambiguous is refused by name."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from onestride.deploy.contract import Contract
from onestride.deploy.importers.drafting import finished, read_graph
from onestride.deploy.importers.metadata import draft_of_metadata
from onestride.deploy.importers.names import Answers
from onestride.deploy.importers.unitree import draft_of_deployment
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import explain


def import_contract(
    policy: Path, robot: RobotDescription, answers: Answers, deployment: Path | None = None
) -> Contract:
    """The contract of a policy that another trainer wrote.

    Args:
        policy: its ONNX file.
        robot: that it is for.
        answers: what its files leave open.
        deployment: the `deploy.yaml` beside it; None where its own metadata describe it.

    Raises:
        OneStrideError: a file is refused, something is ambiguous, or policy, description and robot do not fit.
    """
    graph = read_graph(policy)
    try:
        if deployment is None:
            draft = draft_of_metadata(policy.name, graph, robot, answers)
        else:
            draft = draft_of_deployment(deployment, policy.name, robot, answers)
        return finished(draft, graph, robot, answers)
    except ValidationError as error:
        raise OneStrideError(f"{deployment or policy}: {explain(error)}") from None

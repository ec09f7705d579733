"""Is this policy file whole, and does it fit the robot and the data? Each question gets its own line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onestride.deploy import onnx_file
from onestride.deploy.contract import Contract, parse_contract
from onestride.deploy.foreign import load_policy
from onestride.deploy.graph import graph_problem
from onestride.deploy.runtime import create_session, output_shapes
from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.model import Model
from onestride.hardware.safety.chain import ProjectionFilter

if TYPE_CHECKING:
    from onestride.datasets.schema import Schema


@dataclass(frozen=True)
class Finding:
    """One question answered.

    Attributes:
        question: what was looked at.
        passed: whether it is as it should be.
        detail: what was found.
    """

    question: str
    passed: bool
    detail: str


def check_file(path: str | Path, contract_file: str | Path | None = None) -> tuple[list[Finding], Contract | None]:
    """Integrity, contract and graph of a policy file; later questions are asked only where earlier ones passed.

    Args:
        path: the ONNX file.
        contract_file: of a policy that onestride did not export.
    """
    if contract_file is not None:
        return _check_foreign(path, contract_file)
    findings: list[Finding] = []
    try:
        data = onnx_file.read_file(path)
        digest = onnx_file.verify(data, str(path))
        findings.append(Finding("integrity", True, f"sha256 {digest}"))
        entries = onnx_file.metadata(data, str(path))
        if onnx_file.CONTRACT_KEY not in entries:
            raise OneStrideError(f"{path}: carries no {onnx_file.CONTRACT_KEY}")
    except OneStrideError as error:
        return [*findings, Finding("integrity", False, str(error))], None
    try:
        contract = parse_contract(entries[onnx_file.CONTRACT_KEY], str(path))
    except OneStrideError as error:
        return [*findings, Finding("contract", False, str(error))], None
    findings.append(Finding("contract", True, _summary(contract)))
    findings.append(_check_graph(data, contract, str(path)))
    findings.append(_recorded_parity(contract))
    return findings, contract


def _check_foreign(path: str | Path, contract_file: str | Path) -> tuple[list[Finding], Contract | None]:
    try:
        contract, digest, data = load_policy(path, contract_file)
    except OneStrideError as error:
        return [Finding("contract", False, str(error))], None
    findings = [
        Finding("integrity", True, f"sha256 {digest}, as {contract_file} has it"),
        Finding("contract", True, _summary(contract)),
        _check_graph(data, contract, str(path)),
    ]
    return findings, contract


def _summary(contract: Contract) -> str:
    execution, robot = contract.execution, contract.robot.id if contract.robot else "none (actions as in the dataset)"
    seen = "".join(f" + {term.name} {term.width}x{term.height}" for term in contract.images)
    return (
        f"{contract.policy.name}: {contract.observation_size} observations{seen} x {contract.history} -> "
        f"{execution.horizon} x {contract.action_size} actions at {execution.policy_rate:g} Hz, "
        f"NFE {', '.join(map(str, contract.policy.nfe))}, {_ranking(contract)}{_slope(contract)}robot {robot}"
    )


def _ranking(contract: Contract) -> str:
    candidates = contract.policy.candidates
    return f"best of {candidates} candidates, " if candidates > 1 else ""


def _slope(contract: Contract) -> str:
    terms = contract.policy.lipschitz
    return f"Lipschitz constant {terms.seen:.3g} to {terms.bound:.3g}, " if terms else ""


def _check_graph(data: bytes, contract: Contract, source: str) -> Finding:
    try:
        for name, expected in output_shapes(contract).items():
            session = create_session(data, name, "CPUExecutionProvider", source)
            if problem := graph_problem(session, contract, expected):
                return Finding("graph", False, problem)
    except OneStrideError as error:
        return Finding("graph", False, str(error))
    wanted = {name: list(shape) for name, shape in contract.inputs.items()}
    return Finding("graph", True, f"loads in onnxruntime, inputs {wanted}")


def _recorded_parity(contract: Contract) -> Finding:
    if contract.export is None:
        return Finding("recorded parity", False, "the contract is a draft: export was not completed")
    terms = contract.export
    detail = f"{terms.parity:.2g} over {terms.parity_samples} observations, as recorded at export (torch {terms.torch})"
    return Finding("recorded parity", True, detail)


def check_robot(contract: Contract, robot: str | Path) -> Finding:
    """Whether the contract fits a robot description, by id or file."""
    try:
        differences = contract.differences(load_robot(robot))
    except OneStrideError as error:
        return Finding("robot", False, str(error))
    return Finding("robot", not differences, "; ".join(differences) or f"fits {robot}")


def check_safety(robot: str | Path) -> list[Finding]:
    """What every command to a robot has to pass, filter by filter and row by row, as its description declares it."""
    try:
        chain = load_robot(robot).safety
    except OneStrideError:  # `check_robot` says so
        return []
    found = []
    for terms in chain:
        found.append(Finding(f"safety {terms.filter}", True, _claim(terms)))
        rows = terms.rows if isinstance(terms, ProjectionFilter) else ()
        found.extend(Finding(f"safety {terms.filter}.{row.row}", True, _claim(row)) for row in rows)
    return found


def _claim(terms: Model) -> str:
    """The first sentences of a model's own description, and its settings."""
    words = " ".join((type(terms).__doc__ or "").partition("\n\n")[0].split())
    values = terms.model_dump(mode="json", exclude={"filter", "row", "rows"})
    settings = [f"{name} {value}" for name, value in values.items() if not isinstance(value, dict | list)]
    return f"{words} ({', '.join(settings)})" if settings else words


def check_data(contract: Contract, path: str | Path) -> list[Finding]:
    """Whether a store's features are those that the contract names, and within the training ranges."""
    try:
        from onestride.datasets.store import Store
    except ModuleNotFoundError as error:
        return [Finding("data", False, f"reading a store needs {error.name}: pip install 'onestride[train]'")]
    try:
        store = Store.open(path)
        order = _feature_order(contract, {f.name: f.element_names for f in store.schema.by_role("observation")})
        _same_meaning(contract, store.schema, order)
        _same_pictures(contract, store.schema)
        values = np.concatenate([store.read(name).reshape(store.num_steps, -1) for name in order], axis=1)
    except OneStrideError as error:
        return [Finding("data", False, str(error))]
    same = store.dataset_id == contract.dataset.id
    origin = "the training data itself" if same else "another dataset with the same observations"
    return [Finding("data", True, f"{path} is {origin} ({store.dataset_id})"), _check_envelope(contract, values)]


def _feature_order(contract: Contract, features: dict[str, tuple[str, ...]]) -> list[str]:
    """The features whose element names, concatenated, are the contract's; refused where none fits."""
    wanted, order = contract.observation_names, []
    at = 0
    while at < len(wanted):
        found = next((f for f, names in features.items() if wanted[at : at + len(names)] == names), None)
        if found is None:
            raise OneStrideError(_why_not(wanted[at:], features))
        order.append(found)
        at += len(features[found])
    return order


def _same_meaning(contract: Contract, schema: Schema, order: list[str]) -> None:
    """Units, where the data states them, and the names of the action."""
    units = [unit for name in order for unit in schema.feature(name).element_units]
    for name, ours, theirs in zip(contract.observation_names, contract.observation_units, units, strict=True):
        if theirs not in ("", ours):
            raise OneStrideError(f"unit of observation {name}: the contract has {ours!r}, the data {theirs!r}")
    wanted, found = contract.action_names, schema.feature(schema.label).element_names
    if wanted != found:
        raise OneStrideError(f"action: the contract has {', '.join(wanted)}, the data {', '.join(found)}")


def _same_pictures(contract: Contract, schema: Schema) -> None:
    pictures = {one.name: one.shape for one in schema.by_role("observation") if one.dtype == "uint8"}
    for term in contract.images:
        if pictures.get(term.source.camera) != term.shape:
            raise OneStrideError(
                f"image {term.name}: the contract has {term.source.camera} of shape {term.shape}, "
                f"the data {pictures or 'no pictures'}"
            )


def _why_not(wanted: tuple[str, ...], features: dict[str, tuple[str, ...]]) -> str:
    present = {name for names in features.values() for name in names}
    missing = next((name for name in wanted if name not in present), None)
    if missing is not None:
        return f"observation {missing!r} of the contract is not in the data; available: {', '.join(sorted(present))}"
    for feature, names in features.items():
        if set(names) == set(wanted[: len(names)]):
            index = next(i for i, name in enumerate(names) if name != wanted[i])
            return (
                f"observation order differs: the contract has {wanted[index]!r} where {feature}[{index}] "
                f"of the data is {names[index]!r}"
            )
    return f"no features of the data follow each other as the contract's observations do, from {wanted[0]!r} on"


def _check_envelope(contract: Contract, values: np.ndarray) -> Finding:
    low, high = np.array(contract.dataset.minimum), np.array(contract.dataset.maximum)
    outside = (values < low - 1e-6) | (values > high + 1e-6)
    share, worst = float(outside.any(axis=1).mean()), int(outside.mean(axis=0).argmax())
    detail = f"{share:.1%} of steps leave the training ranges"
    return Finding("envelope", True, detail + (f", most often {contract.observation_names[worst]}" if share else ""))

"""Policies that onestride did not export: an ONNX file, and a contract written beside it in a file of its own.

The contract file is YAML or JSON and holds what a contract inside a policy file holds, `graph` included. What nobody
can know of such a policy may be left out: NFE, seed, steps and settings of the training, and the dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from onestride.deploy import onnx_file
from onestride.deploy.contract import Contract, parse_contract
from onestride.deploy.contract_terms import DatasetTerms
from onestride.deploy.terms import ActionTerm, ObservationTerm
from onestride.hardware.errors import OneStrideError, unknown

_POLICY: dict[str, Any] = {"nfe": [1], "seed": 0, "steps": 0, "config": {}}


def load_policy(path: str | Path, contract: str | Path | None = None) -> tuple[Contract, str, bytes]:
    """Read a policy file and verify it against its contract, without loading its graph.

    Args:
        path: the ONNX file.
        contract: a contract file; None where the policy carries its own.

    Returns:
        The contract, the file's SHA-256 and its bytes.

    Raises:
        OneStrideError: a file is missing or damaged, the contract is refused, there is none or there are two, or it
            was written for another file.
    """
    data = onnx_file.read_file(path)  # once: what is run is what was verified
    entries = onnx_file.metadata(data, str(path))
    if contract is not None:
        return (*_foreign(data, path, contract, entries), data)
    digest = onnx_file.verify(data, str(path))
    if onnx_file.CONTRACT_KEY not in entries:
        raise OneStrideError(f"{path}: carries no {onnx_file.CONTRACT_KEY}")
    return parse_contract(entries[onnx_file.CONTRACT_KEY], str(path)), digest, data


def _foreign(data: bytes, path: str | Path, contract_file: str | Path, entries: dict[str, str]) -> tuple[Contract, str]:
    if onnx_file.CONTRACT_KEY in entries:
        raise OneStrideError(f"{path}: carries its own contract; expected no other, got {contract_file}")
    contract = read_contract(contract_file)
    digest, meant = hashlib.sha256(data).hexdigest(), contract.graph.sha256 if contract.graph else ""
    if meant != digest:
        raise OneStrideError(
            f"{contract_file} was written for another file: graph.sha256 is {meant[:12]}…, "
            f"but {path} has {digest[:12]}…"
        )
    return contract, digest


def available_contracts() -> tuple[str, ...]:
    """Names of the contract files that come with onestride, for policies that others have published."""
    folder = resources.files("onestride.deploy") / "contracts"
    return tuple(sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml")))


def contract_argument(path: Path) -> str:
    """A contract file for another process, whose working directory may be another: as it is where it is a name."""
    return str(path.resolve()) if path.suffix or path.is_file() else str(path)


def read_contract(path: str | Path) -> Contract:
    """Read a contract file, YAML or JSON, or by name (`go1_joystick`) one that comes with onestride.

    Raises:
        OneStrideError: missing, unreadable, a key that stands twice, without `graph`, or a contract that is refused.
    """
    path = Path(path)
    if not path.suffix and not path.is_file():
        if str(path) not in available_contracts():
            raise unknown("contract, as a file or by name", str(path), available_contracts())
        path = Path(str(resources.files("onestride.deploy") / "contracts" / f"{path}.yaml"))
    content = read_table(path)
    if content.get("graph") is None:
        raise OneStrideError(f"{path}: graph: expected input, output and sha256 of the policy's file, got none")
    return parse_contract(json.dumps(_completed(content), default=str), str(path))


def read_table(path: str | Path) -> dict[str, Any]:
    """The content of a YAML or JSON file whose top level has named fields.

    Raises:
        OneStrideError: missing, unreadable, without named fields, or a key that stands twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            content = json.loads(text, object_pairs_hook=_each_key_once)
        else:
            content = yaml.load(text, Loader=_StrictLoader)
    except OSError as error:
        raise OneStrideError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise OneStrideError(f"{path}: not readable: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise OneStrideError(f"{path}: expected fields with names, got {type(content).__name__}")
    return content


def _completed(content: dict[str, Any]) -> dict[str, Any]:
    """The content with what cannot be known of a foreign policy; left as it is where it is wrong."""
    policy = content.get("policy")
    if isinstance(policy, dict):
        content = {**content, "policy": {**_POLICY, **policy}}
    if "dataset" in content:
        return content
    try:
        seen = [ObservationTerm.model_validate(term) for term in content["observations"]]
        done = [ActionTerm.model_validate(term) for term in content["actions"]]
    except (KeyError, TypeError, ValueError):  # parsing says what is wrong
        return content
    return {**content, "dataset": unknown_data(seen, done).model_dump(mode="json")}


def unknown_data(observations: list[ObservationTerm], actions: list[ActionTerm]) -> DatasetTerms:
    """Dataset terms that say no more than the terms do."""
    return DatasetTerms.unknown(
        tuple(name for term in observations for name in term.element_names),
        tuple(unit for term in observations for unit in term.element_units),
        tuple(name for term in actions for name in term.element_names),
    )


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"key {key!r} stands twice; refusing to guess which is meant")
        table[key] = value
    return table


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which no key may stand twice; YAML itself would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping, unless one of its keys stands twice."""
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.YAMLError(f"key {twice[0]!r} stands twice; refusing to guess which is meant")
        return super().construct_mapping(node, deep=deep)

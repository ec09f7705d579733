"""Snapshots of a training state on disk: whole or absent, checked when read, never pickled.

``checkpoints/step_<n>/`` holds one safetensors file per tensor group and ``state.json`` with the rest. A snapshot
is written beside its place, flushed, and renamed, so a kill at any instant leaves the earlier ones intact.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode
from safetensors.torch import save as encode

from onestride.hardware.durable import canonical_json, sync, sync_tree
from onestride.hardware.errors import OneStrideError

KEEP = 2
"""How many snapshots stay: the newest, and one to fall back to."""

FORMAT = 1
_STATE = "state.json"
_NAME = re.compile(r"step_(\d+)")


@dataclass(frozen=True)
class Snapshot:
    """A training state.

    Attributes:
        step: Gradient steps taken.
        tensors: Group -> name -> tensor.
        values: JSON-able values.
    """

    step: int
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    values: Mapping[str, Any]


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Commit a snapshot to ``folder/step_<n>`` and drop what it makes superfluous.

    Returns:
        Where it lies.

    Raises:
        OneStrideError: The disk refuses; earlier snapshots are intact.
    """
    home = folder / f"step_{snapshot.step}"
    unfinished = folder / f".{home.name}.unfinished"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _write(unfinished, snapshot)
        sync_tree(unfinished)
        # The same step again: only after falling back from a damaged snapshot, which this one replaces.
        shutil.rmtree(home, ignore_errors=True)
        unfinished.rename(home)
        sync(folder)
    except OSError as error:
        raise OneStrideError(f"{home}: expected to write a checkpoint, got: {error}") from error
    _prune(folder, snapshot.step)
    return home


def load(path: Path) -> Snapshot:
    """Read one snapshot and check every byte of it.

    Raises:
        OneStrideError: A file is missing, truncated or altered; names it.
    """
    state = _read_state(path / _STATE)
    tensors = {Path(name).stem: _read_tensors(path / name, digest) for name, digest in state["files"].items()}
    return Snapshot(state["step"], tensors, state["values"])


def newest(folder: Path) -> tuple[Snapshot | None, tuple[str, ...]]:
    """The newest snapshot that is intact.

    Returns:
        The snapshot, or None where there is none, and one line for each newer one that is damaged.
    """
    damaged: list[str] = []
    for step in sorted(_steps(folder), reverse=True):
        try:
            return load(folder / f"step_{step}"), tuple(damaged)
        except OneStrideError as error:
            damaged.append(str(error))
    return None, tuple(damaged)


def _write(folder: Path, snapshot: Snapshot) -> None:
    files = {}
    for group, tensors in snapshot.tensors.items():
        content = encode({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        (folder / f"{group}.safetensors").write_bytes(content)
        files[f"{group}.safetensors"] = hashlib.sha256(content).hexdigest()
    state = {"format": FORMAT, "step": snapshot.step, "files": files, "values": dict(snapshot.values)}
    state["sha256"] = hashlib.sha256(canonical_json(state)).hexdigest()
    (folder / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(path.read_bytes())
        digest = state.pop("sha256")
        intact = digest == hashlib.sha256(canonical_json(state)).hexdigest()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OneStrideError(f"{path}: expected a checkpoint's state, got: {error}") from error
    if not intact:
        raise OneStrideError(f"{path}: expected the state that was saved, got an altered file")
    if state.get("format") != FORMAT:
        raise OneStrideError(f"{path}: expected checkpoint format {FORMAT}, got {state.get('format')}")
    return state


def _read_tensors(path: Path, digest: str) -> dict[str, torch.Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OneStrideError(f"{path}: expected a checkpoint's tensors, got: {error}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise OneStrideError(f"{path}: expected the tensors that were saved, got a truncated or altered file")
    try:
        return decode(content)
    except SafetensorError as error:
        raise OneStrideError(f"{path}: expected safetensors, got: {error}") from error


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    matches = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return [int(match[1]) for match in matches if match]


def _prune(folder: Path, step: int) -> None:
    """Keep the snapshot just written and the ones before it; any later one was damaged and fallen back from."""
    kept = sorted(other for other in _steps(folder) if other <= step)[-KEEP:]
    for other in _steps(folder):
        if other not in kept:
            shutil.rmtree(folder / f"step_{other}", ignore_errors=True)

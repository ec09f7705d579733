"""What the cells of a suite gave: one JSON file, rewritten whole at each cell that ends."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from onestride.hardware.durable import write_atomic
from onestride.hardware.errors import OneStrideError
from onestride.training.checkpoint import RunDirectory
from onestride.training.evaluations import Row, read_evaluations
from onestride.training.probes import Multipliers, read_multipliers
from onestride.training.report import wilson
from onestride.training.suites.cells import Cell

Entry = dict[str, Any]

FORMAT = 1
_POINTS = 60
"""Of a curve of multipliers."""
_SHOWN = ("step", "success", "return", "cost", "length")


class Results:
    """The results file of a suite.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Entry]:
        """Every cell that was run; none where there is no file.

        Raises:
            OneStrideError: Not such a file.
        """
        if not self.path.exists():
            return []
        try:
            content = json.loads(self.path.read_bytes())
            if content["format"] != FORMAT:
                raise OneStrideError(f"{self.path}: expected format {FORMAT}, got {content['format']}")
            return list(content["cells"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OneStrideError(f"{self.path}: expected the results of a suite, got: {error}") from error

    def put(self, entry: Entry) -> None:
        """Add a cell, or replace what an earlier run of it gave; safe beside other processes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.path):
            others = [one for one in self.read() if key(one) != key(entry)]
            cells = sorted([*others, entry], key=key)
            text = json.dumps({"format": FORMAT, "cells": cells}, indent=1, ensure_ascii=False) + "\n"
            write_atomic(self.path, text.encode(), self.path.parent)


def found(cell: Cell, scale: str, entries: Sequence[Entry]) -> Entry | None:
    """The entry of a cell as it is defined now; None where it was not run, or with other settings."""
    wanted = (scale, *cell.key)
    return next((one for one in entries if key(one) == wanted and one["command"] == cell.command), None)


def key(entry: Mapping[str, Any]) -> tuple[str, str, str, int]:
    """What tells a cell from all others of its suite."""
    return entry["scale"], entry["task"], entry["agent"], entry["seed"]


def entry(cell: Cell, scale: str, trained: Mapping[str, Any], run: Path, singles: Mapping[int, Row]) -> Entry:
    """The record of a cell that has ended.

    Args:
        cell: The cell.
        scale: Of the suite.
        trained: What `train --json` said.
        run: Its run directory.
        singles: Number of candidates -> the evaluation of the last weights with so many.
    """
    rows = read_evaluations(run / "evaluations.csv")
    online = trained["environment_steps"]
    offline = _at(rows, trained["steps"] - online)
    last = _at(rows, trained["steps"]) if online else None
    watched = read_multipliers(RunDirectory(run).multipliers)
    return {
        "scale": scale,
        "task": cell.task,
        "agent": cell.agent,
        "seed": cell.seed,
        "command": cell.command,
        "data": None if cell.data is None else [shlex.join(["onestride", *one]) for one in cell.data.commands],
        "dataset_id": trained["dataset_id"],
        **RunDirectory(run).origin(),
        "train_s": round(trained["train_s"], 1),
        "offline": offline,
        "online": last,
        "candidates": {str(count): judged(row) for count, row in singles.items()},
        "evaluations": [{name: row[name] for name in _SHOWN} for row in rows],
        **({"multipliers": _told(watched)} if watched else {}),
    }


def judged(row: Row) -> Entry:
    """An evaluation with the 95 % interval of its success rate (Wilson)."""
    low, high = wilson(np.array([row["success"]]), np.array([row["episodes"]]))
    interval = [round(float(low[0]), 4), round(float(high[0]), 4)]
    return {name: row[name] for name in (*_SHOWN, "episodes", "seed")} | {"interval": interval}


def _told(watched: Multipliers) -> Entry:
    """The oscillation of multipliers, and their curves thinned out: mean and ends over the probe states."""
    picked = np.unique(np.linspace(0, len(watched.steps) - 1, _POINTS).round().astype(int))
    values, swing = watched.values[picked], watched.oscillation
    curves = {"mean": values.mean(axis=1), "low": values.min(axis=1), "high": values.max(axis=1)}
    return {
        "oscillation": None if math.isnan(swing) else round(swing, 5),
        "probes": values.shape[1],
        "steps": watched.steps[picked].tolist(),
        **{name: [round(float(value), 4) for value in curve] for name, curve in curves.items()},
    }


def _at(rows: Sequence[Row], step: int) -> Entry | None:
    return next((judged(row) for row in rows if row["step"] == step), None)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""The evaluations of a run: when, their table, and whether one of them ends the training."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from onestride.hardware.durable import write_atomic
from onestride.training.evaluation import Trial
from onestride.training.evaluators import Evaluators

COLUMNS = ("step", "seconds", "success", "return", "cost", "length", "episodes", "seed")
_WHOLE = ("step", "episodes", "seed")

Row = dict[str, float]


@dataclass(frozen=True)
class StopRule:
    """When to end before the last step.

    Attributes:
        success: Rate that is enough; None = no rate is.
        patience: Evaluations without a better one that are too many; None = no number is.
    """

    success: float | None = None
    patience: int | None = None

    def verdict(self, rows: Sequence[Row]) -> str | None:
        """Why to end after these evaluations, oldest first; None to go on."""
        if not rows:
            return None
        last = rows[-1]
        if self.success is not None and last["success"] >= self.success:
            return f"success {last['success']:.2f} reached {self.success:g} at step {last['step']:.0f}"
        best = max(range(len(rows)), key=lambda i: (rows[i]["success"], rows[i]["return"], -i))
        if self.patience is not None and len(rows) - 1 - best >= self.patience:
            return f"no better evaluation since step {rows[best]['step']:.0f}, {self.patience} ago"
        return None


class Pending(dict[str, torch.Tensor]):
    """The weights that are being evaluated.

    Attributes:
        step: Of the run when they were taken.
        seconds: Of training then [s].
    """

    def __init__(self, step: int, seconds: float, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()})
        self.step, self.seconds = step, seconds


class Evaluations:
    """One evaluation at a time, in `evaluations.csv` at the step of the weights it is of.

    Args:
        table: The file.
        resumed_from: Rows after this step are dropped: they will come again.
        evaluators: Who plays.
        seeds: Of the episodes.

    Attributes:
        rows: Of the table.
        pending: What is being evaluated; None = nothing.
    """

    def __init__(self, table: Path, resumed_from: int, evaluators: Evaluators, seeds: Sequence[int]) -> None:
        self._table, self._evaluators, self._seeds = table, evaluators, tuple(seeds)
        self.rows = [row for row in read_evaluations(table) if row["step"] <= resumed_from]
        self.pending: Pending | None = None
        self._write()

    def begin(self, pending: Pending) -> None:
        """Evaluate these weights, whose row there may be already."""
        self.rows = [row for row in self.rows if row["step"] != pending.step]
        self.pending = pending
        self._evaluators.begin(pending.step, pending, self._seeds)

    def poll(self) -> Row | None:
        """The row of an evaluation that is done now; does not wait."""
        return None if self.pending is None else self._taken(self._evaluators.poll())

    def finish(self) -> Row | None:
        """Wait for the evaluation in hand, if there is one; its row."""
        return None if self.pending is None else self._taken(self._evaluators.wait())

    def notes(self) -> list[str]:
        """One line for each process that died since the last call."""
        notes, self._evaluators.notes = self._evaluators.notes, []
        return notes

    @property
    def restarts(self) -> int:
        """Processes that were started again."""
        return self._evaluators.restarts

    def _taken(self, trials: list[Trial] | None) -> Row | None:
        if trials is None or self.pending is None:
            return None
        row = summary(trials, self.pending.step, self.pending.seconds)
        self.rows.append(row)
        self.pending = None
        self._write()
        return row

    def _write(self) -> None:
        buffer = io.StringIO()
        lines = [[str(int(row[name])) if name in _WHOLE else repr(row[name]) for name in COLUMNS] for row in self.rows]
        csv.writer(buffer, lineterminator="\n").writerows([list(COLUMNS), *lines])
        write_atomic(self._table, buffer.getvalue().encode(), self._table.parent)


def summary(trials: Sequence[Trial], step: int, seconds: float) -> Row:
    """Means over the episodes of an evaluation, as a row of the table."""
    count = len(trials)
    return {
        "step": float(step),
        "seconds": seconds,
        "success": sum(trial.success for trial in trials) / count,
        "return": sum(trial.reward for trial in trials) / count,
        "cost": sum(trial.cost for trial in trials) / count,
        "length": sum(trial.steps for trial in trials) / count,
        "episodes": float(count),
        "seed": float(trials[0].seed),
    }


def read_evaluations(table: Path) -> list[Row]:
    """The rows of an `evaluations.csv`, oldest first; none where there is no file."""
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return [{name: float(row[name]) for name in COLUMNS} for row in csv.DictReader(file)]

"""Training metrics on disk: ``metrics.csv`` for programs, TensorBoard scalars for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.tensorboard.writer import SummaryWriter

from onestride.hardware.durable import write_atomic


class MetricsLog:
    """Averages metrics between log lines on the device, and writes a line for each stretch.

    A resumed run goes on in the same files: lines after the step it resumes from are dropped.
    """

    def __init__(self, table: Path, tensorboard: Path, resumed_from: int) -> None:
        self._table = table
        self._rows = [row for row in read_metrics(table) if row["step"] <= resumed_from]
        self._writer = SummaryWriter(str(tensorboard), purge_step=resumed_from + 1)
        self._sum: torch.Tensor | None = None
        self._names: tuple[str, ...] = ()
        self._count = 0
        self._rewrite()

    def add(self, metrics: Mapping[str, torch.Tensor]) -> None:
        """Take one step's scalar metrics; nothing is read from the device."""
        values = torch.stack(list(metrics.values()))
        self._sum = values if self._sum is None else self._sum + values
        self._names, self._count = tuple(metrics), self._count + 1

    def write(self, step: int, seconds: float) -> dict[str, float]:
        """Write the means since the last line; returns them."""
        if self._sum is None:
            return {}
        means = dict(zip(self._names, (self._sum / self._count).tolist(), strict=True))
        self._sum, self._count = None, 0
        row = {"step": float(step), "seconds": seconds, **means}
        with self._table.open("a", newline="", encoding="utf-8") as file:
            file.write(_text([row], header=not self._rows))
        self._rows.append(row)
        for name, value in means.items():
            self._writer.add_scalar(name, value, step)
        return means

    def close(self) -> None:
        """Flush and close the TensorBoard file."""
        self._writer.close()

    def _rewrite(self) -> None:
        write_atomic(self._table, _text(self._rows, header=True).encode(), self._table.parent)


def read_metrics(table: Path) -> list[dict[str, float]]:
    """The complete lines of a ``metrics.csv``, oldest first; none where there is no file.

    A line that a killed run left half written is passed over.
    """
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    rows = []
    for line in lines[1:]:
        try:
            rows.append(dict(zip(lines[0], map(float, line), strict=True)))
        except ValueError:
            continue
    return rows


def _text(rows: Sequence[Mapping[str, float]], *, header: bool) -> str:
    buffer = io.StringIO()
    lines = [_cells(row) for row in rows]
    csv.writer(buffer, lineterminator="\n").writerows([list(row) for row in rows[:1] if header] + lines)
    return buffer.getvalue()


def _cells(row: Mapping[str, float]) -> list[str]:
    return [str(int(value)) if name == "step" else f"{value:.6g}" for name, value in row.items()]

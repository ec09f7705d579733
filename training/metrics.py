"""Training metrics on disk: ``metrics.csv`` for programs, TensorBoard scalars for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.tensorboard.writer import SummaryWriter

from onestride.hardware.durable import write_atomic


class Table:
    """A CSV file whose lines belong to steps.

    A resumed run goes on in the same file: lines after the step it resumes from are dropped.
    """

    def __init__(self, path: Path, resumed_from: int) -> None:
        self._path = path
        self._rows = [row for row in read_metrics(path) if row["step"] <= resumed_from]
        self._rewrite()

    def append(self, row: Mapping[str, float]) -> None:
        """One line more; a new column changes the heading, so that everything is written anew."""
        known = _columns(self._rows)
        self._rows.append(dict(row))
        if not set(row) <= set(known):
            return self._rewrite()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            file.write(_text([row], known))
        return None

    def _rewrite(self) -> None:
        columns = _columns(self._rows)
        text = ",".join(columns) + "\n" + _text(self._rows, columns) if self._rows else ""
        write_atomic(self._path, text.encode(), self._path.parent)


class MetricsLog:
    """Averages metrics between log lines on the device, and writes a line for each stretch."""

    def __init__(self, table: Path, tensorboard: Path, resumed_from: int) -> None:
        self._table = Table(table, resumed_from)
        self._writer = SummaryWriter(str(tensorboard), purge_step=resumed_from + 1)
        self._sum: torch.Tensor | None = None
        self._names: tuple[str, ...] = ()
        self._count = 0

    def add(self, metrics: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Take one step's scalar metrics; nothing is read from the device.

        Returns:
            The values (M,), in the metrics' order.
        """
        values = torch.stack([value.detach() for value in metrics.values()])
        self._sum = values if self._sum is None else self._sum + values
        self._names, self._count = tuple(metrics), self._count + 1
        return values

    def write(self, step: int, seconds: float, others: Mapping[str, float] | None = None) -> dict[str, float]:
        """Write the means since the last line, and `others` beside them; returns both."""
        means = dict(others or {})
        if self._sum is not None:
            means = dict(zip(self._names, (self._sum / self._count).tolist(), strict=True)) | means
        self._sum, self._count = None, 0
        if not means:
            return {}
        self._table.append({"step": float(step), "seconds": seconds, **means})
        self.scalars(step, means)
        return means

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """TensorBoard scalars of a step, without a line in the table."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the TensorBoard file."""
        self._writer.close()


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
            cells = zip(lines[0], line, strict=True)
            rows.append({name: float(cell) for name, cell in cells if cell})
        except ValueError:
            continue
    return rows


def _columns(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Every name that occurs, in the order of its first occurrence."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _text(rows: Sequence[Mapping[str, float]], columns: Sequence[str]) -> str:
    """Lines of the table; a value that a row does not have is an empty cell."""
    buffer = io.StringIO()
    lines = [[_cell(name, row[name]) if name in row else "" for name in columns] for row in rows]
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue()


def _cell(name: str, value: float) -> str:
    return str(int(value)) if name == "step" else f"{value:.6g}"

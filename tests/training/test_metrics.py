"""metrics.csv: means by hand, resume, half-written lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from onestride.training.metrics import MetricsLog, read_metrics


def write(folder: Path, resumed_from: int, values: dict[int, list[float]]) -> None:
    log = MetricsLog(folder / "metrics.csv", folder / "tb", resumed_from)
    for step, stretch in values.items():
        for value in stretch:
            log.add({"actor/loss": torch.tensor(value), "actor/twice": torch.tensor(2 * value)})
        log.write(step, seconds=step / 10)
    log.close()


def test_means_since_the_last_line(tmp_path: Path) -> None:
    write(tmp_path, 0, {3: [1.0, 2.0, 6.0], 4: [5.0]})
    assert (tmp_path / "metrics.csv").read_text() == "step,seconds,actor/loss,actor/twice\n3,0.3,3,6\n4,0.4,5,10\n"
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("actor/loss")] == [(3, 3.0), (4, 5.0)]


def test_nothing_added_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path, 0, {3: []})
    assert read_metrics(tmp_path / "metrics.csv") == []


@pytest.mark.parametrize("torn", ["", "9,0.9,1", "9,0.9,1.0,tw", "\x00\x00"])
def test_resume_drops_later_and_torn_lines(tmp_path: Path, torn: str) -> None:
    write(tmp_path, 0, {2: [1.0], 4: [2.0], 6: [3.0]})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(torn)
    write(tmp_path, 4, {6: [30.0]})
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [(row["step"], row["actor/loss"]) for row in rows] == [(2, 1), (4, 2), (6, 30)]


def test_a_new_column_is_empty_in_earlier_lines(tmp_path: Path) -> None:
    """Online metrics come after the offline ones, and lines without updates hold them alone."""
    log = MetricsLog(tmp_path / "metrics.csv", tmp_path / "tb", 0)
    log.add({"actor/loss": torch.tensor(1.0)})
    log.write(1, 0.1)
    log.write(2, 0.2, {"environment/return": -5.0})
    log.add({"actor/loss": torch.tensor(2.0)})
    log.write(3, 0.3, {})
    log.close()
    text = "step,seconds,actor/loss,environment/return\n1,0.1,1,\n2,0.2,,-5\n3,0.3,2,\n"
    assert (tmp_path / "metrics.csv").read_text() == text
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [set(row) - {"step", "seconds"} for row in rows] == [{"actor/loss"}, {"environment/return"}, {"actor/loss"}]

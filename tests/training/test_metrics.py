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

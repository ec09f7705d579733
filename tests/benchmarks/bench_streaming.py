"""What reading from the store while training costs a learner: from memory, reading ahead, and reading when needed.

Run by `make bench-data`, or `python tests/benchmarks/bench_streaming.py`. Batches of pictures are drawn over whole
passes, and after each the learner computes for a while elsewhere (an accelerator): the processors are free, and the
time can be used to read. The three ways take turns, pass by pass; the figure is what a step takes beyond the learner's
own time, the median of the passes. The first pass begins with an empty buffer and counts like the others. JSON goes to
standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from onestride.datasets.provenance import Provenance
from onestride.datasets.schema import Episode, Feature, Schema, synthetic_clock
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows

EPISODES, LENGTH, SIDE, RATE = 120, 60, 64, 10.0
BATCH, HORIZON = 64, 8
BUFFER = 16 << 20
"""A sixth of the data."""


def make_store(path: Path) -> Store:
    """Pictures of 64 x 64 with a noise of four bits, as a camera's, and an action."""
    random = np.random.default_rng(0)
    features = (
        Feature(name="camera", role="observation", shape=(SIDE, SIDE, 3), dtype="uint8"),
        Feature(name="action", role="action", shape=(7,), dtype="float32"),
    )
    schema = Schema(features=features, control_rate=RATE, label="action", label_source="human")
    store = Store.create(path, schema, Provenance.now("benchmark"))
    with store.writer() as writer:
        for number in range(EPISODES):
            data = {
                "camera": random.integers(0, 16, (LENGTH, SIDE, SIDE, 3), np.uint8) + np.uint8(number),
                "action": random.normal(size=(LENGTH, 7)).astype(np.float32),
            }
            writer.add(Episode(data, {"base": synthetic_clock(LENGTH, RATE)}))
    return store


def opened(store: Store, mode: Any) -> Windows:
    return Windows(
        Store.open(store.path),
        observations=["camera"],
        horizon=HORIZON,
        mode=mode,
        buffer=BUFFER,
        successors=False,
        outcomes=False,
    )


def when_needed(windows: Windows) -> Windows:
    """The same without reading ahead."""
    setattr(windows._source, "expect", lambda _: None)  # noqa: B010  (a method: mypy refuses the plain assignment)
    return windows


def a_pass(windows: Windows, step: float) -> float:
    """Seconds that a step takes beyond the learner's own, over one pass."""
    steps, began = windows.num_windows // BATCH, time.perf_counter()
    for _ in range(steps):
        windows.sample(BATCH)
        time.sleep(step)
    return (time.perf_counter() - began) / steps - step


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--steps", type=float, nargs="+", default=[0.01, 0.04], help="of the learner [s]")
    arguments = parser.parse_args()
    told: dict[str, Any] = {"cpus": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1), "batch": BATCH}
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store")
        for step in arguments.steps:
            ways = {
                "memory": opened(store, "resident"),
                "reading ahead": opened(store, "streaming"),
                "reading when needed": when_needed(opened(store, "streaming")),
            }
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(arguments.passes):
                for name, windows in ways.items():
                    times[name].append(a_pass(windows, step))
            told[f"a learner of {1000 * step:g} ms a step"] = {
                f"ms a step, {name}": round(1000 * statistics.median(found), 2) for name, found in times.items()
            }
    told["load_after"] = round(os.getloadavg()[0], 1)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
